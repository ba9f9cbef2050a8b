"""Events for thousands of users, and a router that dies while they are on their way."""

import json
from pathlib import Path
from typing import Any

from redis import Redis

from tests.support.process import wait_until
from tests.support.producers import amqp_producer
from tests.support.roles import Role, running

USERS = [str(number) for number in range(10_000)]
LAST = USERS[-1]


def lengths(redis: Redis) -> list[int]:
    """How many publications each user's history holds."""
    pipeline = redis.pipeline(transaction=False)
    for user in USERS:
        pipeline.xlen(f"notifier:{{user:{user}}}:log")
    return list(map(int, pipeline.execute()))


def ids(redis: Redis, user: str) -> list[str]:
    """The events in a user's history, in its order."""
    entries: Any = redis.xrange(f"notifier:{{user:{user}}}:log")
    return [json.loads(fields[b"r"].partition(b"\n")[2])["id"] for _, fields in entries]


async def test_a_router_killed_in_the_middle_of_an_audience_means_no_lost_and_no_duplicate_event(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    backends = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_REDIS_URL": redis_url}
    router = Role("router", tmp_path / "router.log", **backends)
    with running(router), Redis.from_url(redis_url) as redis:
        async with amqp_producer(amqp_url) as producer:
            event = {"type": "t", "source": "a", "users": USERS}
            await producer.send({**event, "id": "large"}, "users")
            await producer.send({**event, "id": "behind", "users": [LAST]}, "users")
        first = f"notifier:{{user:{USERS[0]}}}:log"
        wait_until(lambda: bool(redis.exists(first)), seconds=30, otherwise=router.log_tail)
        router.kill()
        published = sum(lengths(redis))

        router.start()
        expected = [1] * (len(USERS) - 1) + [2]
        wait_until(lambda: lengths(redis) == expected, seconds=60, otherwise=router.log_tail)

        assert 0 < published < len(USERS)
        assert ids(redis, LAST) == ["large", "behind"]
