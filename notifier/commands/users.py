"""`notifier users`: what the api knows of users, and orders about them."""

import json
from collections.abc import Callable

import click

from notifier.commands.pipes import run_client
from notifier.commands.process import load_settings


@click.group()
def users() -> None:
    """Ask about a user, or order something, with an API key of the scope read or control."""


def _about_a_user(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the options of a command about a user."""
    for option in (
        click.option("--key", envvar="NOTIFIER_API_KEY", show_envvar=True, help="The API key."),
        click.option(
            "--url",
            default=lambda: f"http://127.0.0.1:{load_settings().api_port}",
            show_default="this machine's",
            help="The api.",
        ),
        click.argument("user"),
    ):
        command = option(command)
    return command


@users.command()
@_about_a_user
def show(user: str, url: str, key: str | None) -> None:
    """Print where USER is connected, as JSON."""
    run_client(_show(url, user, key))


async def _show(url: str, user: str, key: str | None) -> None:
    from notifier import client

    click.echo(json.dumps(await client.presence(url, user, key), indent=2))


@users.command()
@_about_a_user
def disconnect(user: str, url: str, key: str | None) -> None:
    """End the connections that USER has now; they may come back."""
    run_client(_order(url, "disconnect", user, key))


@users.command()
@_about_a_user
def revoke(user: str, url: str, key: str | None) -> None:
    """Refuse the tokens that USER was issued until now, and end what they opened."""
    run_client(_order(url, "revoke", user, key))


async def _order(url: str, act: str, user: str, key: str | None) -> None:
    from notifier import client

    click.echo(json.dumps(await client.order(url, act, user, key)))
