"""The promises of all seats (`notifier.core.ports.Seats`).

To add an adapter: write a Backend for it below, and name it in `backend`.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from itertools import compress
from typing import Protocol

import pytest

from notifier.adapters.memory.seats import MemorySeats
from notifier.adapters.redis.seats import RedisSeats
from notifier.core.ports import Seats
from notifier.telemetry.metrics import Metrics
from tests.support.backends import on_each
from tests.support.services import RedisServer


class Backend(Protocol):
    """Where connections of users are counted."""

    def seats(self, most: int) -> AbstractAsyncContextManager[Seats]:
        """Make one more of them, as another gateway would; all count together."""


class MemoryBackend:
    def __init__(self, _: pytest.FixtureRequest) -> None:
        self._taken = Counter[str]()

    def seats(self, most: int) -> AbstractAsyncContextManager[Seats]:
        return MemorySeats(most, self._taken)


class RedisBackend:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._url = request.getfixturevalue("redis_url")

    def seats(self, most: int) -> AbstractAsyncContextManager[Seats]:
        return RedisSeats(self._url, most, metrics=Metrics())


backend = on_each(memory=MemoryBackend, redis=RedisBackend)


async def taken(seats: Seats, user: str) -> None:
    """Return when a seat was given, which may be some time after it was released elsewhere."""
    async with asyncio.timeout(15):
        while not await seats.claim(user):
            await next_turn()


async def gives_up(seats: Seats, user: str) -> bool:
    """Ask, and give up; returns whether it came to that before there was an answer."""
    asking = asyncio.create_task(seats.claim(user))
    await next_turn()
    return asking.cancel()


async def next_turn() -> None:
    await asyncio.sleep(0)


async def test_a_user_gets_seats_up_to_the_bound(backend: Backend) -> None:
    async with backend.seats(2) as seats:
        assert [await seats.claim("42") for _ in range(4)] == [True, True, False, False]


async def test_gateways_count_together(backend: Backend) -> None:
    async with backend.seats(2) as one, backend.seats(2) as other:
        assert await one.claim("42")
        assert await other.claim("42")
        assert not await one.claim("42")
        assert not await other.claim("42")


async def test_users_do_not_count_for_one_another(backend: Backend) -> None:
    async with backend.seats(1) as seats:
        assert await seats.claim("42")
        assert await seats.claim("43")


async def test_a_released_seat_can_be_claimed_at_another_gateway(backend: Backend) -> None:
    async with backend.seats(1) as one, backend.seats(1) as other:
        assert await one.claim("42")
        one.release("42")

        await taken(other, "42")
        assert not await one.claim("42")


async def test_a_refusal_is_not_counted(backend: Backend) -> None:
    async with backend.seats(1) as seats:
        assert await seats.claim("42")
        assert not await seats.claim("42")
        seats.release("42")

        assert await seats.claim("42")


async def test_the_bound_holds_for_many_claims_at_once(backend: Backend) -> None:
    async with backend.seats(10) as one, backend.seats(10) as other:
        answers = await asyncio.gather(*(s.claim("42") for s in (one, other) for _ in range(50)))

        assert answers.count(True) == 10


async def test_hundreds_of_users_are_counted_at_once(backend: Backend) -> None:
    users = [f"u{n}" for n in range(1200)]
    async with backend.seats(1) as one, backend.seats(1) as other:
        assert all(await asyncio.gather(*(one.claim(user) for user in users)))
        await full(other, *users)


async def test_a_cancelled_claim_is_not_counted(backend: Backend) -> None:
    async with backend.seats(1) as one, backend.seats(1) as other:
        if await gives_up(one, "42"):
            assert await one.claim("43")  # so it was asked for both

            await taken(other, "42")


async def test_a_cancelled_claim_takes_no_seat_from_other_claims(backend: Backend) -> None:
    async with backend.seats(2) as seats:
        assert await seats.claim("42")
        if await gives_up(seats, "42"):
            assert await seats.claim("42")


async def test_a_gateway_that_shut_down_holds_no_seats(backend: Backend) -> None:
    async with backend.seats(1) as other:
        async with backend.seats(1) as one:
            assert await one.claim("42")
            assert not await other.claim("42")

        await taken(other, "42")


# When Redis is away.


@contextmanager
def redis_server(**options: str) -> Iterator[RedisServer]:
    with RedisServer(**options) as server:
        yield server


def on_redis(server: RedisServer) -> RedisSeats:
    return RedisSeats(server.url, 1, metrics=Metrics())


@pytest.mark.services
async def test_without_redis_every_user_is_let_in_and_counted_afterwards() -> None:
    with redis_server() as server:
        async with on_redis(server) as one, on_redis(server) as other:
            assert await one.claim("42")
            await asyncio.to_thread(server.kill)

            assert all([await other.claim("42"), await one.claim("42"), await one.claim("43")])

            await asyncio.to_thread(server.start)
            await full(other, "43")
            await full(one, "42")


@pytest.mark.services
async def test_a_redis_that_hangs_does_not_delay_claims() -> None:
    with redis_server() as server:
        async with on_redis(server) as seats:
            assert await seats.claim("42")
            server.pause()
            try:
                async with asyncio.timeout(10):
                    assert await seats.claim("42")
                    assert all(await asyncio.gather(*(seats.claim("42") for _ in range(100))))
            finally:
                server.resume()


@pytest.mark.services
async def test_a_seat_released_without_redis_does_not_stay_counted() -> None:
    with redis_server(appendonly="yes", appendfsync="always") as server:
        async with on_redis(server) as one, on_redis(server) as other:
            assert await one.claim("42")
            assert await one.claim("43")
            await asyncio.to_thread(server.kill)
            one.release("42")  # of which it tells Redis in vain
            assert await one.claim("44")
            one.release("43")  # of which it does not even try to

            await asyncio.to_thread(server.start)
            await full(other, "44")
            await taken(other, "42")
            await taken(other, "43")


async def full(seats: Seats, *users: str) -> None:
    """Return when there is no seat for any of these users.

    Those of a round that Redis answers too late are let in, and counted with the next one.
    """
    async with asyncio.timeout(15):
        while let_in := list(compress(users, await asyncio.gather(*map(seats.claim, users)))):
            for user in let_in:
                seats.release(user)
            await next_turn()
