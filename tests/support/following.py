"""A router on memory, in virtual time, for events that come back or are reported on."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from notifier.adapters.memory.broker import MemoryBroker, MemoryStreams
from notifier.adapters.memory.marks import MemoryMarks
from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.core import entries, events
from notifier.core.entries import Entry
from notifier.core.errors import Failed, Unavailable
from notifier.core.events import Event
from notifier.core.history import Before
from notifier.core.marks import Mark, Move
from notifier.core.names import personal_topic
from notifier.core.positions import Position
from notifier.core.presence import Answer, Presence
from notifier.core.reports import DeliveryReport
from notifier.core.undelivered import HandedBack, Reason
from notifier.router.router import Router
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import shared_ports_of

STARTED = time.time()


class Broker(MemoryBroker):
    """On the clock of the loop."""

    def now(self) -> float:
        return STARTED + asyncio.get_running_loop().time()


class Marks(MemoryMarks):
    """Out of reach as often as a test says."""

    failures = 0

    async def of(self, users: Sequence[str]) -> list[dict[str, Mark] | Failed]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("redis", "away")
        return await super().of(users)


class Present:
    """PresenceQueries of the users who are connected."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.asked = 0

    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        self.asked += 1
        counts = {user: int(user in self.connected) for user in users}
        return Presence(counts, [], complete=not detailed)

    async def answer(self, question: str, answer: Answer) -> None:
        raise NotImplementedError(question, answer)


class Queue(MemoryEventQueue):
    """Remembers each wait, and fails at as many as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[int] = []
        self.waiting: list[Entry] = []
        self.failures = 0
        self.failing_rounds: set[int] = set()
        self.rounds = 0  # trips to RabbitMQ, for reports and for waits

    async def wait(self, entries: Sequence[tuple[Entry, int]]) -> None:
        self._fail()
        self.waits += [delay for _, delay in entries]
        self.waiting += [entry for entry, _ in entries]
        await super().wait(entries)

    async def hand_back(self, events_: Sequence[HandedBack]) -> None:
        self._fail()
        await super().hand_back(events_)

    async def report(self, reports: Sequence[DeliveryReport]) -> None:
        self._fail()
        await super().report(reports)

    def _fail(self) -> None:
        self.rounds += 1
        if self.failures or self.rounds in self.failing_rounds:
            self.failures = max(0, self.failures - 1)
            raise Unavailable("rabbitmq", "away")


class House:
    """A router, and the ports that it works with."""

    def __init__(self, inbox_size: int = 200) -> None:
        self.queue = Queue()
        self._streams = MemoryStreams()
        self.broker = Broker(self._streams, inbox_size=inbox_size)
        self.lose = self._streams.lose
        self.marks = Marks(self.broker)
        self.present = Present()
        self.metrics = Metrics()
        shared = replace(
            shared_ports_of(self.broker), marks=self.marks, presence_queries=self.present
        )
        self.router = Router(self.queue, shared, self.metrics)

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

    async def head(self, user: str) -> Position:
        [history] = await self.broker.read([Before(personal_topic(user))])
        return history.head

    async def mark(self, user: str, kind: str) -> None:
        head, topic = await self.head(user), personal_topic(user)
        move = Move(user, topic, *(head, None) if kind == "read" else (None, head))
        await self.marks.move([move])

    @property
    def reports(self) -> list[tuple[str, str]]:
        return [(each.user, str(each.kind)) for each in self.queue.reports]

    @property
    def back(self) -> dict[str, Reason]:
        return {each.user: each.reason for each in self.queue.handed_back}

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"notifier_{name}_total", labels) or 0.0


@asynccontextmanager
async def routing(house: House) -> AsyncIterator[House]:
    async with house.queue, asyncio.TaskGroup() as tasks:
        tasks.create_task(house.router.run())
        yield house
        house.queue.stop()
