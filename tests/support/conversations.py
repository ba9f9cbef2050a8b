"""Talking HTTP byte by byte to a connection, without a server around it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send

from notifier.http.backlog import Backlog
from notifier.http.connection import Connection
from notifier.http.port import Header, Port, WebSocketProtocol

_PATIENCE = 10.0


class State:
    """Fulfils ServerState."""

    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.default_headers: list[Header] = []


class Talk:
    """A client's end of a connection."""

    def __init__(
        self, port: Port, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.port = port
        self.reader = reader
        self.writer = writer

    async def say(self, *pieces: bytes) -> None:
        """Send pieces, each of which is read by itself."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            for _ in range(4):
                await asyncio.sleep(0)

    def pause(self) -> None:
        """Read no more of what comes."""
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def resume(self) -> None:
        """Read again."""
        cast("asyncio.Transport", self.writer.transport).resume_reading()

    async def answer(self) -> bytes:
        """Return the next response, which has to tell its length."""
        async with asyncio.timeout(_PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            [length] = (line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
            return head + await self.reader.readexactly(int(length.split(b":")[1]))

    async def gone(self) -> None:
        """Return when the server has no connection any more."""
        async with asyncio.timeout(_PATIENCE):
            while self.port.state.connections:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.001)

    @property
    def unsent(self) -> int:
        """Bytes that the server does not take."""
        return self.writer.transport.get_write_buffer_size()

    async def rest(self) -> bytes:
        """Return all that comes until the connection is closed."""
        async with asyncio.timeout(_PATIENCE):
            return await self.reader.read()


@asynccontextmanager
async def talking(
    app: ASGIApp,
    websocket: type[WebSocketProtocol] | None = None,
    *,
    backlog: Backlog | None = None,
    most: int | None = None,
) -> AsyncIterator[Talk]:
    """Connect to an application."""
    ours, theirs = socket.socketpair()
    port = Port(app, State(), websocket, backlog or Backlog(), most)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(port), theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        yield Talk(port, reader, writer)
    finally:
        writer.close()
        while port.state.connections or port.state.tasks:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with method, path and body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    text = b"%s %s %s" % (scope["method"].encode(), scope["raw_path"], body)
    await respond(send, text)


async def respond(send: Send, text: bytes, status: int = 200) -> None:
    """Send a whole response."""
    length = str(len(text)).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
