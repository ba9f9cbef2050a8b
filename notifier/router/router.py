"""The router: it takes events from the event queue, publishes them to their topics, then acks.

Ack after publish, and duplicates recognised by the broker: a crash in between repeats an event's
publications, and nobody sees them twice.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import structlog

from notifier.core.errors import NotifierError, Unavailable
from notifier.core.events import Event
from notifier.core.ingress import attributes_in, events_of, id_in
from notifier.core.ports import Batch, Broker, Delivery, EventSource, Published
from notifier.core.publications import NewPublication, collapse_key_of, key_of, record_of
from notifier.core.routing import topics_of
from notifier.router.order import CHUNK, CHUNK_BYTES, LARGE, Audience, Chunk, Item, Order
from notifier.telemetry.metrics import Metrics

T = TypeVar("T")
_log = structlog.get_logger("notifier.router")
_logged = logging.getLogger("notifier.router")  # asked first, in a tenth of the time
_TURN = 0.005  # seconds of making publications, after which others get a turn of the loop
_AT_ONCE = 2  # chunks of large audiences, over all partitions
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Router:
    """Routes the batches of an event source; several partitions' batches side by side."""

    def __init__(self, source: EventSource, broker: Broker, metrics: Metrics) -> None:
        self._source = source
        self._broker = broker
        self._metrics = metrics
        self._order = Order()
        self._turns = asyncio.Semaphore(_AT_ONCE)
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

        While the broker or the dead letters are out of reach the batch is kept, unacked, until it
        is somebody else's. While it waits for nothing but large audiences, the next one may come.
        """
        known = _Known()
        async with asyncio.TaskGroup() as tasks:
            audiences = await self._publish_all(batch, known, tasks)
            late = {audience.index for audience in audiences}
            self._metrics.reached("published", known.moments(known.events.keys() - late))
            if audiences:
                batch.allow_next()
        self._metrics.reached("published", known.moments(late))
        errors = known.errors | {each.index: each.refusal for each in audiences if each.refusal}
        for index, reason in errors.items():
            await self._put_aside(batch, batch.deliveries[index], reason)
        try:
            await batch.ack()
        except Unavailable as error:
            _log.warning("batch_not_acked", reason=str(error))
        else:
            routed = sum(count for index, count in known.events.items() if index not in errors)
            self._metrics.events.labels("routed").inc(routed)

    async def _publish_all(
        self,
        batch: Batch,
        known: "_Known",
        tasks: asyncio.TaskGroup,
    ) -> list[Audience]:
        """Publish all but the large audiences, which `tasks` go on with; return those.

        The next chunk is made while one is being answered, and not before, so that others get
        their turns.
        """
        audiences: list[Audience] = []
        under_way: asyncio.Task[None] | None = None
        taken = 0
        for part in self._parts(batch, _events(batch, known)):
            if part is None:
                await asyncio.sleep(0)
                continue
            self._metrics.reached("taken", known.moments(list(known.events)[taken:]))
            taken = len(known.events)
            before = None
            if isinstance(part, Audience):
                audiences.append(part)
                self._order.begin(part)
                tasks.create_task(self._publish_audience(part, known.errors), name="audience")
            else:
                publishing = self._publish(self._order.chunk(part, batch), known.errors)
                before, under_way = under_way, tasks.create_task(publishing, name="publish")
            await (before or asyncio.sleep(0))  # so that it is sent before the next is made
        if under_way:
            await under_way
        return audiences

    def _parts(
        self, batch: Batch, events: Iterable[tuple[int, list[NewPublication]] | None]
    ) -> Iterator[list[Item] | Audience | None]:
        """Cut the events of a batch into chunks and audiences, made when their turn comes.

        None is passed on: others are due a turn.
        """
        items: list[Item] = []
        size = 0
        for event in events:
            if event is None:
                yield None
                continue
            index, publications = event
            if len(publications) > LARGE and self._order.has_room:
                if items:
                    yield items
                    items, size = [], 0
                yield Audience(index, batch, publications)
                continue
            for new in publications:
                items.append((index, new))
                size += len(new.record)
                if len(items) == CHUNK or size >= CHUNK_BYTES:
                    yield items
                    items, size = [], 0
        if items:
            yield items

    async def _publish_audience(self, audience: Audience, errors: dict[int, NotifierError]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(self._publish_rest(audience, errors), name="publish")
        await audience.published.wait()  # of what others took along too
        self._order.end(audience)

    async def _publish_rest(self, audience: Audience, errors: dict[int, NotifierError]) -> None:
        while audience.waiting:
            async with self._turns:
                if chunk := self._order.next_of(audience):
                    await self._publish(chunk, errors)

    async def _publish(self, chunk: Chunk, errors: dict[int, NotifierError]) -> None:
        """Publish, and note of which delivery or audience something was refused, and why."""
        await chunk.turn()
        outcomes = await self._until_available(lambda: self._publish_ours(chunk))
        duplicates = refused = 0
        for (owner, new), outcome in outcomes:
            if not isinstance(outcome, Published):
                _log.error("publication_refused", topic=new.topic, reason=str(outcome))
                refused += 1
                if isinstance(owner, Audience):
                    owner.refusal = outcome
                else:
                    errors[owner] = outcome
            elif outcome.duplicate:
                duplicates += 1
        for owner, _ in chunk.items:
            if isinstance(owner, Audience):
                owner.was_published()
        self._order.went(chunk)
        self._metrics.publications.labels("duplicate").inc(duplicates)
        published = len(outcomes) - duplicates - refused
        self._metrics.publications.labels("published").inc(published)

    async def _publish_ours(self, chunk: Chunk) -> list[tuple[Item, Published | NotifierError]]:
        """Publish what is still this router's, and return what became of it."""
        items = await chunk.ours()
        outcomes = await self._broker.publish([new for _, new in items]) if items else []
        return list(zip(items, outcomes, strict=True))

    async def _put_aside(self, batch: Batch, delivery: Delivery, error: NotifierError) -> None:
        async def work() -> bool:
            if is_ours := await batch.is_ours():
                await batch.dead_letter(delivery, error.code, str(error))
            return is_ours

        if await self._until_available(work):
            self._metrics.dead_letters.labels(error.code).inc()
            _log.warning("dead_letter", code=error.code, reason=str(error), **_about(delivery))

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


class _Known:
    """What is found out about a batch's deliveries, by their number: events, acceptance, errors."""

    def __init__(self) -> None:
        self.events: dict[int, int] = {}  # how many a delivery carries
        self.accepted: dict[int, float] = {}  # where the producer said it
        self.errors: dict[int, NotifierError] = {}

    def moments(self, indexes: Iterable[int]) -> list[float]:
        """Return when the events of some deliveries were accepted."""
        known = [index for index in indexes if index in self.accepted]
        return [self.accepted[index] for index in known for _ in range(self.events[index])]


def _events(batch: Batch, known: _Known) -> Iterator[tuple[int, list[NewPublication]] | None]:
    """Yield the publications of each event with the number of its delivery, and note the rest.

    None stands where others are due a turn of the loop.
    """
    turn_ends = time.monotonic() + _TURN
    for index, delivery in enumerate(batch.deliveries):
        with _noted(known, index):
            for publications in _understood(delivery, index, known):
                yield index, publications
                if time.monotonic() > turn_ends:
                    yield None
                    turn_ends = time.monotonic() + _TURN
        if time.monotonic() > turn_ends:
            yield None
            turn_ends = time.monotonic() + _TURN


def _about(delivery: Delivery) -> dict[str, str]:
    """Return what the log tells of an entry that was put aside: its producer and its id."""
    with suppress(Exception):  # whatever it was put aside for happens again
        entry = delivery.entry
        event_id = id_in(entry.body, attributes_in(entry.headers)) or entry.message_id
        return {"producer": entry.app_id, "event_id": event_id, "routing_key": entry.routing_key}
    return {}


@contextmanager
def _noted(known: _Known, index: int) -> Iterator[None]:
    """Note why a delivery cannot be understood, so that it alone is put aside."""
    try:
        yield
    except NotifierError as error:
        known.errors[index] = error
    except MemoryError:
        raise  # says nothing about the delivery
    except Exception as error:  # noqa: BLE001 - see below
        # A defect of ours, met by one delivery. Were it to end the router, RabbitMQ would deliver
        # again, for ever, and count each time against the good entries beside it.
        _log.exception("delivery_not_understood")
        known.errors[index] = NotifierError(f"notifier failed at it: {error!r}")


def _understood(delivery: Delivery, index: int, known: _Known) -> Iterator[list[NewPublication]]:
    """Yield the publications of each event of a delivery, once all of its events are understood."""
    entry, now = delivery.entry, time.time()
    events = events_of(entry, now)
    known.events[index] = len(events)
    if entry.accepted:
        known.accepted[index] = entry.accepted
    for event in events:
        publications = publications_of(event, entry.accepted or now)
        if _logged.isEnabledFor(logging.DEBUG):
            _log.debug("routing", event_id=event.id, source=event.source, topics=len(publications))
        yield publications


def publications_of(event: Event, accepted: float) -> list[NewPublication]:
    """Return one publication for each topic of a complete event; all share one encoded record."""
    key, record, collapse_key = key_of(event), record_of(event, accepted), collapse_key_of(event)
    return [NewPublication(topic, key, record, collapse_key) for topic in topics_of(event)]
