"""aio-pika publishing batches under confirms that it does not wait for one by one; no HTTP.

Prints the CPU seconds and the seconds that all batches took, as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable

import aio_pika
from aio_pika.abc import AbstractExchange

from benchmarks.contenders.servers.consumer import QUEUE


async def _publish(exchange: AbstractExchange, body: bytes, count: int) -> None:
    """Publish a batch; return once RabbitMQ has confirmed all of it."""
    message = aio_pika.Message(body, delivery_mode=2, content_type="application/json")
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(_confirmed(exchange, message))


async def _confirmed(exchange: AbstractExchange, message: aio_pika.Message) -> None:
    await exchange.publish(message, QUEUE)


async def _one_after_another(exchange: AbstractExchange, body: bytes, sizes: Iterable[int]) -> None:
    for size in sizes:
        await _publish(exchange, body, size)


async def main(producers: int, batches: int, batch: int, size: int) -> None:
    """Publish `batches` of `batch` bodies of `size` bytes, `producers` of them side by side."""
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        exchange, body = channel.default_exchange, b"x" * size
        await _publish(exchange, body, batch)
        cpu, began = time.process_time(), time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(producers):
                sizes = [batch] * (batches // producers)
                tasks.create_task(_one_after_another(exchange, body, sizes))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"cpu": cpu, "seconds": seconds}))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
