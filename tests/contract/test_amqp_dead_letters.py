"""Dead letters of RabbitMQ's adapter, and entries that RabbitMQ itself puts aside."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

import aiormq
import httpx
import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel, DeliveredMessage

from notifier.core.entries import Entry
from notifier.core.errors import Expired, Rejected
from notifier.telemetry.metrics import Metrics
from tests.support.amqp import (
    connected_queue,
    dead_letter,
    event_source,
    headers_of,
    next_batch,
    publish,
    take,
    user_without_rights,
)
from tests.support.batches import make_dead
from tests.support.eventually import eventually
from tests.support.tls import NO_AUTHORITIES

pytestmark = pytest.mark.services


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def put_aside(metrics: Metrics, reason: str) -> float | None:
    return metrics.registry.get_sample_value("notifier_put_aside_total", {"reason": reason})


# Dead letters.


async def test_a_dead_letter_keeps_the_original_and_says_why_where_and_when(amqp_url: str) -> None:
    properties = spec.Basic.Properties(
        content_type="text/plain",
        headers={"attempt": 3},
        message_id="7",
        app_id="shop",
        expiration="60000",
    )
    async with event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
        await publish(amqp_url, b"not JSON", properties)
        batch = await next_batch(source.batches())

        await make_dead(batch, batch.deliveries[0], "unreadable", "x" * 1000)

        letter = await dead_letter(amqp_url)
    kept = letter.header.properties
    headers = headers_of(letter)
    assert (letter.body, kept.content_type, kept.message_id, kept.app_id, kept.expiration) == (
        b"not JSON",
        "text/plain",
        "7",
        "shop",
        None,
    )
    assert headers.pop("notifier-time").startswith("20")
    assert headers == {
        "attempt": 3,
        "notifier-reason": "unreadable",
        "notifier-error": "x" * 500,
        "notifier-routing-key": "user.42",
        "notifier-queue": "notifier.events.0",
    }


async def test_a_dead_letter_of_another_user_is_kept(
    amqp_url: str, amqp_management_url: str
) -> None:
    async with connected_queue(amqp_url) as queue:
        await queue.put(Entry(b"first", "user.42"))
    producer = urlsplit(amqp_url).username or "guest"
    await publish(amqp_url, b"second", spec.Basic.Properties(user_id=producer))

    with user_without_rights(amqp_url, amqp_management_url) as url:
        async with event_source(url) as source:
            batch = await next_batch(source.batches())
            await make_dead(batch, batch.deliveries[-1], "unreadable", "not JSON")

    assert (await dead_letter(amqp_url)).body == batch.deliveries[-1].entry.body


async def test_headers_that_leave_no_room_for_ours_are_left_out(amqp_url: str) -> None:
    properties = spec.Basic.Properties(headers={"large": "x" * 130_900})
    async with event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
        await publish(amqp_url, b"not JSON", properties)
        batch = await next_batch(source.batches())

        await make_dead(batch, batch.deliveries[0], "unreadable", "not JSON")

        letter = await dead_letter(amqp_url)
    assert letter.body == b"not JSON"
    assert headers_of(letter)["notifier-reason"] == "unreadable"


# Entries that RabbitMQ puts aside.


async def reject_all(channel: AbstractChannel, queue: str) -> None:
    """Consume as a foreign client that is mistaken."""

    async def reject(message: DeliveredMessage) -> None:
        await channel.basic_reject(message.delivery_tag or 0, requeue=False)

    await channel.basic_consume(queue, reject)


async def set_policy(
    management_url: str, url: str, definition: dict[str, object], pattern: str = ".*"
) -> None:
    """Set a policy, by default on all that there is, as operators have them."""
    policy = {"pattern": pattern, "apply-to": "queues", "priority": 9, "definition": definition}
    vhost = urlsplit(url).path[1:]
    async with httpx.AsyncClient(
        base_url=management_url, timeout=30, verify=NO_AUTHORITIES
    ) as management:
        answer = await management.put(f"/api/policies/{vhost}/foreign", json=policy)
        answer.raise_for_status()


async def deliver_in_vain(url: str, times: int) -> None:
    """Be a router that dies with everything that it has taken, again and again."""
    for _ in range(times):
        taken = asyncio.Event()
        async with aiormq.connect(url) as connection:
            channel = await connection.channel()
            await channel.basic_qos(prefetch_count=200)

            async def take_one(_: DeliveredMessage, taken: asyncio.Event = taken) -> None:
                taken.set()

            await channel.basic_consume("notifier.events.0", take_one)
            with suppress(TimeoutError):
                await asyncio.wait_for(taken.wait(), 5)


async def test_no_number_of_outages_puts_an_entry_aside(amqp_url: str, metrics: Metrics) -> None:
    async with connected_queue(amqp_url) as queue:
        for number in range(30):
            await queue.put(Entry(str(number).encode(), "user.42"))

    await deliver_in_vain(amqp_url, 25)

    async with event_source(amqp_url, metrics=metrics) as source:
        taken = await take(source, 30)
    assert [entry.body for entry in taken] == [str(number).encode() for number in range(30)]
    assert put_aside(metrics, "delivery_limit") == 0


async def test_an_entry_past_a_foreign_delivery_limit_is_still_published(
    amqp_url: str, amqp_management_url: str, metrics: Metrics
) -> None:
    async with connected_queue(amqp_url) as queue:
        await set_policy(amqp_management_url, amqp_url, {"delivery-limit": 2})
        for number in range(30):
            await queue.put(Entry(str(number).encode(), "user.42"))

    await deliver_in_vain(amqp_url, 4)

    async with event_source(amqp_url, metrics=metrics) as source:
        taken = await take(source, 30)
        await eventually(lambda: put_aside(metrics, "delivery_limit") == 30)
    assert [entry.body for entry in taken] == [str(number).encode() for number in range(30)]
    assert {entry.routing_key for entry in taken} == {"user.42"}


async def test_an_entry_that_a_foreign_time_to_live_expires_is_still_published(
    amqp_url: str, amqp_management_url: str, metrics: Metrics
) -> None:
    async with connected_queue(amqp_url) as queue:
        await set_policy(amqp_management_url, amqp_url, {"message-ttl": 1}, r"events\.0$")
        await queue.put(Entry(b"{}", "user.42"))
        async with event_source(amqp_url, metrics=metrics) as source:
            [entry] = await take(source, 1)

    assert entry.routing_key == "user.42"


async def test_an_entry_that_a_foreign_drop_head_drops_is_still_published(
    amqp_url: str, amqp_management_url: str, metrics: Metrics
) -> None:
    async with connected_queue(amqp_url) as queue:
        dropping: dict[str, object] = {"overflow": "drop-head", "max-length": 5}
        await set_policy(amqp_management_url, amqp_url, dropping, r"events\.0$")
        for number in range(20):
            await queue.put(Entry(str(number).encode(), "user.42"))
        async with event_source(amqp_url, metrics=metrics) as source:
            assert len(await take(source, 20)) == 20
            await eventually(lambda: put_aside(metrics, "maxlen") == 15)


async def test_an_entry_that_its_producer_lets_expire_is_a_dead_letter_with_that_reason(
    amqp_url: str,
) -> None:
    async with connected_queue(amqp_url) as queue, event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
        await queue.put(Entry(b"in front", "user.42"))
        batches = source.batches()
        held = await next_batch(batches)
        for number in range(210):  # more than are delivered before the first is acked
            await publish(amqp_url, str(number).encode(), spec.Basic.Properties(expiration="1"))
        batch = await next_batch(batches)
        with pytest.raises(Expired, match="the producer's 1 ms were over") as expired:
            _ = batch.deliveries[0].entry
        await make_dead(batch, batch.deliveries[0], expired.value.code, str(expired.value))
        await held.ack()

    letter = await dead_letter(amqp_url)
    assert headers_of(letter)["notifier-reason"] == "expired"
    assert headers_of(letter)["notifier-routing-key"] == "user.42"
    assert headers_of(letter)["notifier-queue"] == "notifier.events.0"


async def test_an_entry_that_a_foreign_consumer_rejects_is_a_dead_letter_with_that_reason(
    amqp_url: str, metrics: Metrics
) -> None:
    async with connected_queue(amqp_url) as queue, aiormq.connect(amqp_url) as connection:
        await queue.put(Entry(b"rejected", "user.42"))
        await reject_all(await connection.channel(), "notifier.events.0")
        async with event_source(amqp_url, metrics=metrics) as source:
            batch = await next_batch(source.batches())
            with pytest.raises(Rejected) as rejected:
                _ = batch.deliveries[0].entry
            await make_dead(batch, batch.deliveries[0], "rejected", str(rejected.value))
            await batch.ack()

    letter = await dead_letter(amqp_url)
    assert letter.body == b"rejected"
    assert headers_of(letter)["x-first-death-queue"] == "notifier.events.0"
    assert put_aside(metrics, "rejected") == 1
