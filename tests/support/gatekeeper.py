"""A proxy that lets some requests of a gateway's clients through, and refuses the others."""

import asyncio
from contextlib import suppress
from typing import Self

_REFUSAL = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CHUNK = 65_536


class Gatekeeper:
    """A proxy of a port on loopback, for the length of an `async with`, at `port`.

    `target` may change. Requests whose path begins with one that is refused are answered with 502.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._refused: tuple[str, ...] = ()
        self._open: dict[asyncio.StreamWriter, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def refuse(self, *paths: str) -> None:
        """Refuse these paths alone, and cut their connections."""
        self._refused = paths
        for writer, path in self._open.items():
            if path.startswith(paths):
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._pass(reader, writer)
        finally:
            self._open.pop(writer, None)
            self._tasks.discard(task)
            writer.close()

    # One request a connection: the next one may be for another path.
    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = self._open[writer] = head.split(b" ")[1].decode()
        if self._refused and path.startswith(self._refused):
            writer.write(_REFUSAL)
            await writer.drain()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        if b"upgrade: websocket" not in head.lower():
            head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            head = head.replace(b"Connection: keep-alive\r\n", b"")
        far_writer.write(head)
        ways = [_copy(reader, far_writer), _copy(far_reader, writer)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
