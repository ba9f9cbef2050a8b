"""Repeating work while Redis or RabbitMQ is out of reach: no batch is given up for it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import structlog

from notifier.core.backoff import Backoff
from notifier.core.errors import Unavailable
from notifier.core.ports import Batch
from notifier.core.undelivered import Waiting
from notifier.core.watched import Watched
from notifier.telemetry.metrics import Metrics

_MOST_USERS = 500  # of a slice; an event of more is a slice by itself


T = TypeVar("T")
E = TypeVar("E", Waiting, Watched)
_log = structlog.get_logger("notifier.router")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Retry:
    """Repeats the work of batches; `waiting` counts those that wait for a backend now."""

    def __init__(self, metrics: Metrics) -> None:
        self.waiting = 0
        self._metrics = metrics

    async def until_available(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work until it no longer raises Unavailable, and return its result."""
        try:
            return await work()
        except Unavailable as error:
            return await self._again(work, error)

    async def while_ours(self, batch: Batch, work: Callable[[], Awaitable[None]]) -> None:
        """Do the same unless the batch is another router's by then."""

        async def work_if_ours() -> None:
            if await batch.is_ours():
                await work()

        await self.until_available(work_if_ours)

    async def by_slices(
        self, batch: Batch, events: Sequence[E], work: Callable[[Sequence[E]], Awaitable[None]]
    ) -> None:
        """Do the work for slices of events, each `while_ours`: a failure repeats one slice."""
        for some in _slices(events):
            await self.while_ours(batch, partial(work, some))

    async def _again(self, work: Callable[[], Awaitable[T]], error: Unavailable) -> T:
        self._metrics.held_batches.inc()
        self.waiting += 1
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        try:
            while True:
                pause = backoff.next()
                _log.warning("batch_held", reason=str(error), retry_in=round(pause, 2))
                await asyncio.sleep(pause)
                try:
                    return await work()
                except Unavailable as again:
                    error = again
        finally:
            self.waiting -= 1


def _slices(events: Sequence[E]) -> Iterator[list[E]]:
    some: list[E] = []
    users = 0
    for each in events:
        some.append(each)
        users += len(each.event.users or ())
        if users >= _MOST_USERS:
            yield some
            some, users = [], 0
    if some:
        yield some
