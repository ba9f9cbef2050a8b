"""RabbitMQ as the event source: the routers' end of the event queue."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from notifier.adapters.rabbitmq.amqp_delivery import AmqpAsideDelivery, AmqpDelivery
from notifier.adapters.rabbitmq.backlog import watched_backlog
from notifier.adapters.rabbitmq.connection import ConnectedAdapter, Connection, Reconnector
from notifier.adapters.rabbitmq.declaring import declare
from notifier.adapters.rabbitmq.deliveries import Message, UnsettledBytes
from notifier.adapters.rabbitmq.errors import Lost
from notifier.adapters.rabbitmq.partition import Partition
from notifier.adapters.rabbitmq.partitions import PartitionSharing
from notifier.adapters.rabbitmq.probe import Probe
from notifier.adapters.rabbitmq.registration import consuming_from
from notifier.adapters.rabbitmq.router_publisher import RouterPublisher, dead_letter_of
from notifier.adapters.rabbitmq.topology import ASIDE, DEAD, UNCLAIMED, topology
from notifier.adapters.rabbitmq.undelivered import letter_back, report_letter, waiting_letter
from notifier.core.addresses import Url
from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.ports import Bad, Batch, Roster
from notifier.core.reports import DeliveryReport
from notifier.core.undelivered import HandedBack
from notifier.telemetry.metrics import Metrics


class _Batch:
    """See Batch. RabbitMQ does not answer to an ack, so even acked ones may come again."""

    def __init__(
        self,
        partition: Partition,
        messages: list[Message],
        letters: RouterPublisher,
        metrics: Metrics,
    ) -> None:
        self._partition = partition
        self._messages = messages
        self._letters = letters
        self._metrics = metrics
        kind = AmqpAsideDelivery if partition.queue == ASIDE else AmqpDelivery
        self.deliveries = [kind(message, partition.queue) for message in messages]

    async def dead_letter(self, bad: Sequence[Bad]) -> list[Unavailable | None]:
        """See Batch."""
        return await self._letters.keep([dead_letter_of(*each) for each in bad])

    def allow_next(self) -> None:
        """See Batch."""
        self._partition.allow_next(self._messages)

    async def is_ours(self) -> bool:
        """See Batch."""
        return await self._partition.is_ours(self._messages)

    async def ack(self) -> None:
        """See Batch."""
        try:
            self._partition.settle(self._messages)
        except Lost as lost:
            raise Unavailable("rabbitmq", f"not acked, so it comes again: {lost}") from lost
        if self._partition.queue == ASIDE:
            for delivery in self.deliveries:
                self._metrics.put_aside.labels(delivery.put_aside_for).inc()


class AmqpEventSource(ConnectedAdapter):
    """Takes from its share of the partitions and the unroutable; enter it with `async with`.

    `url` is as for AmqpEventQueue. The routers of one `roster` share the partitions out between
    them, each standing by for the others. Leaving does not wait for open batches: unacked entries
    come again. Where there were more partitions before, those are emptied too.
    """

    def __init__(self, url: Url, *, partitions: int, roster: Roster, metrics: Metrics) -> None:
        self._reconnector = Reconnector(url, "events out", metrics, self._use)
        self._letters = RouterPublisher(url, partitions, metrics)
        super().__init__(self._reconnector, self._letters.reconnector)
        self._number = partitions
        self._metrics = metrics
        self._ready: asyncio.Queue[Partition | None] = asyncio.Queue()  # each at most once
        self.unsettled = UnsettledBytes()
        self._sharing = PartitionSharing(roster, self._ready, self.unsettled, metrics)
        consuming = consuming_from(lambda: self._sharing.at_work, self.unsettled)
        self._probe = Probe(
            self._reconnector, consuming, topology(partitions), lambda: self.unsettled.is_full
        )

    @property
    def trouble(self) -> str | None:
        """See Dependency: None while it consumes, and dead letters can be kept."""
        return self._reconnector.trouble or self._probe.trouble or self._letters.trouble

    @property
    def partitions(self) -> Sequence[str]:
        """See EventSource."""
        return self._sharing.at_work

    def stop(self) -> None:
        """See EventSource."""
        self._sharing.stop()
        self._ready.put_nowait(None)

    async def batches(self) -> AsyncIterator[Batch]:
        """See EventSource."""
        while partition := await self._ready.get():
            if messages := partition.take():
                yield _Batch(partition, messages, self._letters, self._metrics)

    async def wait(self, entries: Sequence[tuple[Entry, int]]) -> None:
        """See EventSource."""
        await self._letters.put([waiting_letter(entry, delay) for entry, delay in entries])

    async def hand_back(self, events: Sequence[HandedBack]) -> None:
        """See EventSource."""
        await self._letters.put([letter_back(event) for event in events])

    async def report(self, reports: Sequence[DeliveryReport]) -> None:
        """See EventSource."""
        await self._letters.put([report_letter(report) for report in reports])

    async def _use(self, connection: Connection) -> None:
        queues = await declare(connection, self._number)
        # Apart: most queues beside the partitions are idle.
        groups = (queues[: self._number], queues[self._number :])
        async with (
            self._sharing.over(connection, groups, self._reconnector),
            watched_backlog(connection, [*queues, DEAD, UNCLAIMED], self._metrics),
            self._probe.over(connection),
        ):
            self._reconnector.mark_ready()
            await self._reconnector.until_lost()
