"""aio-pika used as fast as it goes: batches, one round trip to Redis for each, one multiple ack."""

import asyncio
import os

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from redis.asyncio import Redis

from benchmarks.contenders.servers.consumer import QUEUE

PREFETCH, LARGEST_BATCH = 200, 64  # as notifier's


async def main() -> None:
    """Consume until the process is ended."""
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    async with connection, Redis.from_url(os.environ["REDIS_URL"]) as redis:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.declare_queue(
            QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(arrived.put)
        print("consuming", flush=True)
        while True:
            batch = [await arrived.get()]
            while len(batch) < LARGEST_BATCH and not arrived.empty():
                batch.append(arrived.get_nowait())
            async with redis.pipeline(transaction=False) as pipeline:
                for message in batch:
                    pipeline.publish(str(message.correlation_id), message.body)
                await pipeline.execute()
            await batch[-1].ack(multiple=True)


if __name__ == "__main__":
    asyncio.run(main())
