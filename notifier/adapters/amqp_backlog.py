"""How much waits in RabbitMQ's queues: they say so when they are declared again, passively."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiormq.abc import AbstractChannel, AbstractConnection

from notifier.adapters.amqp_link import Lost, losses
from notifier.core.background import Background
from notifier.telemetry.metrics import Metrics

_EVERY = 5  # seconds


@asynccontextmanager
async def watched_backlog(
    connection: AbstractConnection, queues: Iterable[str], metrics: Metrics
) -> AsyncIterator[None]:
    """Tell the metrics while inside, on a channel of its own; a connection that is lost ends it."""
    metrics.backlog.clear()
    try:
        async with Background() as background:
            background.start(_watch(connection, tuple(queues), metrics), "rabbitmq: backlog")
            yield
    finally:
        metrics.backlog.clear()  # nobody knows it any more


async def _watch(connection: AbstractConnection, queues: tuple[str, ...], metrics: Metrics) -> None:
    while True:
        try:
            with losses():
                await _ask(await connection.channel(publisher_confirms=False), queues, metrics)
        except Lost:  # which others notice, and mend
            await asyncio.sleep(_EVERY)


async def _ask(channel: AbstractChannel, queues: tuple[str, ...], metrics: Metrics) -> None:
    while True:
        for queue in queues:
            found = await channel.queue_declare(queue, passive=True)
            metrics.backlog.labels(queue).set(found.message_count or 0)
        await asyncio.sleep(_EVERY)
