"""RabbitMQ as the event queue: AMQP 0-9-1, RabbitMQ 3.10 or newer.

Publishing and consuming have a connection each: when memory or disk run low, RabbitMQ stops
reading from connections that publish, and would not see their acks either.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from notifier.adapters.rabbitmq.backlog import watched_backlog
from notifier.adapters.rabbitmq.confirms import letter_of
from notifier.adapters.rabbitmq.connection import ConnectedAdapter, Connection
from notifier.adapters.rabbitmq.declaring import declare
from notifier.adapters.rabbitmq.probe import Probe, publishing_to
from notifier.adapters.rabbitmq.publisher import Publisher
from notifier.adapters.rabbitmq.topology import DEAD, EVENTS, topology
from notifier.core.addresses import Url
from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.telemetry.metrics import Metrics

_TRIES = 3


class _Events(Publisher):
    """Publishes events, and tells how many wait: routers, which tell it too, may be away."""

    def __init__(self, url: Url, partitions: int, metrics: Metrics) -> None:
        super().__init__(url, "events in", partitions, metrics)
        publishing = publishing_to(EVENTS, "everyone")
        self.probe = Probe(self.reconnector, publishing, topology(partitions))
        self._metrics = metrics

    async def _set_up(self, connection: Connection) -> AbstractAsyncContextManager[None]:
        queues = await declare(connection, self._partitions)
        return watched_backlog(connection, [*queues, DEAD], self._metrics)


class AmqpEventQueue(ConnectedAdapter):
    """Puts entries on exchange `notifier.events`; enter it with `async with`.

    `url` may be several, separated by commas, tried in turn. Entering does not wait for RabbitMQ;
    `trouble` tells. A put that fails has been tried for at most ten seconds, and fails at once
    when there has been no connection for a second, or when RabbitMQ's memory or disk runs low.
    An entry's message id is replaced.
    """

    def __init__(self, url: Url, *, partitions: int, metrics: Metrics) -> None:
        self._publisher = _Events(url, partitions, metrics)
        super().__init__(self._publisher.reconnector)

    @property
    def trouble(self) -> str | None:
        """See Dependency."""
        return self._publisher.obstacle

    async def put(self, entry: Entry) -> None:
        """See EventQueue."""
        [failure] = await self.put_each([entry])
        if failure:
            raise failure

    async def put_each(self, entries: Sequence[Entry]) -> list[Unavailable | None]:
        """See EventQueue."""
        letters = [letter_of(entry, EVENTS, entry.routing_key) for entry in entries]
        return await self._publisher.publish(letters, _TRIES)
