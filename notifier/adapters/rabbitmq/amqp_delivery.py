"""Deliveries as the router sees them: entries, read when it asks for them."""

from functools import cached_property

from notifier.adapters.rabbitmq import properties
from notifier.adapters.rabbitmq.deliveries import Message
from notifier.core.bounded_json import check_size
from notifier.core.entries import LARGEST_ENTRY_BODY, Entry
from notifier.core.errors import Expired, Invalid, Rejected


class AmqpDelivery:
    """A message of `queue`; see Delivery."""

    __slots__ = ("message", "queue")

    def __init__(self, message: Message, queue: str) -> None:
        self.message = message
        self.queue = queue

    @property
    def entry(self) -> Entry:
        """See Delivery; raises Invalid for a body or properties over their bounds."""
        return self._entry(self.message.routing_key)

    def _entry(self, routing_key: bytes) -> Entry:
        message = self.message
        check_size(message.size, LARGEST_ENTRY_BODY)
        return properties.entry_of(routing_key, message.properties, message.body)

    @property
    def origin(self) -> tuple[str, str]:
        """The queue that it was routed to, and its routing key."""
        return self.queue, properties.readable(self.message.routing_key)

    @property
    def put_aside_for(self) -> str:
        """RabbitMQ's word for why it took this out of another queue; empty where it did not."""
        return ""


class AmqpAsideDelivery(AmqpDelivery):
    """An entry that RabbitMQ itself took out of a queue.

    Nobody has found it bad, so it is an entry still, unless its producer let it expire or a
    consumer that is not notifier's rejected it.
    """

    @cached_property
    def _death(self) -> properties.Death | None:
        return properties.death_of(self.message.properties)

    @property
    def entry(self) -> Entry:
        """See Delivery; raises Expired and Rejected too."""
        match self._death:
            case None:
                raise Invalid(
                    "", "RabbitMQ's header x-death, which says why it is here, is missing"
                )
            case properties.Death("rejected", queue):
                raise Rejected("", f"a consumer of {queue} that is not notifier's rejected it")
            case properties.Death("expired", queue, _, milliseconds) if milliseconds:
                reason = f"the producer's {milliseconds} ms were over while it waited in {queue}"
                raise Expired("expiration", reason)
            case death:
                return self._entry(death.routing_key.encode())

    @property
    def origin(self) -> tuple[str, str]:
        """See AmqpDelivery."""
        return (self._death.queue, self._death.routing_key) if self._death else super().origin

    @property
    def put_aside_for(self) -> str:
        """See AmqpDelivery."""
        return self._death.reason if self._death else "unknown"
