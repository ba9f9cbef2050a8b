"""The router: it takes events from the event queue, publishes them to their topics, then acks.

Ack after publish, and duplicates recognised by the broker: a crash in between repeats an event's
publications, and nobody sees them twice.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import structlog

from notifier.core.errors import Invalid, NotifierError, Unavailable
from notifier.core.events import Event
from notifier.core.ingress import Entry, events_of
from notifier.core.ports import Batch, Broker, Delivery, EventSource, Published
from notifier.core.publications import NewPublication, collapse_key_of, key_of, record_of
from notifier.core.routing import topics_of
from notifier.telemetry.metrics import Metrics

T = TypeVar("T")
_log = structlog.get_logger("notifier.router")
# Publications in one round trip: an event for 10,000 users takes several, others go in between.
_CHUNK = 500
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Router:
    """Routes the batches of an event source; several partitions' batches side by side."""

    def __init__(self, source: EventSource, broker: Broker, metrics: Metrics) -> None:
        self._source = source
        self._broker = broker
        self._metrics = metrics
        self._holding = 0

    def trouble(self) -> dict[str, str | None]:
        """Return each part that routing needs, with why it does not work, or None."""
        holding = f"{self._holding} batches wait for the broker" if self._holding else None
        return {
            "queue": self._source.trouble,
            "broker": self._broker.trouble,
            "holding": holding,
        }

    async def run(self) -> None:
        """Route until the source is stopped; batches under way are then finished first."""
        async with asyncio.TaskGroup() as tasks:
            async for batch in self._source.batches():
                tasks.create_task(self.route(batch), name="route")

    async def route(self, batch: Batch) -> None:
        """Publish a batch's events, put aside what cannot be understood, then ack.

        While the broker or the dead letters are out of reach the batch is kept, unacked.
        """
        publications: list[tuple[int, NewPublication]] = []
        accepted: list[float] = []
        errors: dict[int, NotifierError] = {}
        for index, delivery in enumerate(batch.deliveries):
            try:
                entry = delivery.entry
                publications += [(index, new) for new in _publications(entry)]
            except Invalid as error:
                errors[index] = error
            else:
                accepted += [entry.accepted] if entry.accepted else []
        self._metrics.reached("taken", accepted)
        errors |= await self._publish(publications)
        self._metrics.reached("published", accepted)
        for index, reason in errors.items():
            await self._put_aside(batch, batch.deliveries[index], reason)
        try:
            await batch.ack()
        except Unavailable as error:
            _log.warning("batch not acked, it comes again", reason=str(error))
        else:
            self._metrics.events.labels("routed").inc(len(batch.deliveries) - len(errors))

    async def _publish(
        self, publications: Sequence[tuple[int, NewPublication]]
    ) -> dict[int, NotifierError]:
        """Publish, and return for each delivery of which something was refused why that was."""
        refused: dict[int, NotifierError] = {}
        for start in range(0, len(publications), _CHUNK):
            chunk = publications[start : start + _CHUNK]
            outcomes = await self._publish_chunk([new for _, new in chunk])
            for (index, new), outcome in zip(chunk, outcomes, strict=True):
                if isinstance(outcome, Published):
                    kind = "duplicate" if outcome.duplicate else "published"
                    self._metrics.publications.labels(kind).inc()
                else:
                    _log.error("publication refused", topic=new.topic, reason=str(outcome))
                    refused[index] = outcome
        return refused

    async def _publish_chunk(self, chunk: list[NewPublication]) -> list[Published | NotifierError]:
        return await self._until_available(lambda: self._broker.publish(chunk))

    async def _put_aside(self, batch: Batch, delivery: Delivery, error: NotifierError) -> None:
        await self._until_available(lambda: batch.dead_letter(delivery, error.code, str(error)))
        self._metrics.dead_letters.labels(error.code).inc()
        _log.warning("dead letter", code=error.code, reason=str(error))

    async def _until_available(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work again and again until nothing that it needs is away."""
        try:
            return await work()
        except Unavailable as error:
            return await self._hold(work, error)

    async def _hold(self, work: Callable[[], Awaitable[T]], error: Unavailable) -> T:
        self._metrics.held_batches.inc()
        self._holding += 1
        try:
            for pause in _pauses():
                _log.warning("holding a batch", reason=str(error), retry_in=round(pause, 2))
                await asyncio.sleep(pause)
                try:
                    return await work()
                except Unavailable as again:
                    error = again
        finally:
            self._holding -= 1
        raise AssertionError  # the pauses never end


def _pauses() -> Iterator[float]:
    pause = _SHORTEST_PAUSE
    while True:
        yield random.uniform(pause / 2, pause)  # noqa: S311 - jitter
        pause = min(pause * 2, _LONGEST_PAUSE)


def _publications(entry: Entry) -> list[NewPublication]:
    now = time.time()
    accepted = entry.accepted or now
    found: list[NewPublication] = []
    for event in events_of(entry, now):
        publications = publications_of(event, accepted)
        _log.debug("routing", event_id=event.id, source=event.source, topics=len(publications))
        found += publications
    return found


def publications_of(event: Event, accepted: float) -> list[NewPublication]:
    """Return one publication for each topic of a complete event; all share one encoded record."""
    key, record, collapse_key = key_of(event), record_of(event, accepted), collapse_key_of(event)
    return [NewPublication(topic, key, record, collapse_key) for topic in topics_of(event)]
