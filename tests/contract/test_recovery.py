"""A hub serves from each broker, under any failure: once and in order, or a gap.

`tests/unit/core/test_hub_interleavings.py` forces every interleaving on a broker that is steered;
here the brokers are those of production, and hypothesis makes up what happens to them.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from itertools import count
from typing import Protocol

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.adapters.memory.broker import MemoryBroker, MemoryStreams
from notifier.adapters.redis.broker import RedisBroker
from notifier.core.background import Background
from notifier.core.history import Published, Since
from notifier.core.hub import Hub
from notifier.core.ports import Broker
from notifier.core.publications import NewPublication
from notifier.telemetry.metrics import Metrics
from tests.support.backends import on_each
from tests.support.brokers import record
from tests.support.followers import Follower, Posted
from tests.support.observers import RecordingObserver

HISTORY = 6
_TOPICS = count()


class Backend(Protocol):
    """One kind of broker, for one story at a time."""

    def broker(self) -> AbstractAsyncContextManager[Broker]:
        """Make one more broker on the same streams."""

    def cut(self, hub: Hub, topic: str) -> None:
        """Cut the connection on which the hub hears, if there is one."""

    def lose(self) -> None:
        """Lose all streams."""


class MemoryBackend:
    def __init__(self, _: pytest.FixtureRequest) -> None:
        self._streams = MemoryStreams()
        self.lose = self._streams.lose

    def broker(self) -> AbstractAsyncContextManager[Broker]:
        return nullcontext(MemoryBroker(self._streams, history_size=HISTORY))

    def cut(self, hub: Hub, topic: str) -> None:
        hub.on_interruption([topic])


class RedisBackend:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._url = request.getfixturevalue("redis_url")

    def broker(self) -> AbstractAsyncContextManager[Broker]:
        return RedisBroker(self._url, metrics=Metrics(), history_size=HISTORY)

    def cut(self, _hub: Hub, _topic: str) -> None:
        self._command(lambda client: client.client_kill_filter(_type="pubsub"))

    def lose(self) -> None:
        self._command(lambda client: client.flushdb())

    def _command(self, command: Callable[[redis.Redis], object]) -> None:
        with closing(redis.Redis.from_url(self._url)) as client:
            command(client)


backend = on_each(memory=MemoryBackend, redis=RedisBackend)


class Story:
    """A hub, its followers, and what happens to them."""

    def __init__(self, backend: Backend, hub: Hub, publisher: Broker) -> None:
        self._backend = backend
        self._hub = hub
        self._publisher = publisher
        self._topic = f"topic-{next(_TOPICS)}"
        self._posted = Posted()
        self._followers: list[Follower] = []

    async def publish(self, number: int, collapse_key: str = "", *, expired: bool = False) -> None:
        """Publish so many events, one after another."""
        for _ in range(number):
            name = len(self._posted.keys)
            self._posted.keys.append(collapse_key)
            if expired:
                self._posted.excused.add(name)
            text = record(str(name), expires=int(expired), collapse_key=collapse_key)
            new = NewPublication(self._topic, f"{self._topic} {name}", text, collapse_key)
            [answer] = await self._publisher.publish([new])
            assert isinstance(answer, Published)
            self._posted.positions.append(answer.position)

    async def expire(self, number: int) -> None:
        """Publish so many events whose time is over."""
        await self.publish(number, expired=True)

    async def come(self, back: int) -> None:
        """Let a client come: new, or from so many events ago."""
        known = len(self._posted.positions)
        since = known - back if 0 < back <= known else None
        self._followers.append(Follower(self._hub, self._topic, self._posted, since))

    async def leave(self, which: int) -> None:
        """Let a client go."""
        if self._followers:
            self._followers.pop(which % len(self._followers)).leave()

    async def cut(self) -> None:
        """Cut the subscription."""
        await asyncio.to_thread(self._backend.cut, self._hub, self._topic)

    async def lose(self) -> None:
        """Lose all streams: who had not got something yet never will."""
        self._posted.excused.update(range(len(self._posted.keys)))
        await asyncio.to_thread(self._backend.lose)

    async def settle(self) -> None:
        """Wait until the hub has heard of everything; its checks are a second's work here."""
        async with asyncio.timeout(20):
            while self._followers and not await self._is_settled():
                self._hub.tick()
                await asyncio.sleep(0.005)

    async def _is_settled(self) -> bool:
        [history] = await self._publisher.read([Since(self._topic)])
        answered = all(follower.is_answered for follower in self._followers)
        return answered and self._hub.position(self._topic) == history.head

    async def end(self) -> None:
        """Settle, and find nothing missing."""
        await self.publish(1)
        await self.settle()
        for follower in self._followers:
            follower.check_complete()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 4)),
        st.tuples(st.just("publish"), st.integers(1, 2), st.sampled_from("ab")),
        st.tuples(st.just("expire"), st.integers(1, 2)),
        st.tuples(st.just("come"), st.integers(0, 9)),
        st.tuples(st.just("come"), st.integers(0, 9)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("cut")),
        st.tuples(st.just("lose")),
        st.tuples(st.just("settle")),
    ),
    max_size=25,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_each_event_comes_once_and_in_order_or_the_client_gets_a_gap(
    backend: Backend, steps: list[tuple[str, int] | tuple[str]]
) -> None:
    asyncio.run(told(backend, steps))


async def told(backend: Backend, steps: list[tuple[str, int] | tuple[str]]) -> None:
    async with backend.broker() as broker, backend.broker() as publisher:
        hub = Hub(broker, RecordingObserver())
        async with Background() as background:
            background.start(hub.run(), "hub")
            story = Story(backend, hub, publisher)
            for name, *arguments in steps:
                await getattr(story, name)(*arguments)
            await story.end()
