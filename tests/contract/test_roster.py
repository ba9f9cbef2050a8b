"""The promises of every roster.

To add an adapter, add a parameter to `rosters`: it makes rosters that share what they know, as
those of several routers do, and that forget a router after so many seconds.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from notifier.adapters.memory.roster import MemoryRoster
from notifier.adapters.redis.roster import RedisRoster
from notifier.core.errors import Unavailable
from notifier.core.ports import Roster
from notifier.telemetry.metrics import Metrics
from tests.support.process import free_port

Rosters = Callable[[float], Roster]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
async def rosters(request: pytest.FixtureRequest) -> AsyncIterator[Rosters]:
    async with AsyncExitStack() as stack:

        def on_redis(lifetime: float) -> Roster:
            url = request.getfixturevalue("redis_url")
            roster = RedisRoster(url, metrics=Metrics(), lifetime_seconds=lifetime)
            stack.push_async_exit(roster)
            return roster

        def in_memory(lifetime: float) -> Roster:
            return MemoryRoster(lifetime_seconds=lifetime)

        yield in_memory if request.param == "memory" else on_redis


async def test_an_announced_router_is_at_work(rosters: Rosters) -> None:
    roster = rosters(60)

    assert await roster.announce("a") == {"a"}
    assert await roster.announce("b") == {"a", "b"}
    assert await roster.announce("a") == {"a", "b"}


async def test_a_withdrawn_router_is_gone_at_once(rosters: Rosters) -> None:
    roster = rosters(60)
    await roster.announce("a")
    await roster.announce("b")

    await roster.withdraw("a")

    assert await roster.announce("b") == {"b"}


async def test_withdrawing_an_unknown_router_changes_nothing(rosters: Rosters) -> None:
    roster = rosters(60)
    await roster.announce("a")

    await roster.withdraw("b")

    assert await roster.announce("a") == {"a"}


async def test_a_router_that_is_no_longer_announced_expires(rosters: Rosters) -> None:
    roster = rosters(0.3)
    await roster.announce("dead")
    known = await roster.announce("alive")

    async with asyncio.timeout(20):
        while "dead" in known:
            known = await roster.announce("alive")

    assert known == {"alive"}


@pytest.mark.services
async def test_routers_of_several_processes_see_each_other(redis_url: str) -> None:
    async with (
        RedisRoster(redis_url, metrics=Metrics()) as first,
        RedisRoster(redis_url, metrics=Metrics()) as second,
    ):
        await first.announce("a")

        assert await second.announce("b") == {"a", "b"}


async def test_a_redis_that_is_away_is_unavailable() -> None:
    async with RedisRoster(f"redis://127.0.0.1:{free_port()}/0", metrics=Metrics()) as roster:
        with pytest.raises(Unavailable):
            await roster.announce("a")
        with pytest.raises(Unavailable):
            await roster.withdraw("a")


@pytest.mark.services
async def test_a_key_of_another_type_is_unavailable(redis_url: str) -> None:
    async with (
        Redis.from_url(redis_url) as keys,
        RedisRoster(redis_url, metrics=Metrics()) as roster,
    ):
        await keys.set("notifier:routers", "x")

        with pytest.raises(Unavailable, match="WRONGTYPE"):
            await roster.announce("a")
