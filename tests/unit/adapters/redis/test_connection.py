"""The internals of redis-py that `connection.py` leans on: a version that moves one fails here."""

import asyncio
import errno
from collections.abc import AsyncIterator

import hiredis
import pytest
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, ConnectionPool
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import ResponseError

from notifier.adapters.redis.connection import (
    connection_options,
    introduce,
    pack,
    read_reply,
    send,
    transport_of,
)
from notifier.telemetry.metrics import Metrics

Words = list[bytes]
NOTHING_YET = object()


class Answering:
    """A server that speaks Redis' protocol: it answers PING, INFO and SENTINEL MASTERS."""

    def __init__(self) -> None:
        self.place = ""
        self.masters: list[str] = []
        self.reads: list[list[Words]] = []
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"redis://{self.place}/0"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        commands = hiredis.Reader(notEnoughData=NOTHING_YET)
        while data := await reader.read(65536):
            commands.feed(data)
            read = list(iter(commands.gets, NOTHING_YET))
            self.reads.append(read)
            for words in read:
                writer.write(self.answer(words))

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
            await writer.wait_closed()

    def answer(self, words: Words) -> bytes:
        match words:
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"INFO", _]:
                return bulk("redis_version:8.0.0\r\nrun_id:abc012\r\n")
            case [b"SENTINEL", _]:
                host, port = self.masters.pop(0).split(":")
                others = b"$19\r\nnum-other-sentinels\r\n$1\r\n0\r\n"
                fields = ["name", "main", "ip", host, "port", port, "flags", "master"]
                return b"*1\r\n*10\r\n" + others + b"".join(map(bulk, fields))
            case [b"CLIENT", *_]:
                return b"+OK\r\n"
            case _:
                return b"-ERR unknown command\r\n"


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


@pytest.fixture
async def server() -> AsyncIterator[Answering]:
    answering = Answering()
    async with await asyncio.start_server(answering.serve, "127.0.0.1", 0) as listening:
        answering.place = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield answering
        await answering.close()


@pytest.fixture
async def connection(server: Answering) -> AsyncIterator[AbstractConnection]:
    pool = ConnectionPool(**connection_options(server.url))
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()  # type: ignore[no-untyped-call]
    yield connection
    await connection.disconnect(nowait=True)


async def test_a_connection_shows_its_transport(connection: AbstractConnection) -> None:
    assert not transport_of(connection).is_closing()

    await connection.disconnect(nowait=True)

    with pytest.raises(LostConnectionError):
        transport_of(connection)


async def test_commands_go_out_in_one_write_and_replies_come_in_order(
    server: Answering, connection: AbstractConnection
) -> None:
    await send(connection, pack("PING"), pack("NOTHING", 1), pack("PING"))

    assert await read_reply(connection) == b"PONG"
    assert isinstance(await read_reply(connection), ResponseError)
    assert await read_reply(connection) == b"PONG"
    assert server.reads[-1] == [[b"PING"], [b"NOTHING", b"1"], [b"PING"]]


async def test_no_timer_starts_for_a_command_or_a_reply(
    connection: AbstractConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[object] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_at", lambda *args, **_: timers.append(args))

    await send(connection, pack("PING"))

    assert await read_reply(connection) == b"PONG"
    assert timers == []


async def test_a_timeout_of_tcp_is_a_lost_connection(connection: AbstractConnection) -> None:
    protocol = transport_of(connection).get_protocol()
    protocol.connection_lost(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))

    with pytest.raises(LostConnectionError, match="timed out"):
        await read_reply(connection)


async def test_the_pool_introduces_a_connection_before_its_first_command(
    server: Answering,
) -> None:
    run_ids: list[str] = []

    async def meet(connection: AbstractConnection) -> None:
        run_ids.append(await introduce(connection, Metrics()))

    pool = BlockingConnectionPool(redis_connect_func=meet, **connection_options(server.url))
    for _ in range(2):
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        await pool.release(connection)

    assert run_ids == ["abc012"]
    await pool.disconnect()


async def test_a_connection_asks_for_the_master_each_time_it_connects(server: Answering) -> None:
    first, second = server.place, server.place.replace("127.0.0.1", "localhost")
    server.masters = [first, second]
    pool = ConnectionPool(**connection_options(f"redis+sentinel://{server.place}/main"))
    connection = pool.make_connection()  # type: ignore[no-untyped-call]

    places = []
    for _ in range(2):
        await connection.connect()
        await connection.connect()  # it is connected: nobody is asked
        places.append(f"{connection.host}:{connection.port}")
        await connection.disconnect()

    assert places == [first, second]
