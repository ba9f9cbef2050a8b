"""The client's producer over AMQP, on a real RabbitMQ."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from notifier.adapters.memory.roster import MemoryRoster
from notifier.adapters.rabbitmq.queue import AmqpEventQueue
from notifier.adapters.rabbitmq.source import AmqpEventSource
from notifier.client import NoAnswer, Producer, Refused
from notifier.core.entries import events_of
from notifier.core.events import Event
from notifier.telemetry.metrics import Metrics
from tests.support.eventually import eventually
from tests.support.process import free_port
from tests.support.proxy import Proxy

pytestmark = pytest.mark.services


@asynccontextmanager
async def declared(url: str) -> AsyncIterator[None]:
    """Have the exchange, as the first router or api makes it."""
    async with AmqpEventQueue(url, partitions=1, metrics=Metrics()) as queue:
        await eventually(lambda: queue.trouble is None)
        yield


async def taken(url: str, number: int) -> list[Event]:
    """Take so many events, as a router does."""
    found: list[Event] = []
    source = AmqpEventSource(url, partitions=1, roster=MemoryRoster(), metrics=Metrics())
    async with source, asyncio.timeout(30):
        async for batch in source.batches():
            for delivery in batch.deliveries:
                found += events_of(delivery.entry, 0)
            batch.allow_next()
            await batch.ack()
            if len(found) >= number:
                break
    return found


async def test_events_over_amqp_are_confirmed_and_have_their_identity(amqp_url: str) -> None:
    async with declared(amqp_url), Producer(amqp_url, source="shop") as producer:
        ids = await asyncio.gather(
            producer.post("order.paid", users=["42"], id="o-7", data={"order": 7}),
            producer.post("headline", topic="news", data_base64="aGk="),
            producer.post("sale", everyone=True, ttl=60.0),
            producer.post("moved", users=["1", "2"], silent=True),
        )
        events = await taken(amqp_url, 4)

    assert [event.id for event in events] == list(ids)
    assert ids[0] == "o-7"
    assert {event.source for event in events} == {"shop"}
    assert [event.type for event in events] == ["order.paid", "headline", "sale", "moved"]


async def test_an_event_that_no_router_would_understand_is_refused_at_once(amqp_url: str) -> None:
    async with declared(amqp_url), Producer(amqp_url, source="shop") as producer:
        with pytest.raises(Refused, match="ttl") as refused:
            await producer.post("order.paid", users=["42"], ttl=-1)
        with pytest.raises(Refused, match="users"):
            await producer.post("order.paid")

    assert refused.value.field == "ttl"


async def test_a_retry_over_amqp_goes_on_until_the_exchange_is_there(amqp_url: str) -> None:
    async with Producer(amqp_url, source="shop") as producer:
        post = asyncio.create_task(producer.post("order.paid", users=["42"], id="early"))
        await eventually(lambda: "no exchange" in producer.trouble)
        async with declared(amqp_url):
            assert await asyncio.wait_for(post, 30) == "early"
            [event] = await taken(amqp_url, 1)

    assert event.id == "early"


async def test_a_lost_connection_is_replaced_and_the_event_sent_again(amqp_url: str) -> None:
    address = urlsplit(amqp_url)
    assert address.port is not None
    async with declared(amqp_url), Proxy(address.port) as proxy:
        through = amqp_url.replace(f":{address.port}/", f":{proxy.port}/")
        async with Producer(through, source="shop") as producer:
            await producer.post("step", users=["42"], id="1")
            proxy.silence()
            second = asyncio.create_task(producer.post("step", users=["42"], id="2"))
            proxy.cut()
            proxy.heal()
            await asyncio.wait_for(second, 60)
            events = await taken(amqp_url, 2)

    assert [event.id for event in events[:2]] == ["1", "2"]


async def test_a_rabbitmq_that_is_away_is_no_answer() -> None:
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    async with Producer(url, source="shop", patience=0.5) as producer:
        with pytest.raises(NoAnswer, match="RabbitMQ did not confirm"):
            await producer.post("order.paid", users=["42"])
