"""The way over AMQP: the exchange `notifier.events`, under publisher confirms."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from notifier.client.errors import Refused
from notifier.client.ways import Accepted, Again, Outcome
from notifier.core import events as core_events
from notifier.core.entries import routing_key_of
from notifier.core.errors import Invalid

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection, AbstractExchange

_EXCHANGE = "notifier.events"
_TIMEOUT = 15.0


class AmqpWay:
    """Publishes each event as a message of its own; fulfils Way.

    An event that the router could not understand is refused here, by the same rules: there is
    nobody to answer it there.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None

    async def __aenter__(self) -> Self:
        """See Way."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """See Way."""
        await self._close()

    async def send(self, events: Sequence[bytes]) -> list[Outcome]:
        """See Way; one that is not confirmed in time is to be sent again."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                exchange = await self._exchange_in_use()
                tries = [self._publish(exchange, event) for event in events]
                done = await asyncio.gather(*tries, return_exceptions=True)
        except Exception as error:  # noqa: BLE001 - aio-pika's errors are of many roots
            done = [error] * len(events)
        outcomes = [_outcome(each) for each in done]
        if any(isinstance(outcome, Again) for outcome in outcomes):
            await self._close()  # the next try opens another connection
        return outcomes

    async def _exchange_in_use(self) -> "AbstractExchange":
        if self._exchange is None:
            import aio_pika  # noqa: PLC0415 - producers over HTTP do not load it

            self._connection = await aio_pika.connect(self._url, timeout=_TIMEOUT)
            channel = await self._connection.channel(publisher_confirms=True)
            self._exchange = await channel.get_exchange(_EXCHANGE)
        return self._exchange

    async def _publish(self, exchange: "AbstractExchange", body: bytes) -> None:
        from aio_pika import DeliveryMode, Message  # noqa: PLC0415 - as above

        event = core_events.decode(body)
        if not event.has_audience:
            raise Invalid("users", "is missing: name users, topic or everyone")
        message = Message(
            body, content_type="application/json", delivery_mode=DeliveryMode.PERSISTENT
        )
        await exchange.publish(message, routing_key_of(event))

    async def _close(self) -> None:
        """Close the connection, if there is one; where that fails, it is gone all the same."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            with suppress(Exception):  # aio-pika's errors are of many roots
                await connection.close()


def _outcome(done: BaseException | None) -> Outcome:
    match done:
        case None:
            return Accepted()
        case Invalid():
            return Refused(str(done), code=done.code, field=done.field)
        case _:
            return Again(f"RabbitMQ did not confirm: {str(done) or type(done).__name__}")
