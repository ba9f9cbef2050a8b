"""The event queue in memory: for `notifier dev` and for tests; gone with the process."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self
from uuid import uuid4

import msgspec

from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.ports import Bad, Batch
from notifier.core.reports import DeliveryReport
from notifier.core.undelivered import HandedBack

MOST_ENTRIES = 10_000
LARGEST_BATCH = 64
MOST_DEAD_LETTERS = 1_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that could not be understood, and the reason."""

    entry: Entry
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Delivery:
    entry: Entry


class _Batch:
    def __init__(self, queue: "MemoryEventQueue", deliveries: list[_Delivery]) -> None:
        self._queue = queue
        self.deliveries = deliveries

    async def dead_letter(self, bad: Sequence[Bad]) -> list[Unavailable | None]:
        dead = [DeadLetter(each.delivery.entry, each.code, each.reason) for each in bad]
        self._queue.dead_letters.extend(dead)
        return [None] * len(bad)

    def allow_next(self) -> None:
        self._queue.allow_next(self)

    async def is_ours(self) -> bool:
        return self._queue.has(self)

    async def ack(self) -> None:
        self._queue.ack(self)


class MemoryEventQueue:
    """Both ends of an event queue of one partition; takes 10,000 entries, then raises Unavailable.

    Unacked entries are back in their place when it is left and entered again. `dead_letters`,
    `handed_back` and `reports` hold the last 1,000.
    """

    trouble: str | None = None
    partitions = ("memory",)

    def __init__(self) -> None:
        self.dead_letters: deque[DeadLetter] = deque(maxlen=MOST_DEAD_LETTERS)
        self.handed_back: deque[HandedBack] = deque(maxlen=MOST_DEAD_LETTERS)
        self.reports: deque[DeliveryReport] = deque(maxlen=MOST_DEAD_LETTERS)
        self._waiting: deque[Entry] = deque()
        self._open: list[_Batch] = []
        self._barrier: _Batch | None = None  # the others wait for this one
        self._is_stopped = False
        self._has_changed = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def __aenter__(self) -> Self:
        """Begin, or begin again."""
        self._is_stopped = False
        return self

    async def __aexit__(self, *_: object) -> None:
        """Put unacked entries back."""
        unacked = [delivery.entry for batch in self._open for delivery in batch.deliveries]
        self._waiting.extendleft(reversed(unacked))
        self._open, self._barrier = [], None

    async def put(self, entry: Entry) -> None:
        """See EventQueue; the message id is replaced, as RabbitMQ's adapter does."""
        [failure] = await self.put_each([entry])
        if failure:
            raise failure

    async def put_each(self, entries: Sequence[Entry]) -> list[Unavailable | None]:
        """See EventQueue."""
        return [self._put(entry) for entry in entries]

    def _put(self, entry: Entry) -> Unavailable | None:
        if len(self._waiting) >= MOST_ENTRIES:
            reason = f"its stand-in in memory holds {MOST_ENTRIES} entries"
            return Unavailable("rabbitmq", reason)
        self._waiting.append(msgspec.structs.replace(entry, message_id=uuid4().hex))
        self._is_idle.clear()
        self._has_changed.set()
        return None

    async def idle(self) -> None:
        """Wait until each entry that was put is acked: published, or a dead letter."""
        await self._is_idle.wait()

    def stop(self) -> None:
        """See EventSource."""
        self._is_stopped = True
        self._has_changed.set()

    async def batches(self) -> AsyncIterator[Batch]:
        """See EventSource."""
        while not self._is_stopped:
            if self._waiting and not self._barrier:
                self._barrier = self._next_batch()
                self._open.append(self._barrier)
                yield self._barrier
            else:
                self._has_changed.clear()
                await self._has_changed.wait()

    async def wait(self, entries: Sequence[tuple[Entry, int]]) -> None:
        """See EventSource."""
        for entry, delay in entries:
            asyncio.get_running_loop().call_later(delay, self._deliver, entry)

    def _deliver(self, entry: Entry) -> None:
        self._waiting.append(entry)
        self._has_changed.set()

    async def hand_back(self, events: Sequence[HandedBack]) -> None:
        """See EventSource."""
        self.handed_back.extend(events)

    async def report(self, reports: Sequence[DeliveryReport]) -> None:
        """See EventSource."""
        self.reports.extend(reports)

    def _next_batch(self) -> _Batch:
        size = min(len(self._waiting), LARGEST_BATCH)
        return _Batch(self, [_Delivery(self._waiting.popleft()) for _ in range(size)])

    def has(self, batch: _Batch) -> bool:
        """Whether the batch is open; for its own use."""
        return batch in self._open

    def ack(self, batch: _Batch) -> None:
        """Make room for the next batch; for the batch's own use."""
        if not self.has(batch):
            raise Unavailable("rabbitmq", "not acked: it comes again")
        self._open.remove(batch)
        self.allow_next(batch)
        if not (self._waiting or self._open):
            self._is_idle.set()

    def allow_next(self, batch: _Batch) -> None:
        """Let the next batch come; for the batch's own use."""
        if batch is self._barrier:
            self._barrier = None
            self._has_changed.set()
