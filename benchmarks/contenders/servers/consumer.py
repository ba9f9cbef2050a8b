"""The consumer of aio-pika's tutorial: take an event, publish it to Redis, ack, take the next."""

import asyncio
import os

import aio_pika
from redis.asyncio import Redis

QUEUE = "benchmark.consumer"


async def main() -> None:
    """Consume until the process is ended."""
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    async with connection, Redis.from_url(os.environ["REDIS_URL"]) as redis:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        queue = await channel.declare_queue(
            QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )
        print("consuming", flush=True)
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    await redis.publish(str(message.correlation_id), message.body)


if __name__ == "__main__":
    asyncio.run(main())
