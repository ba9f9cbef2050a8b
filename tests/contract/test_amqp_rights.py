"""The rights of RabbitMQ's users: those that are enough, and those that are missing or taken away.

The probes look as seldom as in production: RabbitMQ remembers the rights of a channel until that
has been idle for a second or more.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.abc import AbstractConnection, DeliveredMessage

from notifier.adapters.rabbitmq import registration
from notifier.adapters.rabbitmq.connection import Connection, connected
from notifier.adapters.rabbitmq.deliveries import Deliveries, UnsettledBytes
from notifier.adapters.rabbitmq.probe import publishing_to
from notifier.adapters.rabbitmq.registration import PREFETCH, consuming_from
from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.reports import DeliveryReport, Report
from notifier.core.undelivered import HandedBack, Reason
from tests.support.amqp import (
    connected_queue,
    event_queue,
    event_source,
    grant,
    next_batch,
    take,
    user_without_rights,
)
from tests.support.eventually import eventually

pytestmark = pytest.mark.services


@asynccontextmanager
async def looking_on(url: str) -> AsyncIterator[tuple[Connection, AbstractChannel]]:
    """A connection as a probe has it, and a channel of it."""
    connection = await connected(url, "test", 10)
    async with connection.closed_within(10):
        yield connection, await connection.channel(publisher_confirms=False)


async def test_the_rights_that_the_documents_name_are_enough(
    amqp_url: str, amqp_management_url: str
) -> None:
    async with connected_queue(amqp_url) as queue, event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
    posts = {"write": r"^notifier\.events$", "read": "^$"}
    takes = {
        "write": r"^notifier\.(dead|waiting|undelivered|reports)$",
        "read": r"^notifier\.(events\.[0-9]+|unroutable|aside)$",
    }
    with user_without_rights(amqp_url, amqp_management_url, **posts) as url:
        async with event_queue(url) as queue:
            await eventually(lambda: queue.trouble is None)
            await queue.put(Entry(b"{}", "user.42"))
            grant(amqp_url, amqp_management_url, **takes)
            async with event_source(url) as source:
                assert len(await take(source, 1)) == 1
                await eventually(lambda: source.trouble is None)
                await source.wait([(Entry(b"{}", "user.42"), 600)])
                await source.hand_back([HandedBack("42", Reason.OFFLINE, b"{}", "1")])
                await source.report([DeliveryReport(Report.READ, "42", b"{}", "1")])


async def test_without_the_right_to_declare_a_missing_queue_the_remedy_is_named(
    amqp_url: str, amqp_management_url: str
) -> None:
    with user_without_rights(amqp_url, amqp_management_url) as url:
        async with event_queue(url) as queue:
            await eventually(lambda: "unroutable is missing" in str(queue.trouble))
            with pytest.raises(Unavailable, match="unroutable is missing"):
                await queue.put(Entry(b"{}", "user.42"))

            assert "`notifier topology`" in str(queue.trouble)
            assert "secret" not in str(queue.trouble)


async def test_a_revoked_right_to_publish_is_a_trouble_until_it_is_granted_again(
    amqp_url: str, amqp_management_url: str
) -> None:
    async with connected_queue(amqp_url):
        pass  # makes the queues
    with user_without_rights(amqp_url, amqp_management_url) as url:
        async with event_queue(url) as queue:
            await eventually(lambda: queue.trouble is None, seconds=20)

            grant(amqp_url, amqp_management_url, write="^other$")
            await eventually(lambda: "notifier.events' in vhost" in str(queue.trouble), seconds=20)
            assert "set_permissions" in str(queue.trouble)

            grant(amqp_url, amqp_management_url)
            await eventually(lambda: queue.trouble is None, seconds=20)


@pytest.mark.parametrize(
    ("rights", "named"),
    [({"read": "^other$"}, "notifier."), ({"write": "^other$"}, "notifier.dead")],
    ids=["read", "write"],
)
async def test_a_router_whose_right_was_taken_away_says_so_and_goes_on(
    amqp_url: str, amqp_management_url: str, rights: dict[str, str], named: str
) -> None:
    async with connected_queue(amqp_url) as queue:
        with user_without_rights(amqp_url, amqp_management_url) as url:
            async with event_source(url) as source:
                await eventually(lambda: source.trouble is None, seconds=20)

                grant(amqp_url, amqp_management_url, **rights)
                await eventually(lambda: f"'{named}" in str(source.trouble), seconds=20)
                assert "set_permissions" in str(source.trouble)
                await queue.put(Entry(b"{}", "user.42"))
                assert len(await take(source, 1)) == 1

                grant(amqp_url, amqp_management_url)
                await eventually(lambda: source.trouble is None, seconds=20)


async def test_looking_whether_it_may_publish_publishes_nothing(amqp_url: str) -> None:
    async with connected_queue(amqp_url) as queue:
        await queue.put(Entry(b"the only one", "user.42"))
        async with looking_on(amqp_url) as (connection, channel):
            await publishing_to("notifier.events", "everyone")(connection, channel)

        async with event_source(amqp_url) as source:
            batches = source.batches()
            batch = await next_batch(batches)
            await batch.ack()
            with pytest.raises(TimeoutError):
                await next_batch(batches, 1)
    assert [delivery.entry.body for delivery in batch.deliveries] == [b"the only one"]


_QUEUE = "notifier.events.0"


async def consume(connection: AbstractConnection, bodies: list[bytes]) -> None:
    """Take entries from the queue into `bodies` and ack none, as a router that waits for Redis."""

    async def keep(message: DeliveredMessage) -> None:
        bodies.append(message.body)

    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=PREFETCH)
    await channel.basic_consume(_QUEUE, keep)


class Dropping(Deliveries):
    """Deliveries that count those that come, though none is kept."""

    dropped = 0

    def on_method(self, method: int, payload: bytes) -> None:
        Dropping.dropped += 1
        super().on_method(method, payload)


async def test_looking_whether_it_may_consume_keeps_the_order_when_the_consumer_goes_meanwhile(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, next_one, register = list[bytes](), list[bytes](), registration.register
    async with connected_queue(amqp_url) as entries:
        for number in range(PREFETCH + 50):
            await entries.put(Entry(b"%d" % number, "user.42"))
    async with (
        aiormq.connect(amqp_url) as consuming,
        aiormq.connect(amqp_url) as waiting,
        looking_on(amqp_url) as (connection, channel),
    ):
        await consume(consuming, first)
        await eventually(lambda: len(first) == PREFETCH)

        async def register_and_inherit(channel: AbstractChannel, name: str) -> None:
            await register(channel, name)
            await consume(waiting, next_one)
            await consuming.close()
            await eventually(lambda: Dropping.dropped == PREFETCH)

        monkeypatch.setattr(registration, "register", register_and_inherit)
        monkeypatch.setattr(registration, "Deliveries", Dropping)
        await consuming_from(lambda: [_QUEUE], UnsettledBytes())(connection, channel)

        await eventually(lambda: len(next_one) == PREFETCH)
    assert first == next_one == [b"%d" % number for number in range(PREFETCH)]
