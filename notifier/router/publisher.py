"""Publishing batches: in chunks, each topic in order, and past large audiences."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import structlog

from notifier.core.errors import NotifierError, Unavailable, unfailed
from notifier.core.history import Published
from notifier.core.ports import Broker
from notifier.router.batch_reader import BatchReader, Progress
from notifier.router.order import LARGE, Audience, Chunk, Cut, Item, Order
from notifier.router.retry import Retry
from notifier.telemetry.metrics import Metrics

_log = structlog.get_logger("notifier.router")
_TURN = 0.005  # seconds of making publications, after which others get a turn of the loop
_AT_ONCE = 2  # chunks of large audiences, over all partitions


class Publisher:
    """Publishes the batches of all partitions, several side by side."""

    def __init__(self, broker: Broker, retry: Retry, metrics: Metrics) -> None:
        self._broker = broker
        self._retry = retry
        self._metrics = metrics
        self._order = Order()
        self._audience_slots = asyncio.Semaphore(_AT_ONCE)

    async def publish(self, reading: BatchReader) -> None:
        """Publish all events of a batch; return once Redis has answered for each.

        A publication that Redis refuses becomes its delivery's error. While only large audiences
        are left, the batch allows the next one to come.
        """
        async with asyncio.TaskGroup() as tasks:
            late = await self._publish_parts(reading, tasks)
            self._count_published(set(reading.deliveries) - late)
            if late:
                reading.batch.allow_next()
        self._count_published(late)

    def _count_published(self, deliveries: set[Progress]) -> None:
        moments = [moment for progress in deliveries for moment in progress.moments()]
        self._metrics.reached("published", moments)

    async def _publish_parts(self, reading: BatchReader, tasks: asyncio.TaskGroup) -> set[Progress]:
        """Publish all but the large audiences, which `tasks` go on with; return their deliveries.

        The next chunk is made while one is being answered, and not before, so that others get
        their turns.
        """
        late: set[Progress] = set()
        under_way: asyncio.Task[None] | None = None
        async with aclosing(self._parts(reading)) as parts:
            async for part in parts:
                self._metrics.reached("taken", reading.taken())
                before = None
                if isinstance(part, Audience):
                    late.add(part.progress)
                    self._order.add(part)
                    tasks.create_task(self._publish_audience(part), name="audience")
                else:
                    chunk = self._order.chunk(part)
                    before = under_way
                    under_way = tasks.create_task(self._publish(chunk), name="publish")
                await (before or asyncio.sleep(0))  # it is sent before the next is made
        if under_way:
            await under_way
        return late

    async def _parts(self, reading: BatchReader) -> AsyncGenerator[list[Item] | Audience]:
        """Cut the events of a batch into chunks and audiences, each made when its turn comes."""
        cut = Cut()
        turn_ends = time.monotonic() + _TURN
        for progress, publications in reading.publications():
            if len(publications) > LARGE and self._order.has_room:
                if rest := cut.rest():
                    yield rest
                yield Audience(progress, publications)
            else:
                for items in cut.add(progress, publications):
                    yield items
            if time.monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + _TURN
        if rest := cut.rest():
            yield rest

    async def _publish_audience(self, audience: Audience) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(self._publish_rest(audience), name="publish")
        await audience.published.wait()  # other chunks may have taken some along
        self._order.remove(audience)

    async def _publish_rest(self, audience: Audience) -> None:
        while audience.waiting:
            async with self._audience_slots:
                if chunk := self._order.next_chunk_of(audience):
                    await self._publish(chunk)

    async def _publish(self, chunk: Chunk) -> None:
        await chunk.wait_for_earlier()
        await self._retry.until_available(lambda: self._publish_waiting(chunk))
        self._order.finish(chunk)

    async def _publish_waiting(self, chunk: Chunk) -> None:
        """Publish the items without an answer whose batch is still this router's.

        Raises Unavailable while some have none: these alone are repeated, and no event is given up.
        The others, repeated past the deduplication window, would be published twice.
        """
        items = await chunk.still_ours()
        outcomes = await self._broker.publish([new for _, new in items]) if items else []
        answered = list(zip(items, outcomes, strict=True))
        chunk.waiting = [item for item, outcome in answered if isinstance(outcome, Unavailable)]
        self._note(answered)
        unfailed(outcomes)

    def _note(self, answered: Iterable[tuple[Item, Published | NotifierError]]) -> None:
        published = duplicates = 0
        for (owner, new), outcome in answered:
            if isinstance(outcome, Published):
                published += not outcome.duplicate
                duplicates += outcome.duplicate
            elif not isinstance(outcome, Unavailable):
                _log.error("publication_refused", topic=new.topic, reason=str(outcome))
                owner.refuse(outcome)
        self._metrics.publications.labels("duplicate").inc(duplicates)
        self._metrics.publications.labels("published").inc(published)
