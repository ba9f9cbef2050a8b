"""`notifier listen`."""

import json
from contextlib import aclosing, suppress
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
    show = _Printing(user, count, frames=frames)

    async def work() -> None:
        async with aclosing(follower.frames()) as received:
            with suppress(_Enough):
                async for frame in received:
                    show(frame)

    run_client(work())


class _Printing:
    """Prints a user's events, or all frames; raises _Enough after `count` events."""

    def __init__(self, user: str, count: int | None, *, frames: bool) -> None:
        self._user = user
        self._left = count
        self._frames = frames

    def __call__(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "hello":
            self._greet(frame["user"])
        elif frame["type"] in ("gap", "error") and not self._frames:
            click.echo(f"{frame['type']}: {json.dumps(frame)}", err=True)
        if self._frames or frame["type"] == "event":
            shown = frame if self._frames else frame["event"]
            click.echo(json.dumps(shown, ensure_ascii=False))
        if self._left is not None and frame["type"] == "event":
            self._left -= 1
            if not self._left:
                raise _Enough

    def _greet(self, user: str) -> None:
        from notifier import client

        if user != self._user:
            raise client.ClientError(f"the token is of user {user}, not of {self._user}")
        click.echo(f"listening as {user}", err=True)


class _Enough(Exception):
    """As many events have come as were asked for."""


async def _token(user: str, url: str, given: str | None) -> str:
    if given:
        return given
    from notifier import client

    settings = load_settings()
    if settings.jwt_secret is None:
        return await client.fetch_token(url, user)
    return mint(settings, user, ("*",), 3600)
