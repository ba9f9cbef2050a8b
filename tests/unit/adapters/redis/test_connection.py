"""The internals of redis-py that `connection.py` leans on: a version that moves one fails here."""

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import ResponseError

from notifier.adapters.redis.connection import (
    new_connection,
    pack,
    read_replies,
    read_reply,
    send,
    transport_of,
)
from notifier.core.addresses import Address
from tests.support.answering import Answering, answering


@pytest.fixture
async def server() -> AsyncIterator[Answering]:
    async with answering() as server:
        yield server


@pytest.fixture
async def connection(server: Answering) -> AsyncIterator[AbstractConnection]:
    connection = new_connection(Address(server.url))
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


async def test_replies_are_read_in_order(connection: AbstractConnection) -> None:
    await send(connection, *[pack("PING"), pack("NOTHING"), pack("PING")] * 100)
    first, second, *others = await read_replies(connection, 300)

    assert first == b"PONG"
    assert isinstance(second, ResponseError)
    assert others[-1] == b"PONG"


async def test_redis_py_reads_only_what_has_yet_to_come(
    connection: AbstractConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    read_response = connection.read_response

    async def read(**options: object) -> object:
        reads.append(options)
        return await read_response(**options)  # type: ignore[arg-type]

    monkeypatch.setattr(connection, "read_response", read)
    parser: Any = connection._parser  # noqa: SLF001 - as if all had come in one piece
    parser._reader.feed(b"+PONG\r\n" * 3)  # noqa: SLF001

    assert await read_replies(connection, 3) == [b"PONG"] * 3
    assert len(reads) == 1


async def test_a_server_that_still_loads_is_a_lost_connection(
    connection: AbstractConnection,
) -> None:
    await send(connection, pack("PING"), pack("LOADING"))

    with pytest.raises(LostConnectionError, match="loading"):
        await read_replies(connection, 2)


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


async def test_a_connection_asks_for_the_master_each_time_it_connects(server: Answering) -> None:
    first, second = server.place, server.place.replace("127.0.0.1", "localhost")
    server.masters = [first, second]
    connection = new_connection(Address(f"redis+sentinel://{server.place}/main"))

    places = []
    for _ in range(2):
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.connect()  # type: ignore[no-untyped-call] # it is connected: nobody is asked
        places.append(f"{vars(connection)['host']}:{vars(connection)['port']}")
        await connection.disconnect()

    assert places == [first, second]
