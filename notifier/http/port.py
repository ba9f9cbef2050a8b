"""A port: all that its connections share."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.types import ASGIApp

from notifier.http.backlog import Backlog
from notifier.http.turns import Turns

HANDOVER = "notifier.handover"  # the ASGI extension by which an endpoint hands a response over
MOST_EARLY = 64 * 1024  # bytes that a client may send while its request is being answered
Header = tuple[bytes, bytes]


def address_of(transport: asyncio.BaseTransport) -> str:
    """Return the address of the other end, empty where there is none.

    To be called only where it is shown: uvloop then keeps the address, 360 bytes a connection.
    """
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""


class ServerState(Protocol):
    """The server's record of connections and tasks; it waits for them when it stops."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    default_headers: list[Header]


class WebSocketProtocol(Protocol):
    """An asyncio.Protocol that goes on where HTTP has read an upgrade request."""

    def __init__(self, port: "Port") -> None:
        """Take the port that the client came to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""

    def begin_handshake(self, path: bytes, query: bytes, headers: list[Header]) -> None:
        """Answer the request; names of headers are in lower case."""


class Idle(Protocol):
    """A connection between two requests."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True, eq=False)
class Port:
    """One port. Without `websocket` no client becomes a WebSocket.

    A client beyond `most` connections takes the place of the one that has been idle longest; it is
    refused with 503 where none is.
    """

    app: ASGIApp
    state: ServerState
    websocket: type[WebSocketProtocol] | None = None
    backlog: Backlog = field(default_factory=Backlog)
    most: int | None = None
    is_tls: bool = False
    turns: Turns = field(default_factory=Turns)
    idle: dict[Idle, None] = field(default_factory=dict)  # the longest first

    def has_place(self) -> bool:
        """Whether a connection that was just made fits; closes an idle one if need be."""
        if self.most is None or len(self.state.connections) <= self.most:
            return True
        if not self.idle:
            return False
        next(iter(self.idle)).close()
        return True
