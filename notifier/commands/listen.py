"""`notifier listen`."""

import json
from contextlib import aclosing
from functools import partial
from typing import Any

import click

from notifier.commands.pipes import run_client
from notifier.commands.process import load_settings, url_option
from notifier.commands.tokens import mint


@click.command()
@click.option("--user", required=True, help="The user to listen as.")
@click.option("--topic", "topics", multiple=True, help="A further topic; may be repeated.")
@url_option("The gateway.", "gateway_port", "ws")
@click.option("--token", envvar="NOTIFIER_TOKEN", show_envvar=True, help="A token of that user.")
@click.option("--frames", is_flag=True, help="Print every frame, not only the events.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
def listen(  # noqa: PLR0913 - one for each option
    user: str,
    topics: tuple[str, ...],
    url: str,
    token: str | None,
    count: int | None,
    *,
    frames: bool,
) -> None:
    """Print the events that arrive for a user, one JSON a line.

    Comes back by itself when the connection is lost, and misses nothing.

    Without a token it makes one with NOTIFIER_JWT_SECRET, or asks a running `notifier dev`.
    """
    from notifier import client

    follower = client.Follower(
        url, lambda: _token(user, url, token), topics=topics, note=partial(click.echo, err=True)
    )

    async def work() -> None:
        events = 0
        async with aclosing(follower.frames()) as received:
            async for frame in received:
                if frame["type"] == "hello":
                    _greet(frame, user)
                _show(frame, frames=frames)
                events += frame["type"] == "event"
                if events == count:
                    return

    run_client(work())


def _show(frame: dict[str, Any], *, frames: bool) -> None:
    """Print an event, or with `frames` any frame; else tell of gaps and errors beside it."""
    if frame["type"] in ("gap", "error") and not frames:
        click.echo(f"{frame['type']}: {json.dumps(frame)}", err=True)
    if frames or frame["type"] == "event":
        shown = frame if frames else frame["event"]
        click.echo(json.dumps(shown, ensure_ascii=False))


def _greet(frame: dict[str, Any], user: str) -> None:
    from notifier import client

    if frame["user"] != user:
        raise client.ClientError(f"the token is of user {frame['user']}, not of {user}")
    click.echo(f"listening as {user}", err=True)


async def _token(user: str, url: str, given: str | None) -> str:
    if given:
        return given
    from notifier import client

    settings = load_settings()
    if settings.jwt_secret is None:
        return await client.fetch_token(url, user)
    return mint(settings, user, ("*",), 3600)
