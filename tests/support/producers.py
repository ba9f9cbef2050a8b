"""Producers of three kinds: over HTTP, over AMQP by a foreign client, and by `amqp-publish`."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aio_pika
import httpx
import pytest
from aio_pika.abc import AbstractExchange

from tests.support.roles import KEY
from tests.support.tls import NO_AUTHORITIES

Body = Mapping[str, Any]


@dataclass(frozen=True)
class HttpProducer:
    """Posts to the producer API."""

    http: httpx.AsyncClient

    async def post(self, body: object, **headers: str) -> httpx.Response:
        """Post whatever `body` is, as JSON unless it is bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json", **headers}
        return await self.http.post("/v1/events", content=content, headers=headers)

    async def send(self, event: Body) -> str:
        """Post an event that must be accepted, and return its id."""
        answer = await self.post(event)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return str(answer.json()["id"])

    async def send_batch(self, events: Sequence[Body]) -> list[str]:
        """Post a batch that must be accepted, and return the ids."""
        answer = await self.post(events)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return [str(result["id"]) for result in answer.json()["results"]]


@asynccontextmanager
async def http_producer(url: str, secret: str = KEY.secret) -> AsyncIterator[HttpProducer]:
    """A producer with an API key."""
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=30, verify=NO_AUTHORITIES
    ) as http:
        yield HttpProducer(http)


@dataclass(frozen=True)
class AmqpProducer:
    """Publishes to the exchange under confirms."""

    exchange: AbstractExchange

    async def send(self, body: object, key: str, **properties: Any) -> None:  # noqa: ANN401  # as aio_pika takes them
        """Return once RabbitMQ has confirmed it."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        properties.setdefault("delivery_mode", aio_pika.DeliveryMode.PERSISTENT)
        await self.exchange.publish(aio_pika.Message(content, **properties), key)

    async def send_to_user(self, user: str, ids: Iterable[str]) -> None:
        """Publish an event of each id, one after another."""
        for name in ids:
            await self.send({"type": "test", "id": name}, f"user.{user}")


@asynccontextmanager
async def amqp_producer(url: str) -> AsyncIterator[AmqpProducer]:
    """A producer that knows nothing of notifier but the exchange's name."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        yield AmqpProducer(await channel.get_exchange("notifier.events"))


async def amqp_publish(url: str, body: object, key: str) -> None:
    """Publish by the program `amqp-publish`."""
    program = shutil.which("amqp-publish")
    if program is None:
        pytest.fail(
            "amqp-publish is missing: install the package amqp-tools (Debian, Ubuntu: apt-get "
            "install amqp-tools; macOS: brew install rabbitmq-c).",
            pytrace=False,
        )
    await asyncio.to_thread(
        subprocess.run,
        [program, f"--url={url}", "--exchange=notifier.events", f"--routing-key={key}"],
        input=json.dumps(body).encode(),
        check=True,
        timeout=30,
    )
