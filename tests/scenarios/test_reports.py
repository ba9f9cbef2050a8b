"""Delivery reports reach a consumer of RabbitMQ, whatever happens to the router meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractQueueIterator

from tests.support.clients import connected
from tests.support.commands import Listener, run
from tests.support.producers import http_producer
from tests.support.proxy import Proxy
from tests.support.roles import KEY, running, service_of, token

EVENT = {"type": "t", "source": "shop", "report": True}


@asynccontextmanager
async def consumer(url: str) -> AsyncIterator[AbstractQueueIterator]:
    """A consumer as any backend has one: a queue of its own, bound to the exchange."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("shop.reports", durable=True)
        await queue.bind("notifier.reports", "#")
        async with queue.iterator(no_ack=True) as messages:
            yield messages


async def read_reports(messages: AbstractQueueIterator, count: int) -> dict[str, str]:
    """Return so many different reports, by their id."""
    found: dict[str, str] = {}
    async with asyncio.timeout(90):
        async for message in messages:
            report = json.loads(message.body)
            kind, user = report["type"].removeprefix("notifier."), report["data"]["user"]
            assert report["data"] == {"user": user, "source": "shop", "id": f"of-{user}"}
            assert message.routing_key == f"{kind}.user.{user}"
            assert message.message_id == report["id"]
            found[report["id"]] = message.routing_key
            if len(found) == count:
                break
    return found


async def test_each_step_is_reported_though_the_router_is_killed(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    service = service_of(tmp_path, amqp_url, redis_url)
    with running(service.router, service.api, service.gateway):
        async with (
            consumer(amqp_url) as messages,
            http_producer(service.api.api_url) as producer,
            connected(service.gateway.gateway_url, token("42")) as client,
        ):
            await producer.send({**EVENT, "users": ["42"], "id": "of-42"})
            await producer.send({**EVENT, "users": ["away"], "id": "of-away", "ttl": 1})
            frame = await client.next("event")
            assert frame["ack"] is True
            await client.send(type="mark", received=frame["position"])
            await client.next("marked")
            service.router.kill()
            await asyncio.to_thread(service.router.start)
            await client.send(type="mark", read=frame["position"])
            await client.next("marked")

            found = await read_reports(messages, 5)

    assert set(found.values()) == {
        *("published.user.42", "received.user.42", "read.user.42"),
        *("published.user.away", "expired.user.away"),
    }


def test_a_person_reads_reports_with_the_command(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    service = service_of(tmp_path, amqp_url, redis_url)
    wanted = ("--user", "a.b", "--report", "expired", "--count", "1")
    reports = Listener(
        tmp_path / "reports.log", *wanted, command="reports", NOTIFIER_AMQP_URL=amqp_url
    )
    with running(service.router, service.api), reports:
        reports.wait_for("waiting for reports")
        for user in ("a", "a.b"):
            event = ("--user", user, "--ttl", "1", "--report")
            sent = run("send", "--url", service.api.api_url, "--key", KEY.secret, *event)
            assert sent.returncode == 0, sent.stderr
        assert reports.wait() == 0

    [report] = reports.events
    assert (report["type"], report["data"]["user"]) == ("notifier.expired", "a.b")


async def test_the_command_for_reports_ends_when_its_connection_to_rabbitmq_is_lost(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    log, port = tmp_path / "reports.log", urlsplit(amqp_url).port or 0
    async with Proxy(port) as link:
        url = amqp_url.replace(f":{port}/", f":{link.port}/")
        with (
            running(service_of(tmp_path, amqp_url, redis_url).router),
            Listener(log, command="reports", NOTIFIER_AMQP_URL=url) as reports,
        ):
            await asyncio.to_thread(reports.wait_for, "waiting for reports")
            link.cut()
            assert await asyncio.to_thread(reports.wait) == 1
    assert "RabbitMQ: " in log.read_text()
