"""The router: it takes events from the event queue, publishes them to their topics, then acks.

The ack comes after the publishing. If the router dies in between, the batch comes again, and the
broker drops the duplicates. An event that has to be received in time waits in RabbitMQ before the
ack, so it comes back in any case; and so does one with delivery reports to come.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from notifier.core.entries import attributes_in
from notifier.core.errors import Unavailable
from notifier.core.ingress import id_in
from notifier.core.ports import Bad, Batch, Delivery, EventSource, SharedPorts
from notifier.router.batch_reader import BatchReader
from notifier.router.publisher import Publisher
from notifier.router.reports import Reports
from notifier.router.retry import Retry
from notifier.router.undelivered import Undelivered
from notifier.telemetry.metrics import Metrics

_log = structlog.get_logger("notifier.router")


class Router:
    """Routes the batches of an event source; several partitions' batches side by side."""

    def __init__(self, source: EventSource, shared: SharedPorts, metrics: Metrics) -> None:
        self._source = source
        self._broker = shared.broker
        self._metrics = metrics
        self._retry = Retry(metrics)
        self._publisher = Publisher(self._broker, self._retry, metrics)
        self._undelivered = Undelivered(source, shared, self._retry, metrics)
        self._reports = Reports(source, shared, self._retry, metrics)

    def trouble(self) -> dict[str, str | None]:
        """Return each part that routing needs, with why it does not work, or None."""
        waiting = self._retry.waiting
        return {
            "queue": self._source.trouble,
            "broker": self._broker.trouble,
            "holding": f"{waiting} batches wait for the broker" if waiting else None,
        }

    async def run(self) -> None:
        """Route until the source is stopped; batches under way are then finished first."""
        async with asyncio.TaskGroup() as tasks:
            async for batch in self._source.batches():
                tasks.create_task(self.route(batch), name="route")

    async def route(self, batch: Batch) -> None:
        """Understand a batch and publish its events, make dead letters of the bad ones, then ack.

        While the broker or the dead letters are out of reach the batch is kept, unacked, until
        another router has it.
        """
        # It understands each delivery when the publisher asks for it.
        reading = BatchReader(batch, self._broker.now)
        await self._publisher.publish(reading)
        if reading.has_followed:
            batch.allow_next()
            await self._undelivered.settle(batch, reading.awaited(), reading.waited)
            await self._reports.settle(batch, reading.reported(), reading.watched)
        if bad := reading.bad():
            await self._dead_letter(batch, bad)
        await self._ack(reading)

    async def _dead_letter(self, batch: Batch, bad: Sequence[Bad]) -> None:
        """Keep dead letters. Those that are not known to be kept are tried again, and no others."""
        left = bad

        async def keep() -> None:
            nonlocal left
            failures = await batch.dead_letter(left)
            tried = list(zip(left, failures, strict=True))
            left = [each for each, failure in tried if failure]
            self._tell_kept([each for each, failure in tried if not failure])
            for failure in filter(None, failures):
                raise failure

        await self._retry.while_ours(batch, keep)

    def _tell_kept(self, dead: Sequence[Bad]) -> None:
        for delivery, code, reason in dead:
            self._metrics.dead_letters.labels(code).inc()
            _log.warning("dead_letter", code=code, reason=reason, **_about(delivery))

    async def _ack(self, reading: BatchReader) -> None:
        try:
            await reading.batch.ack()
        except Unavailable as error:
            _log.warning("batch_not_acked", reason=str(error))
        else:
            routed = sum(each.events for each in reading.deliveries if not each.error)
            self._metrics.events.labels("routed").inc(routed)


def _about(delivery: Delivery) -> dict[str, str]:
    """Return the producer and the id of a dead letter, for the log."""
    with suppress(Exception):  # reading it may fail again, as it did before
        entry = delivery.entry
        event_id = id_in(entry.body, attributes_in(entry.headers)) or entry.message_id
        return {"producer": entry.app_id, "event_id": event_id, "routing_key": entry.routing_key}
    return {}
