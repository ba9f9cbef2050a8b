"""Both ends of the event queue on a real RabbitMQ, and foreign clients beside them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import aiormq
import httpx
from aiormq import spec
from aiormq.abc import DeliveredMessage

from notifier.adapters.memory.roster import MemoryRoster
from notifier.adapters.rabbitmq.queue import AmqpEventQueue
from notifier.adapters.rabbitmq.source import AmqpEventSource
from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.ports import Batch
from notifier.telemetry.metrics import Metrics
from tests.support.eventually import eventually
from tests.support.tls import NO_AUTHORITIES


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


def grant(url: str, management_url: str, *, write: str = ".*", read: str = ".*") -> None:
    """Give the user of `user_without_rights` these rights, and no others."""
    vhost = urlsplit(url).path[1:]
    rights = {"configure": "", "write": write, "read": read}
    with httpx.Client(base_url=management_url, timeout=30, verify=NO_AUTHORITIES) as management:
        path = f"/api/permissions/{vhost}/reader-{vhost}"
        management.put(path, json=rights).raise_for_status()


@contextmanager
def user_without_rights(
    url: str, management_url: str, *, write: str = ".*", read: str = ".*"
) -> Iterator[str]:
    """The URL of a user who may read and write, and make nothing."""
    name = f"reader-{urlsplit(url).path[1:]}"
    with httpx.Client(base_url=management_url, timeout=30, verify=NO_AUTHORITIES) as management:
        account = {"password": "secret", "tags": ""}
        management.put(f"/api/users/{name}", json=account).raise_for_status()
        grant(url, management_url, write=write, read=read)
        address = urlsplit(url)
        yield address._replace(netloc=f"{name}:secret@{address.hostname}:{address.port}").geturl()
        management.delete(f"/api/users/{name}").raise_for_status()
