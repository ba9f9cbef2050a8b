"""A router whose batches, broker and dead letters a test holds in its hands."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.ports import Bad, Batch, Delivery
from notifier.core.reports import DeliveryReport
from notifier.core.undelivered import HandedBack
from notifier.router.order import CHUNK, LARGE
from notifier.router.router import Router
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import SteeredBroker, shared_ports_of


class Taken:
    """Fulfils Delivery."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry


async def make_dead(batch: Batch, delivery: Delivery, code: str, reason: str) -> None:
    """Make a dead letter of one delivery; raises Unavailable."""
    [failure] = await batch.dead_letter([Bad(delivery, code, reason)])
    if failure:
        raise failure


class Settled:
    """Fulfils Batch, and remembers how it was settled."""

    def __init__(self, *entries: Entry) -> None:
        self.deliveries: Sequence[Taken] = [Taken(entry) for entry in entries]
        self.acks = 0
        self.allows_next = False
        self.dead: list[tuple[bytes, str, str]] = []
        self.away = False
        self.refused: set[bytes] = set()  # bodies whose dead letters are not kept
        self.tries = 0
        self.cannot_ack = False
        self.lost = False

    async def is_ours(self) -> bool:
        return not self.lost

    async def dead_letter(self, bad: Sequence[Bad]) -> list[Unavailable | None]:
        self.tries += 1
        return [self._kept(*each) for each in bad]

    def _kept(self, delivery: Delivery, code: str, reason: str) -> Unavailable | None:
        body = delivery.entry.body
        if self.away or body in self.refused:
            return Unavailable("rabbitmq", "away")
        self.dead.append((body, code, reason))
        return None

    def allow_next(self) -> None:
        self.allows_next = True

    async def ack(self) -> None:
        if self.cannot_ack:
            raise Unavailable("rabbitmq", "the channel is gone")
        self.acks += 1


class Source:
    """Fulfils EventSource: gives its batches, then waits to be stopped."""

    partitions = ("all",)

    def __init__(self, *batches: Settled) -> None:
        self.trouble: str | None = None
        self.waiting: list[tuple[Entry, int]] = []
        self.handed_back: list[HandedBack] = []
        self.reports: list[DeliveryReport] = []
        self._batches = batches
        self._stopped = asyncio.Event()

    async def batches(self) -> AsyncIterator[Batch]:
        for batch in self._batches:
            yield batch
        await self._stopped.wait()

    def stop(self) -> None:
        self._stopped.set()

    async def wait(self, entries: Sequence[tuple[Entry, int]]) -> None:
        self.waiting.extend(entries)

    async def hand_back(self, events: Sequence[HandedBack]) -> None:
        self.handed_back.extend(events)

    async def report(self, reports: Sequence[DeliveryReport]) -> None:
        self.reports.extend(reports)


class House:
    """A router, and what it works with."""

    def __init__(self, *batches: Settled) -> None:
        self.broker = SteeredBroker()
        self.source = Source(*batches)
        self.metrics = Metrics()
        self.router = Router(self.source, shared_ports_of(self.broker), self.metrics)

    @property
    def published(self) -> list[tuple[str, str]]:
        return [
            (new.topic, json.loads(new.record.split(b"\n", 1)[1])["id"])
            for new in self.broker.published
        ]

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"notifier_{name}_total", labels) or 0.0

    def age(self, stage: str) -> tuple[float, float]:
        """How many ages were told, and how many of them lie between one and five seconds."""
        name = "notifier_event_age_seconds_bucket"
        most, some, few = (
            self.metrics.registry.get_sample_value(name, {"stage": stage, "le": le}) or 0.0
            for le in ("+Inf", "5.0", "1.0")
        )
        return most, some - few


def event(name: str, *users: str) -> Entry:
    body = {"type": "t", "id": name, "source": "a", "users": users or ["42"]}
    return Entry(json.dumps(body).encode())


MANY = [str(number) for number in range(LARGE + 2 * CHUNK)]
BAD = Entry(b'{"type":"t","users":["a b"]}')
