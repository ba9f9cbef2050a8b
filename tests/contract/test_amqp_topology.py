"""The topology of RabbitMQ's adapter: made, found as it is, or named as unfit."""

from contextlib import suppress
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import aiormq
import httpx
import pytest
from aiormq import spec
from aiormq.abc import AbstractConnection

from notifier.adapters.rabbitmq.topology import definitions, topology
from notifier.core.background import Background
from notifier.core.entries import Entry
from tests.support.amqp import (
    connected_queue,
    event_queue,
    event_source,
    next_batch,
    publish,
    take,
    user_without_rights,
)
from tests.support.eventually import eventually
from tests.support.tls import NO_AUTHORITIES

pytestmark = pytest.mark.services


async def test_a_queue_of_an_older_version_is_taken_as_it_is(amqp_url: str) -> None:
    older = {
        name: value
        for name, value in topology(1).queues[-1].arguments.items()
        if name != "x-delivery-limit"
    }
    async with aiormq.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.queue_declare("notifier.events.0", durable=True, arguments=older)

    async with connected_queue(amqp_url) as queue, event_source(amqp_url) as source:
        await queue.put(Entry(b"{}", "user.42"))

        assert len(await take(source, 1)) == 1


@pytest.mark.parametrize("partitions", [1, 3])
async def test_the_definitions_file_makes_every_queue_that_the_adapter_needs(
    amqp_url: str, amqp_management_url: str, partitions: int
) -> None:
    file = definitions(partitions, urlsplit(amqp_url).path[1:])
    async with httpx.AsyncClient(
        base_url=amqp_management_url, timeout=30, verify=NO_AUTHORITIES
    ) as management:
        (await management.post("/api/definitions", json=file)).raise_for_status()

    with user_without_rights(amqp_url, amqp_management_url) as url:
        async with event_queue(url, partitions) as queue, event_source(url, partitions) as source:
            await eventually(lambda: queue.trouble is None, seconds=20)
            await queue.put(Entry(b"{}", "user.42"))
            assert len(await take(source, 1)) == 1
    async with connected_queue(amqp_url, partitions) as queue:
        await queue.put(Entry(b"{}", "user.42"))


class Confirmed:
    """A foreign producer with confirms and without `mandatory`, which comes back for ever."""

    def __init__(self, url: str) -> None:
        self.bodies: list[bytes] = []
        self._url = url

    async def publish_on(self) -> None:
        for number in count():
            with suppress(aiormq.AMQPError, OSError, RuntimeError):
                async with aiormq.connect(self._url) as connection:
                    await self._publish_over(connection, number)

    async def _publish_over(self, connection: AbstractConnection, number: int) -> None:
        while not connection.is_closed:
            channel = await connection.channel()
            with suppress(aiormq.ChannelNotFoundEntity, aiormq.ChannelInvalidStateError):
                for again in count():
                    body = f"{number} {len(self.bodies)} {again}".encode()
                    await channel.basic_publish(
                        body, exchange="notifier.events", routing_key="user.42"
                    )
                    self.bodies.append(body)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_no_confirmed_entry_is_lost_while_the_topology_is_made(
    amqp_url: str, partitions: int
) -> None:
    producers = [Confirmed(amqp_url) for _ in range(3)]
    async with Background() as background:
        for producer in producers:
            background.start(producer.publish_on(), "producer")
        async with connected_queue(amqp_url, partitions):
            await eventually(lambda: all(len(producer.bodies) > 20 for producer in producers))

    confirmed = {body for producer in producers for body in producer.bodies}
    async with event_source(amqp_url, partitions) as source:
        taken: set[bytes] = set()
        batches = source.batches()
        while confirmed - taken:
            batch = await next_batch(batches)
            taken |= {delivery.entry.body for delivery in batch.deliveries}
            await batch.ack()


@pytest.mark.parametrize(
    "declaration",
    [
        {"exchange_type": "topic", "durable": True},
        {"exchange_type": "topic", "durable": False, "auto_delete": True},
        {"exchange_type": "topic", "durable": True, "arguments": {"alternate-exchange": "x"}},
        {"exchange_type": "fanout", "durable": True},
    ],
    ids=["ordinary", "transient", "other alternate", "fanout"],
)
async def test_an_exchange_that_a_producer_declared_first_is_taken_as_it_is(
    amqp_url: str, declaration: dict[str, Any]
) -> None:
    async with aiormq.connect(amqp_url) as connection:
        await (await connection.channel()).exchange_declare("notifier.events", **declaration)

        async with connected_queue(amqp_url) as queue:
            await queue.put(Entry(b"in the queue", "user.42"))
            channel = await connection.channel()
            await channel.queue_unbind("notifier.events.0", "notifier.entries")
            await publish(amqp_url, b"unroutable", spec.Basic.Properties())

            async with event_source(amqp_url) as source:
                taken = await take(source, 2)
    assert {entry.body for entry in taken} == {b"in the queue", b"unroutable"}


async def test_an_exchange_that_passes_nothing_on_is_named(amqp_url: str) -> None:
    async with aiormq.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.exchange_declare("notifier.events", exchange_type="direct", durable=True)

    async with event_source(amqp_url) as source:
        await eventually(lambda: "the exchange notifier.events is not" in str(source.trouble))


async def test_a_queue_of_another_kind_is_named(amqp_url: str) -> None:
    async with aiormq.connect(amqp_url) as connection:
        await (await connection.channel()).queue_declare("notifier.events.0", durable=True)

    async with event_source(amqp_url) as source:
        await eventually(lambda: "the queue notifier.events.0 is not" in str(source.trouble))
