"""A server that echoes, on the gateway's own WebSocket protocol class: a peer for fuzzers."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive, Scope, Send

from notifier.core.errors import CloseCode
from notifier.core.rate_limit import RateLimit
from notifier.gateway.deflate import deflated
from notifier.gateway.framing import Opcode, websocket_frame
from notifier.gateway.websocket import WebSocketConnection
from notifier.http.port import HANDOVER
from notifier.serving import serve


class EchoConnection(WebSocketConnection):
    """Sends back whatever comes, text and binary, compressed if that was agreed on."""

    __slots__ = ()

    largest_message = 20 * 1024 * 1024
    send_buffer = 64 * 1024 * 1024
    frame_limit = byte_limit = RateLimit(rate=math.inf, burst=1)  # a fuzzer sends as fast as it can

    def received_binary(self, payload: bytes) -> None:
        """Echo, where the gateway refuses."""
        self.echo(Opcode.BINARY, payload)

    def echo(self, opcode: Opcode, payload: bytes) -> None:
        """Send a message back."""
        if self.window:
            self.write(websocket_frame(opcode, deflated(payload, self.window), compressed=True))
        else:
            self.write(websocket_frame(opcode, payload))


class Echo:
    """Fulfils Listener."""

    def __init__(self, connection: EchoConnection) -> None:
        self._connection = connection

    def received(self, text: bytes) -> None:
        """Echo it."""
        self._connection.echo(Opcode.TEXT, text)

    def heard(self) -> None:
        """See Listener."""

    def ready(self) -> None:
        """See Listener."""

    def flooded(self, what: str, most: float) -> None:
        """See Listener."""

    def closed(self, code: CloseCode | None = None) -> None:
        """See Listener."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and hand the connection over."""
    await receive()
    connection: EchoConnection = scope["extensions"][HANDOVER]["to"]
    await send({"type": "websocket.accept"})
    connection.hand_over(Echo(connection))


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """Serve echoes, and yield the address."""
    async with serve(app, host="127.0.0.1", port=0, setting="X", websocket=EchoConnection) as port:
        yield f"127.0.0.1:{port}"
