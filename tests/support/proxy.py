"""A TCP link that can be spoilt while it is in use: slow, dripping, silent, reset, or listened to.

It stands between two ends on loopback, as a network would that fails in all the ways in which
networks do. Nothing is ever dropped from a connection that lives on: what a silent link was given
arrives late, as TCP would repeat it.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Self

Tap = Callable[[bytes], bytes | None]
"""Given what a client sends; returns what is passed on, and None from when on nothing is."""

_CHUNK = 65_536
_DRIPS = 20  # a second
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time: closing sends RST


class Proxy:
    """A link to a port on loopback, for the length of an `async with`, at `port`.

    `latency` is in seconds, `rate` in bytes a second; both for each direction, at any time.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.latency = 0.0
        self.rate: int | None = None
        self.tap: Tap | None = None
        self.port = 0
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def silence(self) -> None:
        """Pass nothing on: a black hole, for connections that are there and those to come."""
        self._is_open.clear()

    def heal(self) -> None:
        """Pass on what was held back, and from now on everything, at once and untouched."""
        self.latency, self.rate, self.tap = 0.0, None, None
        self._is_open.set()

    def abandon(self) -> None:
        """Leave the connections that are there silent for ever, half-open, and take new ones."""
        self.silence()
        self._is_open = asyncio.Event()
        self._is_open.set()

    def cut(self) -> None:
        """Reset every connection, at both ends; new ones are taken."""
        for writer in self._writers:
            _reset(writer)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # asyncio's server would complain of a task that is cancelled
        finally:
            self._links.discard(task)
            _reset(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_open = self._is_open
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            there = self._carry(reader, far_writer, self._tapped, is_open)
            back = self._carry(far_reader, writer, lambda data: data, is_open)
            tasks = [asyncio.ensure_future(half) for half in (there, back)]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tap: Tap,
        is_open: asyncio.Event,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await asyncio.sleep(self.latency)
                await is_open.wait()
                passed = tap(data)
                if passed is None:
                    self.silence()
                    await is_open.wait()
                    return
                await self._write(writer, passed)

    def _tapped(self, data: bytes) -> bytes | None:
        return self.tap(data) if self.tap else data

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        while (rate := self.rate) and data:
            drip = max(1, rate // _DRIPS)
            writer.write(data[:drip])
            data = data[drip:]
            await asyncio.sleep(1 / _DRIPS)
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    end: socket.socket | None = writer.get_extra_info("socket")
    if end is not None and not writer.transport.is_closing():
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
