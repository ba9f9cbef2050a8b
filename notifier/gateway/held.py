"""HTTP responses that outlive their endpoint: what SSE and long-poll have in common.

The endpoint authenticates by ordinary dependencies, takes the connection over from uvicorn's HTTP
protocol (see `notifier.http`), and returns: while a client is served or waits there is no task.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol, cast

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from notifier.core.frames import Gap, Hello, ServerFrame
from notifier.core.positions import Position, format_cursor
from notifier.gateway.outgoing import Listener, Outgoing
from notifier.http import HANDOVER, MOST_EARLY, Header


class Http(Protocol):
    """What `notifier.http` offers of a connection, as the extension `HANDOVER`."""

    @property
    def is_gone(self) -> bool:
        """Whether the client has gone."""

    def take_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Let `protocol` have the connection; the endpoint then answers nothing itself."""

    def let_go(self, protocol: asyncio.Protocol) -> None:
        """Hear that a connection which was taken over is gone."""

    def give_back(self, protocol: asyncio.Protocol, early: bytes) -> None:
        """Go on with what may follow the response, of which `early` has come in already."""

    def head(self, headers: Iterable[Header]) -> bytes:
        """Make the head of a response with status 200."""


class TakenOver(Response):
    """Stands for a response that somebody else gives."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing."""


def http_of(request: Request) -> Http:
    """Return the connection that a request came on."""
    return cast("Http", request.scope["extensions"][HANDOVER]["from"])


class Held(Outgoing):
    """A response under way, and the cursor of what it has told so far."""

    __slots__ = ("_early", "_headers", "_http", "_positions")

    def __init__(
        self, http: Http, cursor: Mapping[str, Position], headers: Iterable[Header]
    ) -> None:
        super().__init__()
        self._http = http
        self._headers = tuple(headers)
        self._positions: dict[str, Position | str] = {**cursor}
        self._early = b""
        self._transport = http.take_over(self)

    @property
    def cursor(self) -> str:
        """Up to where this client has been told each topic."""
        return format_cursor(self._positions)

    def _note(self, frame: ServerFrame) -> None:
        if isinstance(frame, Hello):
            # Where a gap is announced that is the position given: only the gap itself moves it.
            self._positions = {topic: start.position for topic, start in frame.topics.items()}
        elif isinstance(frame, Gap):
            self._positions[frame.topic] = frame.position

    def hand_over(self, listener: Listener) -> None:
        """Call `listener` back from now on."""
        self._listener = listener

    def shutdown(self) -> None:
        """Close at once; uvicorn calls this for what is left when the server stops."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._early += data
        if len(self._early) > MOST_EARLY:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._http.let_go(self)
        super().connection_lost(exc)
