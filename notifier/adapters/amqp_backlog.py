"""How much waits in RabbitMQ's queues: they say so when they are declared again, passively."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from aiormq.abc import AbstractConnection

from notifier.adapters.amqp_link import Lost, Vanished, losses
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
        with suppress(Lost), losses():  # which others notice, and mend
            await _ask(connection, queues, metrics)
        await asyncio.sleep(_EVERY)


async def _ask(connection: AbstractConnection, queues: tuple[str, ...], metrics: Metrics) -> None:
    channel = await connection.channel(publisher_confirms=False)
    for queue in queues:
        try:
            with losses():
                found = await channel.queue_declare(queue, passive=True)
        except Vanished:  # and the channel with it
            metrics.backlog.remove(queue)
            channel = await connection.channel(publisher_confirms=False)
        else:
            metrics.backlog.labels(queue).set(found.message_count or 0)
    await channel.close()
