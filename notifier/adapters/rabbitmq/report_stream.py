"""Delivery reports for a person at a terminal, by a queue that lives as long as its reader."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable

from aio_pika.abc import AbstractIncomingMessage
from aiormq.abc import FieldTable

from notifier.adapters.rabbitmq.connection import connected
from notifier.adapters.rabbitmq.errors import Lost, losses
from notifier.adapters.rabbitmq.topology import REPORTS

_PATIENCE = 10.0  # seconds, for RabbitMQ to answer
_AT_ONCE = 100
_BOUNDS: FieldTable = {"x-max-length": 10_000}  # for a slow reader; the oldest reports then go


async def reports(url: str, key: str, on_bound: Callable[[], None]) -> AsyncGenerator[bytes]:
    """Yield each delivery report with a routing key that fits `key`, from now on: CloudEvents JSON.

    `on_bound` is called once none is missed any more. Raises Lost.
    """
    connection = await connected(url, "reports", _PATIENCE)
    async with connection.closed_within(_PATIENCE):
        with losses():
            channel = await connection.channel()
            await channel.set_qos(_AT_ONCE)
            queue = await channel.declare_queue(exclusive=True, arguments=_BOUNDS)
            await queue.bind(REPORTS, key)
        on_bound()
        messages = queue.iterator(no_ack=False)
        while True:
            message = await _next(messages)
            yield message.body
            with losses():
                await message.ack()


async def _next(messages: AsyncIterator[AbstractIncomingMessage]) -> AbstractIncomingMessage:
    with losses():
        async for message in messages:
            return message
    raise Lost("the connection was lost")
