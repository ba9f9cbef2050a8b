"""Events that are to be received in time, through a router on memory, in virtual time."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from notifier.adapters.memory.broker import MemoryBroker, MemoryStreams
from notifier.adapters.memory.marks import MemoryMarks
from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.core import entries, events
from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.events import Event
from notifier.core.history import Before
from notifier.core.marks import Mark, Move
from notifier.core.names import personal_topic
from notifier.core.presence import Answer, Presence
from notifier.core.undelivered import HandedBack, Reason
from notifier.router.router import Router
from notifier.router.undelivered import UndeliveredPorts
from notifier.telemetry.metrics import Metrics
from tests.support.clock import in_virtual_time

STARTED = time.time()


class Broker(MemoryBroker):
    """On the clock of the loop."""

    def now(self) -> float:
        return STARTED + asyncio.get_running_loop().time()


class Marks(MemoryMarks):
    """Out of reach as often as a test says."""

    failures = 0

    async def of(self, users: Sequence[str]) -> list[dict[str, Mark]]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("redis", "away")
        return await super().of(users)


class Present:
    """PresenceQueries of the users who are connected."""

    def __init__(self) -> None:
        self.connected: set[str] = set()

    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        counts = {user: int(user in self.connected) for user in users}
        return Presence(counts, [], complete=not detailed)

    async def answer(self, question: str, answer: Answer) -> None:
        raise NotImplementedError(question, answer)


class Queue(MemoryEventQueue):
    """Remembers each wait, and fails at as many as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[int] = []
        self.waiting_users: list[list[str]] = []
        self.failures = 0
        self._back = asyncio.Event()

    async def wait(self, entries: Sequence[tuple[Entry, int]]) -> None:
        self._fail()
        self.waits += [delay for _, delay in entries]
        self.waiting_users += [json.loads(entry.body)["users"] for entry, _ in entries]
        await super().wait(entries)

    async def hand_back(self, events_: Sequence[HandedBack]) -> None:
        self._fail()
        await super().hand_back(events_)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("rabbitmq", "away")


class House:
    """A router and what it works with."""

    def __init__(self, inbox_size: int = 200) -> None:
        self.queue = Queue()
        self._streams = MemoryStreams()
        self.broker = Broker(self._streams, inbox_size=inbox_size)
        self.lose = self._streams.lose
        self.marks = Marks(self.broker)
        self.present = Present()
        self.metrics = Metrics()
        self.router = Router(
            self.queue, UndeliveredPorts(self.broker, self.marks, self.present), self.metrics
        )

    async def post(
        self,
        *users: str,
        after: float | None = 60,
        accepted_ago: float = 0,
        **more: Any,  # noqa: ANN401 - members of an event
    ) -> None:
        given: dict[str, object] = {"type": "t", "users": list(users), "id": "e", "source": "shop"}
        if after is not None:
            given["undelivered_after"] = after
        event = Event(**{**given, **more})
        now = self.broker.now() - accepted_ago
        complete = events.completed(event, source="shop", now=now)
        await self.queue.put(entries.entry_of(complete, now))
        await asyncio.sleep(0.1)

    async def mark(self, user: str, kind: str) -> None:
        topic = personal_topic(user)
        [history] = await self.broker.read([Before(topic)])
        is_read = kind == "read"
        move = Move(user, topic, *(history.head, None) if is_read else (None, history.head))
        await self.marks.move([move])

    @property
    def back(self) -> dict[str, Reason]:
        return {each.user: each.reason for each in self.queue.handed_back}

    def count(self, reason: Reason) -> float:
        labels = {"reason": str(reason)}
        return self.metrics.registry.get_sample_value("notifier_undelivered_total", labels) or 0.0


@asynccontextmanager
async def routing(house: House) -> AsyncIterator[House]:
    async with house.queue, asyncio.TaskGroup() as tasks:
        tasks.create_task(house.router.run())
        yield house
        house.queue.stop()


@in_virtual_time
async def test_an_event_comes_back_for_the_users_whom_no_mark_says_it_reached() -> None:
    async with routing(House()) as house:
        await house.post("reader", "receiver", "absent", "deaf")
        house.present.connected = {"deaf", "receiver"}
        await house.mark("reader", "read")
        await house.mark("receiver", "received")

        await asyncio.sleep(59)
        early = house.back
        await asyncio.sleep(2)

    assert early == {}
    assert house.back == {"absent": Reason.OFFLINE, "deaf": Reason.UNCONFIRMED}
    assert (house.count(Reason.OFFLINE), house.count(Reason.UNCONFIRMED)) == (1, 1)


@in_virtual_time
async def test_an_event_that_everybody_received_waits_no_longer() -> None:
    async with routing(House()) as house:
        await house.post("42", after=86_400)
        await house.mark("42", "received")

        await asyncio.sleep(86_500)

    assert house.queue.waits == [600]
    assert house.back == {}


@in_virtual_time
async def test_users_who_received_it_are_dropped_while_the_others_wait() -> None:
    async with routing(House()) as house:
        await house.post("1", "2", after=70)
        await asyncio.sleep(59)
        await house.mark("1", "received")
        await asyncio.sleep(12)

    assert house.queue.waits == [60, 10]
    assert house.queue.waiting_users == [["1", "2"], ["2"]]
    assert house.back == {"2": Reason.OFFLINE}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"ttl": 5}, Reason.EXPIRED),
        ({"collapse_key": "price"}, Reason.SUPERSEDED),
        ({}, Reason.BEYOND_HISTORY),
    ],
    ids=str,
)
@in_virtual_time
async def test_the_reason_says_why_nobody_has_it(more: dict[str, Any], reason: Reason) -> None:
    async with routing(House(inbox_size=10 if more else 1)) as house:
        await house.post("42", **more)
        if "ttl" not in more:
            await house.post("42", after=None, **{**more, "id": "newer"})
        await asyncio.sleep(61)

    assert house.back == {"42": reason}


@in_virtual_time
async def test_an_event_whose_stream_was_lost_comes_back() -> None:
    async with routing(House()) as house:
        await house.post("42")
        await house.mark("42", "received")
        house.lose()
        await asyncio.sleep(61)

    assert house.back == {"42": Reason.LOST}


@in_virtual_time
async def test_nothing_is_lost_while_redis_and_rabbitmq_fail() -> None:
    async with routing(House()) as house:
        house.queue.failures = 3
        await house.post("1", "2")
        house.marks.failures = 3
        await asyncio.sleep(61)
        house.queue.failures = 2
        await asyncio.sleep(60)

    assert house.back == {"1": Reason.OFFLINE, "2": Reason.OFFLINE}


@in_virtual_time
async def test_an_event_that_was_published_too_late_comes_back_at_once() -> None:
    async with routing(House()) as house:
        await house.post("42", accepted_ago=3_600)
        await asyncio.sleep(2)

    assert house.back == {"42": Reason.OFFLINE}


@in_virtual_time
async def test_an_event_that_asks_for_nothing_never_waits() -> None:
    async with routing(House()) as house:
        await house.post("42", after=None)
        await asyncio.sleep(86_500)

    assert (house.queue.waits, house.back) == ([], {})


@in_virtual_time
async def test_a_thousand_users_are_judged_each_for_itself() -> None:
    users = [f"u{number}" for number in range(1_000)]
    async with routing(House()) as house:
        await house.post(*users)
        for user in users[::2]:
            await house.mark(user, "received")
        await asyncio.sleep(61)

    assert list(house.back) == users[1::2]
