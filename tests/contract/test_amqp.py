"""What RabbitMQ's adapter promises beyond the port: through failures, and to foreign clients."""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import aiormq
import httpx
import pytest
from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from notifier.adapters.memory.roster import MemoryRoster
from notifier.adapters.rabbitmq.amqp_delivery import AmqpDelivery
from notifier.adapters.rabbitmq.backlog import watched_backlog
from notifier.adapters.rabbitmq.connection import ConnectedAdapter, Reconnector
from notifier.adapters.rabbitmq.probe import PublishPermission
from notifier.adapters.rabbitmq.queue import AmqpEventQueue
from notifier.adapters.rabbitmq.source import AmqpEventSource
from notifier.adapters.rabbitmq.topology import definitions, topology
from notifier.core.background import Background
from notifier.core.entries import Entry
from notifier.core.errors import Expired, Invalid, Rejected, TooLarge, Unavailable
from notifier.core.ports import Batch, Delivery
from notifier.core.undelivered import HandedBack, Reason
from notifier.telemetry.metrics import Metrics
from tests.support.eventually import eventually
from tests.support.process import free_port
from tests.support.services import Broker, Container, RabbitServer, fresh_vhost, version_of
from tests.support.tls import expiry, expiry_of, tls_in_front_of

pytestmark = pytest.mark.services


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def event_queue(url: str, partitions: int = 1, metrics: Metrics | None = None) -> AmqpEventQueue:
    return AmqpEventQueue(url, partitions=partitions, metrics=metrics or Metrics())


@asynccontextmanager
async def connected_queue(url: str, partitions: int = 1) -> AsyncIterator[AmqpEventQueue]:
    """Wait for the connection: a put would, but only for a second."""
    async with event_queue(url, partitions) as queue:
        await eventually(lambda: queue.trouble is None, seconds=20)
        yield queue


def event_source(url: str, partitions: int = 1, metrics: Metrics | None = None) -> AmqpEventSource:
    roster = MemoryRoster()
    return AmqpEventSource(url, partitions=partitions, roster=roster, metrics=metrics or Metrics())


async def next_batch(batches: AsyncIterator[Batch], seconds: float = 20) -> Batch:
    return await asyncio.wait_for(anext(batches), seconds)


async def take(source: AmqpEventSource, count: int) -> list[Entry]:
    """Take and ack so many different entries; what comes again counts once."""
    taken: dict[bytes, Entry] = {}
    batches = source.batches()
    while len(taken) < count:
        batch = await next_batch(batches)
        for delivery in batch.deliveries:
            taken.setdefault(delivery.entry.body, delivery.entry)
        with suppress(Unavailable):
            await batch.ack()
    return list(taken.values())


async def dead_letter(url: str) -> DeliveredMessage:
    """Wait for one in the queue of dead letters."""
    found: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        await channel.basic_consume("notifier.dead", found.put, no_ack=True)
        return await asyncio.wait_for(found.get(), 10)


def headers_of(message: DeliveredMessage) -> dict[str, Any]:
    return dict(message.header.properties.headers or {})


async def publish(
    url: str,
    body: bytes,
    properties: spec.Basic.Properties,
    key: str = "user.42",
    exchange: str = "notifier.events",
) -> None:
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        await channel.basic_publish(body, exchange=exchange, routing_key=key, properties=properties)


def foreign_publish(url: str, body: str, *options: str | bytes) -> None:
    """Publish with a client that is not ours, which sends bytes as they are."""
    subprocess.run(["amqp-publish", "--url", url, "-b", body, "-p", *options], check=True)


def grant(url: str, management_url: str, *, write: str = ".*", read: str = ".*") -> None:
    """Give the user of `user_without_rights` these rights, and no others."""
    vhost = urlsplit(url).path[1:]
    rights = {"configure": "", "write": write, "read": read}
    with httpx.Client(base_url=management_url, timeout=30) as management:
        path = f"/api/permissions/{vhost}/reader-{vhost}"
        management.put(path, json=rights).raise_for_status()


@contextmanager
def user_without_rights(
    url: str, management_url: str, *, write: str = ".*", read: str = ".*"
) -> Iterator[str]:
    """The URL of a user who may read and write, and make nothing."""
    name = f"reader-{urlsplit(url).path[1:]}"
    with httpx.Client(base_url=management_url, timeout=30) as management:
        account = {"password": "secret", "tags": ""}
        management.put(f"/api/users/{name}", json=account).raise_for_status()
        grant(url, management_url, write=write, read=read)
        address = urlsplit(url)
        yield address._replace(netloc=f"{name}:secret@{address.hostname}:{address.port}").geturl()
        management.delete(f"/api/users/{name}").raise_for_status()


# Foreign producers.


async def test_an_entry_of_a_foreign_client_arrives(amqp_url: str) -> None:
    async with event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
        body = '{"text":"hello"}'

        await asyncio.to_thread(
            foreign_publish, amqp_url, body, "-e", "notifier.events", "-r", "user.42"
        )

        assert await take(source, 1) == [Entry(b'{"text":"hello"}', "user.42")]


@pytest.mark.parametrize("said", [True, -1, 10**18, "yesterday"])
async def test_a_moment_of_acceptance_that_cannot_be_is_not_believed(
    amqp_url: str, said: object
) -> None:
    async with event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
        headers: Any = {"notifier-accepted": said}

        await publish(amqp_url, b"{}", spec.Basic.Properties(headers=headers))

        [entry] = await take(source, 1)
    assert entry.accepted == 0.0


async def test_header_bytes_become_text_where_they_are_text(amqp_url: str) -> None:
    async with event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
        headers: Any = {"text": bytearray(b"caf\xc3\xa9"), "bytes": bytearray(b"caf\xe9")}

        await publish(amqp_url, b"{}", spec.Basic.Properties(headers=headers))

        [entry] = await take(source, 1)
    assert entry.headers == {"text": "café", "bytes": b"caf\xe9"}


async def test_properties_that_nobody_can_read_become_a_dead_letter_and_the_next_entry_flows(
    amqp_url: str,
) -> None:
    latin_1 = ("-C", "caf\xe9".encode("latin-1"))
    to_events = ("-e", "notifier.events", "-r", "user.42")
    async with event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
        await asyncio.to_thread(foreign_publish, amqp_url, "bad", *to_events, *latin_1)
        batch = await next_batch(source.batches())

        with pytest.raises(Invalid, match=r"properties: .*UTF-8"):
            _ = batch.deliveries[0].entry
        await batch.dead_letter(batch.deliveries[0], "unreadable", "properties: not UTF-8")
        await batch.ack()

        assert (await dead_letter(amqp_url)).body == b"bad"
        await asyncio.to_thread(foreign_publish, amqp_url, "good", *to_events)
        assert await take(source, 1) == [Entry(b"good", "user.42")]


async def test_a_routing_key_that_is_no_text_arrives_with_question_marks(amqp_url: str) -> None:
    key = "user.andré".encode("latin-1")
    async with event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)

        await asyncio.to_thread(foreign_publish, amqp_url, "{}", "-e", "notifier.events", "-r", key)

        assert await take(source, 1) == [Entry(b"{}", "user.andr?")]


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

        await batch.dead_letter(batch.deliveries[0], "unreadable", "x" * 1000)

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
            await batch.dead_letter(batch.deliveries[-1], "unreadable", "not JSON")

    assert (await dead_letter(amqp_url)).body == batch.deliveries[-1].entry.body


async def test_headers_that_leave_no_room_for_ours_are_left_out(amqp_url: str) -> None:
    properties = spec.Basic.Properties(headers={"large": "x" * 130_900})
    async with event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
        await publish(amqp_url, b"not JSON", properties)
        batch = await next_batch(source.batches())

        await batch.dead_letter(batch.deliveries[0], "unreadable", "not JSON")

        letter = await dead_letter(amqp_url)
    assert letter.body == b"not JSON"
    assert headers_of(letter)["notifier-reason"] == "unreadable"


# What RabbitMQ itself puts aside.


def put_aside(metrics: Metrics, reason: str) -> float | None:
    return metrics.registry.get_sample_value("notifier_put_aside_total", {"reason": reason})


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
    async with httpx.AsyncClient(base_url=management_url, timeout=30) as management:
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
        await batch.dead_letter(batch.deliveries[0], expired.value.code, str(expired.value))
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
            await batch.dead_letter(batch.deliveries[0], "rejected", str(rejected.value))
            await batch.ack()

    letter = await dead_letter(amqp_url)
    assert letter.body == b"rejected"
    assert headers_of(letter)["x-first-death-queue"] == "notifier.events.0"
    assert put_aside(metrics, "rejected") == 1


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


# Partitions.


async def test_batches_of_several_partitions_are_open_at_once(amqp_url: str) -> None:
    async with connected_queue(amqp_url, 3) as queue, event_source(amqp_url, 3) as source:
        for user in range(30):
            await queue.put(Entry(b"{}", f"user.{user}"))
        batches = source.batches()

        keys = [
            {delivery.entry.routing_key for delivery in (await next_batch(batches)).deliveries}
            for _ in range(3)
        ]

    assert not keys[0] & keys[1]
    assert not keys[1] & keys[2]
    assert not keys[0] & keys[2]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (3, 1)])
async def test_another_number_of_partitions_means_no_lost_and_no_duplicate_entry(
    amqp_url: str, before: int, after: int
) -> None:
    async with connected_queue(amqp_url, before) as queue:
        for number in range(50):
            await queue.put(Entry(str(number).encode(), f"user.{number}"))

    async with event_source(amqp_url, after) as source:
        await eventually(lambda: source.trouble is None)
        async with connected_queue(amqp_url, after) as queue:
            for number in range(50, 100):
                await queue.put(Entry(str(number).encode(), f"user.{number}"))
            await queue.put(Entry(b"last", "user.last"))
        batches = source.batches()
        taken: list[bytes] = []
        while len(taken) < 101:
            batch = await next_batch(batches)
            taken += [delivery.entry.body for delivery in batch.deliveries]
            await batch.ack()

    assert sorted(taken) == sorted([b"last", *(str(number).encode() for number in range(100))])


# What it tells.


def backlog(metrics: Metrics, queue: str) -> float | None:
    return metrics.registry.get_sample_value("notifier_backlog_entries", {"queue": queue})


async def test_the_backlog_of_each_queue_is_told_and_forgotten_with_the_connection(
    amqp_url: str, metrics: Metrics
) -> None:
    async with connected_queue(amqp_url) as queue:
        await asyncio.gather(*(queue.put(Entry(b"{}", "user.42")) for _ in range(300)))
    async with event_source(amqp_url, metrics=metrics) as source:
        batch = await next_batch(source.batches())
        await batch.dead_letter(batch.deliveries[0], "invalid", "an example")
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


async def test_the_expiry_of_the_certificate_is_told(
    amqp_url: str, metrics: Metrics, tmp_path: Path
) -> None:
    authority, plain = tmp_path / "authority.pem", urlsplit(amqp_url)
    async with tls_in_front_of(plain.port or 5672, authority) as port:
        place = f"{plain.username or 'guest'}:{plain.password or 'guest'}@127.0.0.1:{port}"
        url = f"amqps://{place}{plain.path}?cafile={authority}"
        async with event_queue(url, metrics=metrics) as queue:
            await eventually(lambda: queue.trouble is None)

    assert expiry(metrics, "rabbitmq") == expiry_of(authority)


# Topology.


@pytest.mark.parametrize("partitions", [1, 3])
async def test_the_definitions_file_makes_every_queue_that_the_adapter_needs(
    amqp_url: str, amqp_management_url: str, partitions: int
) -> None:
    file = definitions(partitions, urlsplit(amqp_url).path[1:])
    async with httpx.AsyncClient(base_url=amqp_management_url, timeout=30) as management:
        (await management.post("/api/definitions", json=file)).raise_for_status()

    with user_without_rights(amqp_url, amqp_management_url) as url:
        async with event_queue(url, partitions) as queue, event_source(url, partitions) as source:
            await eventually(lambda: queue.trouble is None, seconds=20)
            await queue.put(Entry(b"{}", "user.42"))
            assert len(await take(source, 1)) == 1
    async with connected_queue(amqp_url, partitions) as queue:
        await queue.put(Entry(b"{}", "user.42"))


async def test_the_rights_that_the_documents_name_are_enough(
    amqp_url: str, amqp_management_url: str
) -> None:
    async with connected_queue(amqp_url) as queue, event_source(amqp_url) as source:
        await eventually(lambda: source.trouble is None)
    posts = {"write": r"^notifier\.events$", "read": "^$"}
    takes = {
        "write": r"^notifier\.(dead|waiting|undelivered)$",
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


async def test_without_the_right_to_declare_a_missing_queue_the_remedy_is_named(
    amqp_url: str, amqp_management_url: str
) -> None:
    with user_without_rights(amqp_url, amqp_management_url) as url:
        async with event_queue(url) as queue:
            with pytest.raises(Unavailable, match="unroutable is missing"):
                await queue.put(Entry(b"{}", "user.42"))

            assert "`notifier topology`" in str(queue.trouble)
            assert "secret" not in str(queue.trouble)


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
        # What is unroutable may all have come before the loss is even noticed.
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


# Rights.


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
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel(publisher_confirms=False)
            await PublishPermission("notifier.events", "everyone").exercise(channel)

        async with event_source(amqp_url) as source:
            batches = source.batches()
            batch = await next_batch(batches)
            await batch.ack()
            with pytest.raises(TimeoutError):
                await next_batch(batches, 1)
    assert [delivery.entry.body for delivery in batch.deliveries] == [b"the only one"]


# Connections.


async def test_entering_does_not_wait_for_rabbitmq_and_a_put_says_that_it_is_away() -> None:
    away = f"amqp://guest:secret@127.0.0.1:{free_port()}/"

    async with event_queue(away) as queue, event_source(away) as source:
        with pytest.raises(Unavailable, match="not connected to RabbitMQ"):
            await asyncio.wait_for(queue.put(Entry(b"{}", "user.42")), 3)

        await eventually(lambda: "Connect call failed" in f"{queue.trouble}")
        await eventually(lambda: "Connect call failed" in f"{source.trouble}")
        assert "secret" not in f"{queue.trouble} {source.trouble}"


async def test_the_next_host_is_tried_when_one_is_away(amqp_url: str) -> None:
    away = f"amqp://guest:guest@127.0.0.1:{free_port()}/"

    async with event_queue(f"{away}, {amqp_url}") as queue:
        await eventually(lambda: queue.trouble is None)


async def test_an_error_of_the_body_comes_out_as_it_is(amqp_url: str) -> None:
    with pytest.raises(KeyError):
        async with event_queue(amqp_url):
            raise KeyError


async def test_it_can_be_left_at_any_moment_of_connecting(amqp_url: str) -> None:
    async def enter_and_leave(turns: int) -> None:
        async with event_source(amqp_url, 3):
            for _ in range(turns):
                await asyncio.sleep(0)

    for turns in range(0, 3000, 60):
        await asyncio.wait_for(enter_and_leave(turns), 10)


async def test_a_defect_in_the_background_ends_the_body(amqp_url: str) -> None:
    async def break_down(_: object) -> None:
        raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        async with ConnectedAdapter(Reconnector(amqp_url, "test", Metrics(), break_down)):
            await asyncio.Event().wait()

    assert caught.group_contains(KeyError)


# Failures, on a RabbitMQ of its own.


class ControlledRabbit(RabbitServer):
    """One with `control`, which is rabbitmqctl."""

    def _environment(self, home: Path) -> dict[str, str]:
        self._env = super()._environment(home)
        return self._env

    def control(self, *arguments: str) -> None:
        if isinstance(self._runner, Container):
            self._runner._container.exec(["rabbitmqctl", *arguments])  # noqa: SLF001
            return
        unwrapped = "/usr/lib/rabbitmq/bin/rabbitmqctl"
        program = unwrapped if Path(unwrapped).exists() else "rabbitmqctl"
        subprocess.run(
            [program, *arguments], env={**os.environ, **self._env}, check=True, capture_output=True
        )


async def test_rabbitmq_sets_a_router_no_time_limit_for_its_acks(
    amqp_url: str, amqp_management_url: str
) -> None:
    with httpx.Client(base_url=amqp_management_url, timeout=30) as management:

        def limits() -> set[int | None]:
            consumers = management.get(f"/api/consumers/{urlsplit(amqp_url).path[1:]}").json()
            return {each["arguments"].get("x-consumer-timeout") for each in consumers}

        async with event_source(amqp_url):
            await eventually(lambda: limits() == {2**31 - 1})


@pytest.fixture(scope="module")
def rabbit() -> Iterator[ControlledRabbit]:
    with ControlledRabbit() as server:
        yield server


@contextmanager
def low_memory(rabbit: ControlledRabbit) -> Iterator[None]:
    rabbit.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        rabbit.control("set_vm_memory_high_watermark", "0.4")


async def put_for_ever(queue: AmqpEventQueue) -> None:
    """RabbitMQ tells a connection of an alarm only when it publishes."""
    while True:
        await queue.put(Entry(b"before the alarm", "user.42"))


async def in_thread(call: Callable[..., object], *arguments: object) -> None:
    await asyncio.to_thread(call, *arguments)


@contextmanager
def larger_frames(rabbit: ControlledRabbit) -> Iterator[None]:
    """Let connections that are made now agree to frames of 64 MiB, as an operator may."""
    set_to = "application:set_env(rabbit, frame_max, {})."
    rabbit.control("eval", set_to.format(64 * 1024 * 1024))
    try:
        yield
    finally:
        rabbit.control("eval", set_to.format(131_072))


async def test_properties_over_the_largest_frame_are_cut_off_and_cost_no_good_entry(
    rabbit: ControlledRabbit,
) -> None:
    large = spec.Basic.Properties(headers={"x": bytearray(20_000_000)})
    with fresh_vhost(Broker(rabbit.url, rabbit.management_url)) as url, larger_frames(rabbit):
        async with event_source(url) as source:
            await eventually(lambda: source.trouble is None)
            await publish(url, b"{}", large)
            await publish(url, b'{"type":"good"}', spec.Basic.Properties())

            batches, found = source.batches(), list[Delivery]()
            while len(found) < 2:
                batch = await next_batch(batches)
                found += batch.deliveries
                await batch.ack()

            bad, good = found
            assert isinstance(bad, AmqpDelivery)
            assert len(bad.message.properties) < 131_072
            with pytest.raises(TooLarge, match="properties: at most 131052 bytes"):
                _ = bad.entry
            assert good.entry.body == b'{"type":"good"}'


async def test_low_memory_refuses_puts_at_once_while_the_source_drains(
    rabbit: ControlledRabbit,
) -> None:
    with fresh_vhost(Broker(rabbit.url, rabbit.management_url)) as url:
        async with event_queue(url) as queue:
            for number in range(200):
                await queue.put(Entry(str(number).encode(), "user.42"))

            with low_memory(rabbit):
                with pytest.raises(Unavailable, match="memory"):
                    await put_for_ever(queue)
                with pytest.raises(Unavailable, match="memory"):
                    await asyncio.wait_for(queue.put(Entry(b"{}", "user.42")), 1)
                assert "memory" in str(queue.trouble)
                async with event_source(url) as source:
                    assert len(await take(source, 200)) == 200

            await eventually(lambda: queue.trouble is None)
            await queue.put(Entry(b"{}", "user.42"))


async def test_a_source_stays_ready_while_low_memory_blocks_its_dead_letters(
    rabbit: ControlledRabbit,
) -> None:
    with fresh_vhost(Broker(rabbit.url, rabbit.management_url)) as url:
        async with event_queue(url) as queue:
            await queue.put(Entry(b"{}", "user.42"))
        with low_memory(rabbit):
            async with event_source(url) as source:
                batch = await anext(source.batches())

                for _ in range(3):
                    with pytest.raises(Unavailable, match="memory"):
                        await batch.dead_letter(batch.deliveries[0], "invalid", "a reason")

                await eventually(lambda: source.trouble is None)


async def test_a_hung_rabbitmq_holds_up_neither_puts_nor_leaving(rabbit: ControlledRabbit) -> None:
    entry = Entry(b"x" * 60_000, "user.42")  # so that many fill all buffers on the way

    async def put_to_a_hung_one(url: str) -> list[BaseException | None]:
        async with event_queue(url) as queue:
            await queue.put(entry)
            rabbit.pause()
            puts = asyncio.gather(*(queue.put(entry) for _ in range(100)), return_exceptions=True)
            return await asyncio.wait_for(puts, 11)

    with fresh_vhost(Broker(rabbit.url, rabbit.management_url)) as url:
        try:
            outcomes = await asyncio.wait_for(put_to_a_hung_one(url), 20)
        finally:
            rabbit.resume()

        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        async with event_queue(url) as queue:
            await eventually(lambda: queue.trouble is None)


async def test_no_confirmed_entry_is_lost_when_rabbitmq_is_killed_and_both_ends_recover(
    rabbit: ControlledRabbit,
) -> None:
    metrics = Metrics()
    url = rabbit.url
    async with event_queue(url) as queue, event_source(url, metrics=metrics) as source:
        await eventually(lambda: queue.trouble is None and source.trouble is None)
        confirmed = 0
        declared = time.monotonic()
        # RabbitMQ 3.10 can wedge a queue when killed within 2 s of declaring it.
        while time.monotonic() < declared + 2.5:
            await queue.put(Entry(b"event %d" % confirmed, "user.42"))
            confirmed += 1
        lost = await next_batch(source.batches())

        await in_thread(rabbit.kill)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(queue.put(Entry(b"meanwhile", "user.42")), 11)
        with pytest.raises(Unavailable):
            await lost.ack()
        assert "not connected to RabbitMQ" in f"{queue.trouble}"
        assert "not connected to RabbitMQ" in f"{source.trouble}"
        await in_thread(rabbit.start)

        taken = [entry.body for entry in await take(source, confirmed)]
        events = [body for body in taken if body.startswith(b"event")]
        assert events == [b"event %d" % number for number in range(confirmed)]
        await eventually(lambda: queue.trouble is None and source.trouble is None)
    sample = metrics.registry.get_sample_value("notifier_reconnects_total", {"backend": "rabbitmq"})
    assert sample
