"""Registering as a consumer of a queue, and looking whether this user may.

Order rests on two rules. A consumer takes at most PREFETCH entries: those that one gives back must
fit into the prefetch of the next one, or RabbitMQ puts the rest behind. And a consumer leaves by
closing its channel: after a `basic.cancel`, RabbitMQ hands the next one later entries before it is
given back those that this one has.
"""

from collections.abc import Callable, Sequence
from itertools import count

from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from notifier.adapters.rabbitmq.connection import Connection, number_of
from notifier.adapters.rabbitmq.deliveries import Deliveries, UnsettledBytes
from notifier.adapters.rabbitmq.probe import Right

PREFETCH = 200

# An outage of Redis is no fault of the consumer. On a timeout RabbitMQ 4.3 takes back the oldest
# deliveries alone, so that the next router gets them behind later ones. In milliseconds, the most
# that it takes. RabbitMQ 4.0.5 ignores it, and closes the channel after half an hour.
_PATIENCE: FieldTable = {"x-consumer-timeout": 2**31 - 1}


async def register(channel: AbstractChannel, queue: str) -> None:
    """Become a consumer, on a channel whose deliveries are claimed: see Wire.claim."""
    await channel.set_qos(prefetch_count=PREFETCH)
    found = await channel.get_queue(queue, ensure=False)
    await found.consume(_never, arguments=_PATIENCE)


def consuming_from(queues: Callable[[], Sequence[str]], unsettled: UnsettledBytes) -> Right:
    """Return the right to consume from `queues`, of which one is asked at a time."""
    turn = count()

    async def stand_by(connection: Connection, channel: AbstractChannel) -> None:
        """Stand by for a moment, behind the consumer that is there.

        That one may go in this moment: then its entries come here, and back with the channel.
        """
        if not (names := queues()):
            return
        # It is closed from the start: it keeps nothing of the entries that come.
        Deliveries(connection.wire, number_of(channel), lambda _: None).close()
        with unsettled.reading():  # else a router that has enough would not read the answers
            await register(channel, names[next(turn) % len(names)])
            await channel.close()

    return stand_by


async def _never(_: object) -> None:
    raise AssertionError("deliveries go past aio-pika")
