"""The promises of all members (`notifier.core.ports.Members`).

To add an adapter: write a Backend for it below, and name it in `backend`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from itertools import count
from typing import Protocol

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.adapters.memory.broker import MemoryBroker, MemoryStreams
from notifier.adapters.memory.members import MemberTable, MemoryMembers
from notifier.adapters.redis.broker import RedisBroker
from notifier.adapters.redis.members import RedisMembers
from notifier.core.attendance import ORDER
from notifier.core.errors import Unavailable
from notifier.core.ports import Broker, Members
from notifier.core.signals import Kind, Signal
from notifier.telemetry.metrics import Metrics
from tests.support.backends import on_each
from tests.support.listening import Listening

ROOM = "room:7"
ODD = "A-z.0_9~:@/+=|$!&"
LONG = 3600.0
_ROOMS = count()


class Backend(Protocol):
    """Where gateways tell their members."""

    def gateway(
        self, lapse_seconds: float = LONG
    ) -> AbstractAsyncContextManager[tuple[Broker, Members]]:
        """Make one more, for whom the others are gone after so many seconds."""


class MemoryBackend:
    def __init__(self, _: pytest.FixtureRequest) -> None:
        self._streams = MemoryStreams()
        self._table = MemberTable()

    @asynccontextmanager
    async def gateway(self, lapse_seconds: float = LONG) -> AsyncIterator[tuple[Broker, Members]]:
        broker = MemoryBroker(self._streams)
        yield broker, MemoryMembers(broker, self._table, lapse_seconds=lapse_seconds)


class RedisBackend:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._url = request.getfixturevalue("redis_url")

    @asynccontextmanager
    async def gateway(self, lapse_seconds: float = LONG) -> AsyncIterator[tuple[Broker, Members]]:
        metrics = Metrics()
        async with (
            RedisBroker(self._url, metrics=metrics) as broker,
            RedisMembers(self._url, metrics=metrics, lapse_seconds=lapse_seconds) as members,
        ):
            yield broker, members


backend = on_each(memory=MemoryBackend, redis=RedisBackend)


async def test_the_members_of_all_gateways_are_read_each_user_once(backend: Backend) -> None:
    async with backend.gateway() as (_, one), backend.gateway() as (_, other):
        await one.exchange({ROOM: ["ann", ODD], "room:8": []})

        read = await other.exchange({ROOM: ["ann", "bob"], "room:8": ["bob"]})

    assert read.members == {ROOM: {"ann", "bob", ODD}, "room:8": {"bob"}}
    assert len(read.gateways) == 2


async def test_members_replace_those_told_before(backend: Backend) -> None:
    async with backend.gateway() as (_, one), backend.gateway() as (_, other):
        await one.exchange({ROOM: ["ann", "bob"]})
        await one.exchange({ROOM: ["bob", "cid"]})
        assert (await other.exchange({ROOM: []})).members == {ROOM: {"bob", "cid"}}

        await one.exchange({ROOM: []})

        assert (await other.exchange({ROOM: []})).members == {ROOM: set()}


async def test_a_topic_that_is_not_named_keeps_its_members(backend: Backend) -> None:
    async with backend.gateway() as (_, one), backend.gateway() as (_, other):
        await one.exchange({ROOM: ["ann"]})
        await one.exchange({})

        assert (await other.exchange({ROOM: []})).members == {ROOM: {"ann"}}


async def test_followers_of_the_topic_are_told_an_order_when_members_differ(
    backend: Backend,
) -> None:
    heard = Listening()
    async with backend.gateway() as (broker, one), backend.gateway() as (_, other):
        broker.listen(heard)
        await broker.subscribe([ROOM, "room:8"])

        await other.exchange({ROOM: ["ann"]})
        await other.exchange({ROOM: ["ann"]})  # as before: nobody is told
        await one.exchange({"room:8": ["bob"]})

        assert await heard.next_signal() == Signal(ROOM, Kind.ORDER, ORDER)
        assert await heard.next_signal() == Signal("room:8", Kind.ORDER, ORDER)


async def test_the_members_of_a_gateway_not_heard_of_count_no_more_until_it_is_again(
    backend: Backend,
) -> None:
    async with backend.gateway() as (_, dead), backend.gateway(0.05) as (_, other):
        own = {ROOM: ["bob"]}
        await dead.exchange({ROOM: ["ann"]})
        async with asyncio.timeout(30):
            while len((await other.exchange(own)).members[ROOM]) > 1:
                pass

        async with asyncio.timeout(30):
            while (await other.exchange(own)).members != {ROOM: {"ann", "bob"}}:
                await dead.exchange({})


TOLD = st.tuples(st.integers(0, 2), st.sets(st.sampled_from(["ann", "bob", "cid"])))


@given(steps=st.lists(TOLD, max_size=12))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_any_order_the_last_words_of_each_gateway_are_read(
    backend: Backend, steps: list[tuple[int, set[str]]]
) -> None:
    asyncio.run(compare(backend, steps, f"room:{next(_ROOMS)}"))


async def compare(backend: Backend, steps: list[tuple[int, set[str]]], topic: str) -> None:
    last: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
    async with (
        backend.gateway() as (_, one),
        backend.gateway() as (_, two),
        backend.gateway() as (_, three),
    ):
        for at, members in steps:
            await (one, two, three)[at].exchange({topic: members})
            last[at] = members

        read = await one.exchange({topic: last[0]})

    assert read.members == {topic: set().union(*last.values())}


@pytest.mark.services
async def test_members_of_a_dead_gateway_are_removed_from_redis(redis_url: str) -> None:
    key = f"notifier:{{{ROOM}}}:members"
    with closing(redis.Redis.from_url(redis_url)) as direct:
        direct.hset(key, "dead", "ann")
        direct.zadd("notifier:attending", {"dead": int(direct.time()[0]) * 1000 - 61_000})
        async with RedisMembers(redis_url, metrics=Metrics()) as members:
            read = await members.exchange({ROOM: ["bob"]})

        assert read.members == {ROOM: {"bob"}}
        assert list(direct.hgetall(key).values()) == [b"bob"]
        assert 0 < direct.ttl(key) <= 1200


@pytest.mark.services
async def test_after_redis_clock_was_set_back_nobody_is_gone(redis_url: str) -> None:
    with closing(redis.Redis.from_url(redis_url)) as direct:
        direct.hset(f"notifier:{{{ROOM}}}:members", "early", "ann")
        direct.zadd("notifier:attending", {"early": int(direct.time()[0]) * 1000 + 90_000})
        async with RedisMembers(redis_url, metrics=Metrics()) as members:
            read = await members.exchange({ROOM: ["bob"]})

        assert read.members == {ROOM: {"ann", "bob"}}
        now = int(direct.time()[0]) * 1000
        assert direct.zcount("notifier:attending", now + 5_000, "+inf") == 0


@pytest.mark.services
async def test_a_topic_whose_key_is_of_another_kind_is_left_out_and_others_are_told(
    redis_url: str,
) -> None:
    with closing(redis.Redis.from_url(redis_url)) as direct:
        direct.set(f"notifier:{{{ROOM}}}:members", "x")
        async with RedisMembers(redis_url, metrics=Metrics()) as members:
            read = await members.exchange({ROOM: ["bob"], "other": ["ann"]})

        assert read.members == {"other": {"ann"}}


async def test_without_redis_nothing_is_known() -> None:
    async with RedisMembers("redis://127.0.0.1:1/0", metrics=Metrics()) as members:
        with pytest.raises(Unavailable):
            await members.exchange({})
