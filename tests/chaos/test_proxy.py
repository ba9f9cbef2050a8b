"""That a spoilt link is spoilt in the way it says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.proxy import Proxy


class Line:
    """Both ends of a connection over a link."""

    def __init__(self, link: Proxy, near: "End", far: "End") -> None:
        self.link = link
        self.near = near
        self.far = far


class End:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader

    async def reads(self, count: int) -> bytes:
        async with asyncio.timeout(10):
            return await self._reader.readexactly(count)

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(0.1):
                await self._reader.readexactly(1)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def lines() -> AsyncIterator[Callable[[], Awaitable[Line]]]:
    """How to open connections over one link."""
    taken: asyncio.Queue[End] = asyncio.Queue()
    ends: list[End] = []

    async def connect() -> Line:
        near = End(*await asyncio.open_connection("127.0.0.1", link.port))
        ends.extend((near, await taken.get()))
        return Line(link, *ends[-2:])

    server = await asyncio.start_server(lambda r, w: taken.put_nowait(End(r, w)), "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as link:
        yield connect
        for end in ends:
            end.writer.close()


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    async with lines() as connect:
        yield await connect()


async def test_a_whole_link_passes_on_both_ways() -> None:
    async with line() as over:
        over.near.writer.write(b"there")
        over.far.writer.write(b"back")

        assert (await over.far.reads(5), await over.near.reads(4)) == (b"there", b"back")


async def test_bytes_given_to_a_silent_link_come_when_it_is_healed() -> None:
    async with line() as over:
        over.link.silence()
        over.near.writer.write(b"late")

        assert await over.far.hears_nothing()
        over.link.heal()
        assert await over.far.reads(4) == b"late"


async def test_a_dripping_link_loses_nothing() -> None:
    async with line() as over:
        over.link.rate = 2_000
        over.near.writer.write(bytes(range(250)))

        assert await over.far.reads(250) == bytes(range(250))


async def test_an_abandoned_connection_stays_silent_while_a_new_one_passes() -> None:
    async with lines() as connect:
        old = await connect()
        old.link.abandon()
        new = await connect()
        for each in (old, new):
            each.near.writer.write(b"hello")

        assert await new.far.reads(5) == b"hello"
        assert await old.far.hears_nothing()


async def test_a_cut_resets_both_ends() -> None:
    async with line() as over:
        over.near.writer.write(b"x")
        await over.far.reads(1)

        over.link.cut()

        for end in (over.near, over.far):
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await end.reads(1)


async def test_a_tap_hears_each_message_and_swallows_those_it_does_not_return() -> None:
    heard: list[bytes] = []

    def tap(data: bytes) -> bytes | None:
        heard.append(data)
        return None if data == b"stop" else data

    async with line() as over:
        over.link.tap = tap
        over.near.writer.write(b"go on")
        assert await over.far.reads(5) == b"go on"

        over.near.writer.write(b"stop")

        assert await over.far.hears_nothing()
        assert heard == [b"go on", b"stop"]
