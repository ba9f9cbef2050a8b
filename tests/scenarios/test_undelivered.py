"""An event that people do not receive in time is mailed to them, by the worker in `examples`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.clients import Client, connected
from tests.support.eventually import eventually
from tests.support.mailing import mailing
from tests.support.process import Process
from tests.support.producers import http_producer
from tests.support.roles import Service, running, service_of, token
from tests.support.smtp import MailServer


@dataclass(frozen=True)
class House:
    service: Service
    mails: MailServer
    worker: Process

    async def post(self, event_id: str, *users: str, after: float = 10) -> None:
        async with http_producer(self.service.api.api_url) as producer:
            event = {"users": users, "type": "t", "id": event_id, "undelivered_after": after}
            answer = await producer.post({**event, "data": {"of": event_id}})
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Client]:
        async with connected(self.service.gateway.gateway_url, token(user)) as client:
            yield client


async def marks_received(client: Client) -> None:
    """Do as a client library does with an event whose frame asks for it."""
    frame = await client.next("event")
    assert frame["ack"] is True
    await client.send(type="mark", received=frame["position"])
    await client.next("marked")


@pytest.fixture
async def house(tmp_path: Path, amqp_url: str, redis_url: str) -> AsyncIterator[House]:
    service = service_of(tmp_path, amqp_url, redis_url)
    with running(service.router, service.api, service.gateway):
        async with mailing(amqp_url, tmp_path) as (mails, worker):
            yield House(service, mails, worker)


async def test_mail_goes_to_those_who_were_away_though_router_and_worker_are_killed(
    house: House,
) -> None:
    async with house.client("present") as present, house.client("deaf"):
        await house.post("order-7", "present", "away", "deaf")
        await marks_received(present)
        house.service.router.kill()
        house.worker.kill()
        house.mails.refusals = 1
        await asyncio.to_thread(house.service.router.start)
        house.worker.start()

        missed = {"away@example.org", "deaf@example.org"}
        await eventually(lambda: missed <= set(house.mails.receivers), seconds=60)

    # All users of an event are judged together, and the one who is present stands first.
    assert set(house.mails.receivers) == missed
    text = {str(mail["to"]): mail.get_content() for mail in house.mails.mails}
    assert '"of": "order-7"' in text["away@example.org"]
