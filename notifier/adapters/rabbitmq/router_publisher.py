"""Publishes the letters of a router: dead letters, and events that wait or are handed back.

Dead letters are entries that a router found bad, kept in the queue `notifier.dead` for a person.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import structlog

from notifier.adapters.rabbitmq import frames, properties
from notifier.adapters.rabbitmq.amqp_delivery import AmqpDelivery
from notifier.adapters.rabbitmq.confirms import Letter
from notifier.adapters.rabbitmq.connection import Connection
from notifier.adapters.rabbitmq.declaring import declare_returns
from notifier.adapters.rabbitmq.errors import TopologyError
from notifier.adapters.rabbitmq.probe import Probe, publishing_to
from notifier.adapters.rabbitmq.publisher import Publisher
from notifier.adapters.rabbitmq.topology import DEAD, JUDGED
from notifier.core.addresses import Url
from notifier.core.errors import Unavailable
from notifier.core.ports import Delivery
from notifier.telemetry.metrics import Metrics

_LONGEST_REASON = 500

_log = structlog.stdlib.get_logger(__name__)


class RouterPublisher(Publisher):
    """Publishes dead letters to the queue `notifier.dead`, and the other letters of a router."""

    def __init__(self, url: Url, partitions: int, metrics: Metrics) -> None:
        super().__init__(url, "dead letters", partitions, metrics)
        self.probe = Probe(self.reconnector, publishing_to(DEAD, JUDGED))
        self._one_at_a_time = asyncio.Lock()

    @property
    def trouble(self) -> str | None:
        """See Dependency: a blocked connection is none, as a router drains on during an alarm.

        Only the probe may be waiting; a router that has something to keep says that it holds it.
        """
        return self.reconnector.trouble or self.probe.trouble

    async def _set_up(self, connection: Connection) -> AbstractAsyncContextManager[None]:
        context = await super()._set_up(connection)
        try:
            await declare_returns(connection)
        except TopologyError as error:  # an older one was imported: routing does not need these
            _log.warning("cannot_hand_back", reason=str(error))
        return context

    async def keep(self, letters: Sequence[Letter]) -> list[Unavailable | None]:
        """Return for each None once it is kept, else why that is not known."""
        async with self._one_at_a_time:
            return await self.publish(letters, tries=1)

    async def put(self, letters: Sequence[Letter]) -> None:
        """Return once all of them are kept, else raise Unavailable."""
        for failure in filter(None, await self.keep(letters)):
            raise failure


def dead_letter_of(delivery: Delivery, code: str, reason: str) -> Letter:
    """Write the dead letter of a delivery."""
    if not isinstance(delivery, AmqpDelivery):
        raise TypeError("this delivery is another adapter's")
    message, (queue, routing_key) = delivery.message, delivery.origin
    headers: dict[str, Any] = {
        "notifier-reason": code,
        "notifier-error": reason[:_LONGEST_REASON],
        "notifier-routing-key": routing_key,
        "notifier-queue": queue,
        "notifier-time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    if message.size > len(message.body):
        headers |= {"notifier-truncated": True, "notifier-size": message.size}
    own = properties.of_dead_letter(message.properties, headers)
    return Letter(frames.address(DEAD, JUDGED), own, message.body, is_numbered=False)
