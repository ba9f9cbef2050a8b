"""The promises of RabbitMQ's adapter beyond the port: its connections, and foreign producers."""

import asyncio
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from aiormq import spec

from notifier.adapters.rabbitmq import deliveries
from notifier.adapters.rabbitmq.connection import ConnectedAdapter, Reconnector
from notifier.core.entries import Entry
from notifier.core.errors import Invalid, Unavailable
from notifier.telemetry.metrics import Metrics
from tests.support.amqp import (
    connected_queue,
    dead_letter,
    event_queue,
    event_source,
    next_batch,
    publish,
    take,
)
from tests.support.batches import make_dead
from tests.support.eventually import eventually
from tests.support.process import free_port
from tests.support.tls import NO_AUTHORITIES, expiry, expiry_of, tls_in_front_of

pytestmark = pytest.mark.services


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def foreign_publish(url: str, body: str, *options: str | bytes) -> None:
    """Publish with a client that is not ours, which sends bytes as they are."""
    subprocess.run(["amqp-publish", "--url", url, "-b", body, "-p", *options], check=True)


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
        await make_dead(batch, batch.deliveries[0], "unreadable", "properties: not UTF-8")
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


async def test_a_standstill_while_a_source_registers_does_not_stop_a_backlog_over_the_bound(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MOST_HELD", 1024 * 1024)
    async with connected_queue(amqp_url, 3) as queue:
        for number in range(60):
            await queue.put(Entry(b"%d" % number + b"x" * 100_000, f"user.{number}"))

    async with event_source(amqp_url, 3) as source:
        batch = await next_batch(source.batches())
        time.sleep(1.1)  # noqa: ASYNC251  # a standstill, after which RabbitMQ is asked
        assert await asyncio.wait_for(batch.is_ours(), 20)
        taken = len(batch.deliveries)
        await batch.ack()
        taken += len(await take(source, 60 - taken))
        await eventually(lambda: source.trouble is None)


# Connections.


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


async def test_rabbitmq_sets_a_router_no_time_limit_for_its_acks(
    amqp_url: str, amqp_management_url: str
) -> None:
    with httpx.Client(
        base_url=amqp_management_url, timeout=30, verify=NO_AUTHORITIES
    ) as management:

        def limits() -> set[int | None]:
            consumers = management.get(f"/api/consumers/{urlsplit(amqp_url).path[1:]}").json()
            return {each["arguments"].get("x-consumer-timeout") for each in consumers}

        async with event_source(amqp_url):
            await eventually(lambda: limits() == {2**31 - 1})


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
