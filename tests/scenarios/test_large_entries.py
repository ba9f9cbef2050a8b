"""Entries that are too large or costly beside good ones, within the memory of the chart."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import yaml
from aio_pika.abc import AbstractIncomingMessage
from aiormq import spec
from pamqp.common import FieldTable
from redis import Redis

from notifier.adapters.rabbitmq.deliveries import KEPT_OF_LARGER
from notifier.adapters.rabbitmq.topology import EVENTS
from tests.support.process import wait_until
from tests.support.producers import AmqpProducer, amqp_producer
from tests.support.roles import Role, running
from tests.support.services import RedisServer

CHART = Path(__file__).parents[2] / "deploy/helm/notifier/values.yaml"
MB = 1_000_000
MIB = 1024 * 1024
EVERY = 10  # as many large entries go between two good ones at most
EXPENSIVE: FieldTable = {"x": [None] * 130_000}
MANY: FieldTable = {f"h{number}": None for number in range(15_000)}


def memory_limit() -> int:
    """The memory that the chart gives a router, in bytes."""
    limit: str = yaml.safe_load(CHART.read_text())["router"]["resources"]["limits"]["memory"]
    return int(limit.removesuffix("Mi")) * MIB


def history(redis: Redis) -> list[str]:
    """The events that user 42 can read again, in their order."""
    entries: Any = redis.xrange("notifier:{user:42}:log")
    return [json.loads(fields[b"r"].partition(b"\n")[2])["id"] for _, fields in entries]


def kept(router: Role) -> float:
    """How many dead letters it has kept, which comes after it has published the rest of a batch."""
    name = "notifier_dead_letters_total{"
    return sum(value for sample, value in router.samples().items() if sample.startswith(name))


async def dead_letters(url: str, count: int) -> Sequence[AbstractIncomingMessage]:
    """Take so many dead letters; there must not be more of them."""
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).get_queue("notifier.dead")
        found = [await queue.get(no_ack=True, timeout=30) for _ in range(count)]
        assert await queue.get(no_ack=True, fail=False) is None
    return found


@asynccontextmanager
async def stopped(router: Role, amqp_url: str) -> AsyncIterator[AmqpProducer]:
    """Stop a router for as long as a producer publishes, and start it again."""
    router.stop()
    async with amqp_producer(amqp_url) as producer:
        yield producer
    router.start()


class EncodedOnce(spec.Basic.Properties):
    """Properties of many publications: encoding costly ones for each takes seconds of CPU."""

    _encoded = b""

    def marshal(self) -> bytes:
        self._encoded = self._encoded or super().marshal()
        return self._encoded


async def send_between_good_ones(
    producer: AmqpProducer, large: Sequence[bytes], headers: FieldTable | None = None
) -> list[str]:
    """Publish good entries to user 42 with large ones in between; return the ids of the good."""
    assert isinstance(producer.exchange, aio_pika.Exchange)
    channel = await producer.exchange.channel.get_underlay_channel()
    properties = EncodedOnce(headers=headers, delivery_mode=2)
    names: list[str] = []
    for index, body in enumerate(large):
        if index % EVERY == 0 or len(large) < EVERY:
            names.append(str(len(names)))
            await producer.send_to_user("42", names[-1:])
        await channel.basic_publish(
            body, exchange=EVENTS, routing_key="user.42", properties=properties
        )
    await producer.send_to_user("42", [str(len(names))])
    return [*names, str(len(names))]


@pytest.mark.parametrize(
    ("count", "size"),
    [(6, 100 * MB), (40, 15 * MB), (300, MIB)],
    ids=["6 of 100 MB", "40 of 15 MB", "300 of 1 MiB"],
)
async def test_large_entries_become_dead_letters_within_the_charts_memory_and_good_ones_delivered(
    tmp_path: Path, amqp_url: str, redis_url: str, count: int, size: int
) -> None:
    backends = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_REDIS_URL": redis_url}
    router = Role("router", tmp_path / "router.log", **backends)
    with running(router), Redis.from_url(redis_url) as redis:
        async with stopped(router, amqp_url) as producer:
            good = await send_between_good_ones(producer, [b"x" * size] * count)

        wait_until(
            lambda: len(history(redis)) >= len(good) and kept(router) >= count,
            seconds=120,
            otherwise=router.log_tail,
        )

        letters = await dead_letters(amqp_url, count)
        assert history(redis) == good
        assert router.peak_memory < memory_limit()
    assert {len(letter.body) for letter in letters} == {MIB if size == MIB else KEPT_OF_LARGER}
    sizes = {letter.headers.get("notifier-size", len(letter.body)) for letter in letters}
    assert sizes == {size}


@pytest.mark.parametrize(
    ("headers", "letters"), [(EXPENSIVE, 0), (MANY, 130)], ids=["nested", "many"]
)
async def test_headers_that_are_costly_to_decode_hold_up_nobody(
    tmp_path: Path, amqp_url: str, redis_url: str, headers: FieldTable, letters: int
) -> None:
    backends = {"NOTIFIER_AMQP_URL": f"{amqp_url}?heartbeat=2", "NOTIFIER_REDIS_URL": redis_url}
    router = Role("router", tmp_path / "router.log", **backends)
    with running(router), Redis.from_url(redis_url) as redis:
        async with stopped(router, amqp_url) as producer:
            large = [b'{"type":"t","users":["43"],"id":"%d"}' % number for number in range(130)]
            good = await send_between_good_ones(producer, large, headers=headers)

        wait_until(
            lambda: len(history(redis)) >= len(good) and kept(router) >= letters,
            seconds=60,
            otherwise=router.log_tail,
        )

        found = await dead_letters(amqp_url, letters)
        assert history(redis) == good
        assert router.metric("notifier_reconnects_total", backend="rabbitmq") == 0
    reasons = {letter.headers["notifier-error"] for letter in found}
    assert reasons <= {"properties: at most 1000 headers are taken here"}


@pytest.mark.long
async def test_while_redis_hangs_large_entries_wait_in_rabbitmq_and_none_is_delivered_again(
    tmp_path: Path, amqp_url: str
) -> None:
    with RedisServer() as server, Redis.from_url(server.url) as redis:
        backends = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_REDIS_URL": server.url}
        router = Role("router", tmp_path / "router.log", **backends)
        with running(router):
            async with stopped(router, amqp_url) as producer:
                good = await send_between_good_ones(producer, [b"x" * MIB] * 300)
                server.pause()
            # Longer than RabbitMQ waits for whoever takes nothing, and aiormq for heartbeats.
            await asyncio.sleep(60)

            server.resume()

            wait_until(
                lambda: len(history(redis)) >= len(good), seconds=120, otherwise=router.log_tail
            )
            assert history(redis) == good
            assert router.peak_memory < memory_limit()
            assert router.metric("notifier_reconnects_total", backend="rabbitmq") == 0
