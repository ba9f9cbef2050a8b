"""RabbitMQ's adapter on a RabbitMQ that is killed, hangs, or has no memory left."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiormq import spec

from notifier.adapters.rabbitmq import publisher
from notifier.adapters.rabbitmq.amqp_delivery import AmqpDelivery
from notifier.adapters.rabbitmq.queue import AmqpEventQueue
from notifier.core.entries import Entry
from notifier.core.errors import TooLarge, Unavailable
from notifier.core.ports import Delivery
from notifier.telemetry.metrics import Metrics
from tests.support.amqp import connected_queue, event_queue, event_source, next_batch, publish, take
from tests.support.batches import make_dead
from tests.support.eventually import eventually
from tests.support.services import RabbitAddress, RabbitServer, fresh_vhost

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


@contextmanager
def low_memory(rabbit: RabbitServer) -> Iterator[None]:
    rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        rabbit.ctl("set_vm_memory_high_watermark", "0.4")


async def put_for_ever(queue: AmqpEventQueue) -> None:
    """RabbitMQ tells a connection of an alarm only when it publishes."""
    while True:
        await queue.put(Entry(b"before the alarm", "user.42"))


@contextmanager
def larger_frames(rabbit: RabbitServer) -> Iterator[None]:
    """Let connections that are made now agree to frames of 64 MiB, as an operator may."""
    set_to = "application:set_env(rabbit, frame_max, {})."
    rabbit.ctl("eval", set_to.format(64 * 1024 * 1024))
    try:
        yield
    finally:
        rabbit.ctl("eval", set_to.format(131_072))


async def test_properties_over_the_largest_frame_are_cut_off_and_cost_no_good_entry(
    rabbit: RabbitServer,
) -> None:
    large = spec.Basic.Properties(headers={"x": bytearray(20_000_000)})
    with (
        fresh_vhost(RabbitAddress(rabbit.url, rabbit.management_url)) as url,
        larger_frames(rabbit),
    ):
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
    rabbit: RabbitServer,
) -> None:
    with fresh_vhost(RabbitAddress(rabbit.url, rabbit.management_url)) as url:
        async with connected_queue(url) as queue:
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
    rabbit: RabbitServer,
) -> None:
    with fresh_vhost(RabbitAddress(rabbit.url, rabbit.management_url)) as url:
        async with connected_queue(url) as queue:
            await queue.put(Entry(b"{}", "user.42"))
        with low_memory(rabbit):
            async with event_source(url) as source:
                batch = await anext(source.batches())

                for _ in range(3):
                    with pytest.raises(Unavailable, match="memory"):
                        await make_dead(batch, batch.deliveries[0], "invalid", "a reason")

                await eventually(lambda: source.trouble is None)


async def test_a_hung_rabbitmq_holds_up_neither_puts_nor_leaving(
    rabbit: RabbitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(b"x" * 60_000, "user.42")  # so that many fill all buffers on the way

    async def put_to_a_hung_one(url: str) -> list[BaseException | None]:
        async with connected_queue(url) as queue:
            await queue.put(entry)
            monkeypatch.setattr(publisher, "_TRY", 1)  # second, of three such
            rabbit.pause()
            puts = asyncio.gather(*(queue.put(entry) for _ in range(100)), return_exceptions=True)
            return await asyncio.wait_for(puts, 11)

    with fresh_vhost(RabbitAddress(rabbit.url, rabbit.management_url)) as url:
        try:
            outcomes = await asyncio.wait_for(put_to_a_hung_one(url), 20)
        finally:
            rabbit.resume()

        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        async with event_queue(url) as queue:
            await eventually(lambda: queue.trouble is None)


async def test_no_confirmed_entry_is_lost_when_rabbitmq_is_killed_and_both_ends_recover(
    rabbit: RabbitServer,
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

        await asyncio.to_thread(rabbit.kill)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(queue.put(Entry(b"meanwhile", "user.42")), 11)
        with pytest.raises(Unavailable):
            await lost.ack()
        assert "not connected to RabbitMQ" in f"{queue.trouble}"
        assert "not connected to RabbitMQ" in f"{source.trouble}"
        await asyncio.to_thread(rabbit.start)

        taken = [entry.body for entry in await take(source, confirmed)]
        events = [body for body in taken if body.startswith(b"event")]
        assert events == [b"event %d" % number for number in range(confirmed)]
        await eventually(lambda: queue.trouble is None and source.trouble is None)
    sample = metrics.registry.get_sample_value("notifier_reconnects_total", {"backend": "rabbitmq"})
    assert sample
