"""Events for one user each, put into RabbitMQ at a rate, and when each is published in Redis.

With an audience, an event for so many users goes the same way each second, half of the others'
users among them. Prints the milliseconds that each took, of those users and of others, as JSON.
"""

import asyncio
import json
import os
import sys
import time

import aiormq
from redis.asyncio import Redis

from notifier.adapters.rabbitmq.topology import EVENTS

RECIPIENTS = 20
USERS = [f"u{number}" if number % 2 else f"other{number}" for number in range(RECIPIENTS)]


async def _publish(channel: aiormq.abc.AbstractChannel, key: str, body: bytes) -> None:
    properties = aiormq.spec.Basic.Properties(
        delivery_mode=2, message_id=f"{time.monotonic_ns()}", app_id="benchmark"
    )
    await channel.basic_publish(body, exchange=EVENTS, routing_key=key, properties=properties)


def _body(**members: object) -> bytes:
    return json.dumps({"type": "benchmark", **members}).encode()


def _stamp() -> str:
    return f"~{time.monotonic_ns():019d}".ljust(200, "x")


async def post(url: str, rate: int, count: int, audience: int) -> None:
    """Post events for one recipient each, and now and then one for an audience."""
    async with await aiormq.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        large = _body(users=[f"u{number}" for number in range(audience)], data="x" * 200)
        began = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            if audience and number % rate == rate // 2:
                await _publish(channel, "users", large)
            await _publish(channel, f"user.{USERS[number % RECIPIENTS]}", _body(data=_stamp()))
        await channel.close()


async def measure(rate: int, seconds: float, audience: int) -> dict[str, list[float]]:
    """Return the milliseconds that events took, of those for members and of others."""
    count = int(rate * seconds)
    taken: dict[str, list[float]] = {"members": [], "others": []}
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(*(f"notifier:{{user:{user}}}" for user in USERS))
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(seconds + 30):
            tasks.create_task(post(os.environ["AMQP_URL"], rate, count, audience))
            async for message in pubsub.listen():
                now, data = time.monotonic_ns(), message["data"]
                if message["type"] == "message" and b"~" in data:  # else the audience's
                    sent = int(data[data.index(b"~") + 1 :][:19])
                    kind = "others" if b"other" in message["channel"] else "members"
                    taken[kind].append((now - sent) / 1e6)
                if sum(map(len, taken.values())) == count:
                    break
    return taken


if __name__ == "__main__":
    rate, seconds, audience = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(int(rate), float(seconds), int(audience)))))
