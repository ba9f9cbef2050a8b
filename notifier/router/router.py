"""The router: it takes events from the event queue, publishes them to their topics, then acks.

Ack after publish, and duplicates recognised by the broker: a crash in between repeats an event's
publications, and nobody sees them twice.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain, islice
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
_logged = logging.getLogger("notifier.router")  # asked first, in a tenth of the time
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
        errors: dict[int, NotifierError] = {}
        accepted: list[float] = []
        counts: dict[int, int] = {}
        publications = _publications(batch, accepted, counts, errors)
        await self._publish_all(publications, accepted, errors)
        self._metrics.reached("published", accepted)
        for index, reason in errors.items():
            await self._put_aside(batch, batch.deliveries[index], reason)
        try:
            await batch.ack()
        except Unavailable as error:
            _log.warning("batch_not_acked", reason=str(error))
        else:
            routed = sum(count for index, count in counts.items() if index not in errors)
            self._metrics.events.labels("routed").inc(routed)

    async def _publish_all(
        self,
        publications: Iterator[tuple[int, NewPublication]],
        accepted: Sequence[float],
        errors: dict[int, NotifierError],
    ) -> None:
        """Publish in chunks, which are made when their turn comes, so that others get theirs.

        The next one is made and sent while one is being answered, unless they share a topic.
        """
        taken, topics = 0, frozenset[str]()
        under_way: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while chunk := list(islice(publications, _CHUNK)):
                self._metrics.reached("taken", accepted[taken:])
                taken = len(accepted)
                before, topics_before = under_way, topics
                topics = frozenset(new.topic for _, new in chunk)
                if before and not topics.isdisjoint(topics_before):
                    await before
                under_way = tasks.create_task(self._publish(chunk, errors), name="publish")
                await (before or asyncio.sleep(0))  # so that it is sent before the next is made

    async def _publish(
        self, chunk: Sequence[tuple[int, NewPublication]], errors: dict[int, NotifierError]
    ) -> None:
        """Publish, and note for each delivery of which something was refused why that was."""
        outcomes = await self._publish_chunk([new for _, new in chunk])
        duplicates = refused = 0
        for (index, new), outcome in zip(chunk, outcomes, strict=True):
            if not isinstance(outcome, Published):
                _log.error("publication_refused", topic=new.topic, reason=str(outcome))
                errors[index] = outcome
                refused += 1
            elif outcome.duplicate:
                duplicates += 1
        self._metrics.publications.labels("duplicate").inc(duplicates)
        self._metrics.publications.labels("published").inc(len(chunk) - duplicates - refused)

    async def _publish_chunk(self, chunk: list[NewPublication]) -> list[Published | NotifierError]:
        return await self._until_available(lambda: self._broker.publish(chunk))

    async def _put_aside(self, batch: Batch, delivery: Delivery, error: NotifierError) -> None:
        await self._until_available(lambda: batch.dead_letter(delivery, error.code, str(error)))
        self._metrics.dead_letters.labels(error.code).inc()
        _log.warning("dead_letter", code=error.code, reason=str(error))

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
                _log.warning("batch_held", reason=str(error), retry_in=round(pause, 2))
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


def _publications(
    batch: Batch,
    accepted: list[float],
    counts: dict[int, int],
    errors: dict[int, NotifierError],
) -> Iterator[tuple[int, NewPublication]]:
    """Yield publications with the number of their delivery.

    Note when events were accepted, where it is known, how many a delivery carries, and which
    deliveries cannot be understood.
    """
    for index, delivery in enumerate(batch.deliveries):
        try:
            entry = delivery.entry
            found = _understood(entry)
        except Invalid as error:
            errors[index] = error
            continue
        counts[index] = len(found)
        accepted += [entry.accepted] * len(found) if entry.accepted else []
        for new in chain.from_iterable(found):
            yield index, new


def _understood(entry: Entry) -> list[list[NewPublication]]:
    """Return the publications of each event of an entry."""
    now = time.time()
    found: list[list[NewPublication]] = []
    for event in events_of(entry, now):
        publications = publications_of(event, entry.accepted or now)
        if _logged.isEnabledFor(logging.DEBUG):
            _log.debug("routing", event_id=event.id, source=event.source, topics=len(publications))
        found.append(publications)
    return found


def publications_of(event: Event, accepted: float) -> list[NewPublication]:
    """Return one publication for each topic of a complete event; all share one encoded record."""
    key, record, collapse_key = key_of(event), record_of(event, accepted), collapse_key_of(event)
    return [NewPublication(topic, key, record, collapse_key) for topic in topics_of(event)]
