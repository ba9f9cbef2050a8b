"""A bare round trip through RabbitMQ and then one through Redis, at a rate: what nobody gets below.

Prints the percentiles of both together, in milliseconds, as JSON.
"""

import asyncio
import json
import os
import sys
import time

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage
from redis.asyncio import Redis

QUEUE = "benchmark.round_trips"


async def post(channel: AbstractChannel, rate: float, count: int, size: int) -> None:
    """Publish persistent messages under confirms, each with the moment in it."""
    began = time.monotonic()
    properties = aiormq.spec.Basic.Properties(delivery_mode=2)
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            body = f"{time.monotonic_ns()}".ljust(size).encode()
            publish = channel.basic_publish(body, routing_key=QUEUE, properties=properties)
            tasks.create_task(_confirmed(publish))


async def _confirmed(publish: object) -> None:
    await publish  # type: ignore[misc]


async def measure(rate: float, seconds: float, size: int) -> list[float]:
    """Return the seconds that each message took, over both."""
    connection = await aiormq.connect(os.environ["AMQP_URL"])
    channel = await connection.channel()
    await channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    taken: list[float] = []
    count = int(rate * seconds)
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis, redis.pubsub() as pubsub:

        async def pass_on(message: DeliveredMessage) -> None:
            await redis.publish(QUEUE, message.body)
            await message.channel.basic_ack(message.delivery_tag or 0)

        await pubsub.subscribe(QUEUE)
        await channel.basic_consume(QUEUE, pass_on)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(post(channel, rate, count, size))
            async for message in pubsub.listen():
                if message["type"] == "message":
                    taken.append((time.monotonic_ns() - int(message["data"])) / 1e9)
                if len(taken) == count:
                    break
    await connection.close()
    return sorted(taken)


if __name__ == "__main__":
    rate, seconds, size = sys.argv[1:]
    times = asyncio.run(measure(float(rate), float(seconds), int(size)))
    at = {
        name: times[int(share * (len(times) - 1))] for name, share in (("p50", 0.5), ("p99", 0.99))
    }
    print(json.dumps({f"{name}_ms": seconds * 1000 for name, seconds in at.items()}))
