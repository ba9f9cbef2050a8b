"""The internals of redis-py that `connection.py` leans on: a version that moves one fails here."""

import asyncio
import errno
from collections.abc import AsyncIterator

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import ResponseError

from notifier.adapters.redis.connection import (
    new_connection,
    pack,
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
