"""Changes that RabbitMQ does not tell, and the adapter looks for: deletions and backlogs."""

import asyncio
from contextlib import suppress
from functools import partial

import aio_pika
import aiormq
import pytest
from aiormq import spec
from aiormq.abc import AbstractConnection

from notifier.adapters.rabbitmq import backlog as backlog_of_queues
from notifier.adapters.rabbitmq import probe
from notifier.adapters.rabbitmq.backlog import watched_backlog
from notifier.core.entries import Entry
from notifier.telemetry.metrics import Metrics
from tests.support.amqp import (
    connected_queue,
    event_queue,
    event_source,
    next_batch,
    publish,
    take,
    user_without_rights,
)
from tests.support.batches import make_dead
from tests.support.eventually import eventually
from tests.support.services import version_of

pytestmark = pytest.mark.services


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look each quarter of a second, not each five: the tests wait for it."""
    monkeypatch.setattr(probe, "_EVERY", 0.25)
    monkeypatch.setattr(backlog_of_queues, "_EVERY", 0.25)


# Deletions.


async def test_a_deleted_queue_is_declared_again_and_entries_put_meanwhile_arrive(
    amqp_url: str,
) -> None:
    metrics = Metrics()
    async with (
        connected_queue(amqp_url) as queue,
        event_source(amqp_url, metrics=metrics) as source,
    ):
        await eventually(lambda: source.trouble is None)

        async with aiormq.connect(amqp_url) as connection:
            await (await connection.channel()).queue_delete("notifier.events.0")
        for number in range(50):
            await queue.put(Entry(str(number).encode(), "user.42"))

        assert len(await take(source, 50)) == 50
        # Unroutable entries may all have come before the loss is even noticed.
        repairs = partial(metrics.registry.get_sample_value, "notifier_topology_repairs_total")
        await eventually(lambda: repairs() == 1)
        await eventually(lambda: source.trouble is None)


@pytest.mark.parametrize("kind", ["exchange", "queues"])
async def test_a_put_declares_a_vanished_exchange_or_queue_again(amqp_url: str, kind: str) -> None:
    async with connected_queue(amqp_url) as queue:
        await queue.put(Entry(b"{}", "user.42"))
        async with aiormq.connect(amqp_url) as connection:
            channel = await connection.channel()
            if kind == "exchange":
                await channel.exchange_delete("notifier.events")
            else:
                await channel.queue_delete("notifier.events.0")
                await channel.queue_delete("notifier.unroutable")

        await queue.put(Entry(b"again", "user.42"))

        async with event_source(amqp_url) as source:
            assert b"again" in {entry.body for entry in await take(source, 1)}


async def exists(connection: AbstractConnection, kind: str, name: str) -> bool:
    channel = await connection.channel()
    look = channel.exchange_declare if kind == "exchange" else channel.queue_declare
    with suppress(aiormq.ChannelNotFoundEntity):
        await look(name, passive=True)
        await channel.close()
        return True
    return False


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("exchange", "notifier.events"),
        ("exchange", "notifier.entries"),
        ("exchange", "notifier.unroutable"),
        ("exchange", "notifier.dead"),
        ("queue", "notifier.dead"),
        ("queue", "notifier.aside"),
    ],
)
async def test_a_router_declares_a_deleted_exchange_or_queue_again_without_a_put(
    amqp_url: str, metrics: Metrics, kind: str, name: str
) -> None:
    async with event_source(amqp_url, metrics=metrics) as source:
        await eventually(lambda: source.trouble is None, seconds=20)
        async with aiormq.connect(amqp_url) as connection:
            channel = await connection.channel()
            delete = channel.exchange_delete if kind == "exchange" else channel.queue_delete
            await delete(name)

            repairs = partial(metrics.registry.get_sample_value, "notifier_topology_repairs_total")
            await eventually(lambda: bool(repairs()), seconds=20)
            await eventually(lambda: source.trouble is None, seconds=20)
            assert await exists(connection, kind, name)


async def test_a_router_makes_a_binding_anew_that_was_taken_away(amqp_url: str) -> None:
    async with event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None, seconds=20)
        async with aiormq.connect(amqp_url) as connection:
            channel = await connection.channel()
            await channel.queue_unbind("notifier.events.0", "notifier.entries")
            await channel.queue_unbind("notifier.unroutable", "notifier.unroutable")

        async def published() -> None:
            async with aiormq.connect(amqp_url) as connection:
                channel = await connection.channel()
                while True:
                    with suppress(aiormq.PublishError):
                        await channel.basic_publish(
                            b"{}",
                            exchange="notifier.events",
                            routing_key="user.42",
                            mandatory=True,
                        )
                        return

        await asyncio.wait_for(published(), 20)


# Backlogs.


def backlog(metrics: Metrics, queue: str) -> float | None:
    return metrics.registry.get_sample_value("notifier_backlog_entries", {"queue": queue})


async def test_the_backlog_of_each_queue_is_told_and_forgotten_with_the_connection(
    amqp_url: str, metrics: Metrics
) -> None:
    async with connected_queue(amqp_url) as queue:
        await asyncio.gather(*(queue.put(Entry(b"{}", "user.42")) for _ in range(300)))
    async with event_source(amqp_url, metrics=metrics) as source:
        batch = await next_batch(source.batches())
        await make_dead(batch, batch.deliveries[0], "invalid", "an example")
        for user in ("42", "7"):  # nobody has bound a queue for them
            await publish(amqp_url, b"{}", spec.Basic.Properties(), user, "notifier.undelivered")

        await eventually(lambda: backlog(metrics, "notifier.events.0") == 100)  # 200 are taken
        await eventually(lambda: backlog(metrics, "notifier.dead") == 1)
        await eventually(lambda: backlog(metrics, "notifier.unclaimed") == 2)
        assert backlog(metrics, "notifier.unroutable") == 0

    assert backlog(metrics, "notifier.events.0") is None


async def test_an_api_tells_the_backlog_while_all_routers_are_dead_and_may_only_write(
    amqp_url: str, amqp_management_url: str, metrics: Metrics
) -> None:
    async with connected_queue(amqp_url) as queue:
        await queue.put(Entry(b"{}", "user.42"))  # makes the queues
    # As docs/operating.md has it.
    only_write = {"write": r"^notifier\.events$", "read": ""}
    if version_of(amqp_management_url) >= (4, 3):
        only_write["read"] = r"^notifier\.(events\.[0-9]+|unroutable|aside|dead)$"
    with user_without_rights(amqp_url, amqp_management_url, **only_write) as url:
        async with event_queue(url, metrics=metrics) as queue:
            await eventually(lambda: queue.trouble is None)
            await queue.put(Entry(b"{}", "user.42"))

            await eventually(lambda: backlog(metrics, "notifier.events.0") == 2)
            await eventually(lambda: backlog(metrics, "notifier.dead") == 0)  # asked last

    assert backlog(metrics, "notifier.events.0") is None


async def test_an_api_that_may_only_write_takes_events_where_rabbitmq_hides_the_queues(
    amqp_url: str, amqp_management_url: str, metrics: Metrics
) -> None:
    async with connected_queue(amqp_url) as queue:
        await queue.put(Entry(b"{}", "user.42"))  # makes the queues
    only_write = {"write": r"^notifier\.events$", "read": ""}
    with user_without_rights(amqp_url, amqp_management_url, **only_write) as url:
        async with event_queue(url, metrics=metrics) as queue:
            await eventually(lambda: queue.trouble is None)
            await queue.put(Entry(b"[]", "user.42"))

            async with event_source(amqp_url) as source:
                assert len(await take(source, 2)) == 2


async def test_a_queue_that_is_gone_has_no_backlog_and_the_others_are_told_on(
    amqp_url: str, metrics: Metrics
) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("first")
        await channel.declare_queue("second")
        await channel.default_exchange.publish(aio_pika.Message(b"{}"), "first")
        async with watched_backlog(connection, ["first", "second"], metrics):
            await eventually(lambda: backlog(metrics, "first") == 1)

            await channel.queue_delete("first")
            await channel.default_exchange.publish(aio_pika.Message(b"{}"), "second")
            await eventually(lambda: backlog(metrics, "second") == 1)
            assert backlog(metrics, "first") is None

            await channel.declare_queue("first")
            await eventually(lambda: backlog(metrics, "first") == 0)
