"""The number of entries in RabbitMQ's queues: a passive declaration is answered with it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused

from notifier.adapters.rabbitmq.declaring import Channels
from notifier.adapters.rabbitmq.errors import Lost, Vanished, losses
from notifier.core.background import Background
from notifier.telemetry.metrics import Metrics

_EVERY = 5  # seconds


@asynccontextmanager
async def watched_backlog(
    connection: AbstractConnection, queues: Iterable[str], metrics: Metrics
) -> AsyncIterator[None]:
    """Tell the metrics while inside, on channels of its own; a connection that is lost ends it."""
    metrics.backlog.clear()
    try:
        async with Background() as background:
            background.start(_watch(connection, tuple(queues), metrics), "rabbitmq: backlog")
            yield
    finally:
        metrics.backlog.clear()  # nobody knows it any more


async def _watch(connection: AbstractConnection, queues: tuple[str, ...], metrics: Metrics) -> None:
    while True:
        with suppress(Lost), losses():  # the probe notices and mends it
            # Kept open: aiormq waits ten seconds for the answer to a close, then confuses RabbitMQ.
            # A router that holds enough reads its answers later than that.
            channels = Channels(connection)
            while True:
                await _ask(channels, queues, metrics)
                await asyncio.sleep(_EVERY)
        await asyncio.sleep(_EVERY)


async def _ask(channels: Channels, queues: tuple[str, ...], metrics: Metrics) -> None:
    for queue in queues:
        waiting = await _waiting(channels, queue)
        if waiting is None:
            metrics.backlog.remove(queue)
        else:
            metrics.backlog.labels(queue).set(waiting)


async def _waiting(channels: Channels, queue: str) -> int | None:
    """Return None for a queue that is gone, or that RabbitMQ hides without a right to it."""
    try:
        with losses():
            channel = await channels.usable()
            return (await channel.get_queue(queue)).declaration_result.message_count or 0
    except Lost as lost:
        if isinstance(lost, Vanished) or isinstance(lost.__cause__, ChannelAccessRefused):
            return None
        raise
