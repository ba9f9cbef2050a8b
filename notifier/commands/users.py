"""`notifier users` and `notifier events`: what the api knows of users, and orders about them."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

import click

from notifier.commands.pipes import run_client
from notifier.commands.process import url_option


@click.group()
def users() -> None:
    """Ask about a user, or order something. The API key needs the scope read or control."""


def _about_a_user(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument and the options of a command about a user."""
    for option in (
        click.option("--key", envvar="NOTIFIER_API_KEY", show_envvar=True, help="The API key."),
        url_option("The api.", "api_port"),
        click.argument("user"),
    ):
        command = option(command)
    return command


@users.command()
@_about_a_user
def show(user: str, url: str, key: str | None) -> None:
    """Print where USER is connected, as JSON."""
    from notifier import client

    _print(client.presence(url, user, key), indent=2)


@users.command()
@_about_a_user
def disconnect(user: str, url: str, key: str | None) -> None:
    """End the connections that USER has now. The clients come back."""
    from notifier import client

    _print(client.order(url, "disconnect", user, key))


@users.command()
@_about_a_user
def revoke(user: str, url: str, key: str | None) -> None:
    """Refuse the tokens of USER issued until now. The connections that they opened end."""
    from notifier import client

    _print(client.order(url, "revoke", user, key))


@click.group()
def events() -> None:
    """Ask what became of an event. The API key needs the scope read."""


@events.command()
@_about_a_user
@click.argument("event")
@click.option("--source", help="The event's source, to know of it beyond history too.")
@click.option("--topic", help="One more topic to look in.")
def explain(user: str, event: str, url: str, key: str | None, **given: str | None) -> None:
    """Print why USER got an event, or did not. EVENT is its id; the answer is JSON."""
    from notifier import client

    of = {name: value for name, value in given.items() if value is not None}
    _print(client.fate(url, user, event, key, **of), indent=2)


def _print(answer: Coroutine[Any, Any, dict[str, Any]], indent: int | None = None) -> None:
    click.echo(json.dumps(run_client(answer), indent=indent))
