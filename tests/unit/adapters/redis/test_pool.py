import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostConnectionError

from notifier.adapters.redis.connection import introduce, pack, read_reply, send
from notifier.adapters.redis.pool import Pool
from notifier.core.addresses import Address
from notifier.telemetry.metrics import Metrics
from tests.support.answering import Answering, answering
from tests.support.eventually import eventually


@pytest.fixture
async def server() -> AsyncIterator[Answering]:
    async with answering() as server:
        yield server


@pytest.fixture
async def pool(server: Answering) -> AsyncIterator[Pool]:
    pool = Pool(Address(server.url), 2, lambda new: introduce(new, Metrics()))
    yield pool
    await pool.close()


async def ask(connection: AbstractConnection) -> object:
    await send(connection, pack("PING"))
    return await read_reply(connection)


async def test_a_connection_is_introduced_once_and_lent_again(
    server: Answering, pool: Pool
) -> None:
    for _ in range(3):
        async with pool.lent() as (connection, run_id):
            assert (await ask(connection), run_id) == (b"PONG", "abc012")

    assert len(server.writers) == 1


async def test_a_borrower_waits_while_all_connections_are_lent(
    server: Answering, pool: Pool
) -> None:
    async with pool.lent():
        async with pool.lent():
            third = asyncio.create_task(borrow(pool))
            await asyncio.sleep(0)
            assert not third.done()
        await third

    assert len(server.writers) == 2


async def borrow(pool: Pool) -> None:
    async with pool.lent():
        pass


async def test_a_connection_whose_server_closed_it_is_replaced(
    server: Answering, pool: Pool
) -> None:
    async with pool.lent() as (connection, _):
        await ask(connection)
        reader = connection._reader  # noqa: SLF001 - redis-py names no other way to see the end
    await server.close()
    await eventually(lambda: reader is not None and reader.at_eof())

    async with pool.lent() as (connection, _):
        assert await ask(connection) == b"PONG"
    assert len(server.writers) == 2


async def test_a_connection_to_a_former_process_is_replaced(server: Answering, pool: Pool) -> None:
    async with pool.lent():
        server.run_id = "def345"
        async with pool.lent() as (_, run_id):
            assert run_id == "def345"
    run_ids = []
    async with pool.lent() as (_, first), pool.lent() as (_, second):
        run_ids += [first, second]

    assert run_ids == ["def345", "def345"]


async def test_a_connection_of_a_cancelled_borrower_is_not_lent_again(
    server: Answering, pool: Pool
) -> None:
    async def keep() -> None:
        async with pool.lent() as (connection, _):
            await send(connection, pack("PING"))
            await asyncio.Event().wait()

    borrower = asyncio.create_task(keep())
    await eventually(lambda: server.reads[-1:] == [[[b"PING"]]])
    borrower.cancel()
    await asyncio.wait([borrower])

    async with pool.lent() as (connection, _):
        await send(connection, pack("NOTHING"))
        assert b"unknown" in str(await read_reply(connection)).encode()
    assert len(server.writers) == 2


async def test_a_server_that_is_away_leaves_room_for_the_next_borrower() -> None:
    pool = Pool(Address("redis://127.0.0.1:1/0"), 1, lambda new: introduce(new, Metrics()))

    for _ in range(2):
        with pytest.raises(LostConnectionError):
            async with pool.lent():
                raise AssertionError("nobody listens on port 1")
