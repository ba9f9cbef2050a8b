"""Producers that speak AMQP 1.0: natively to RabbitMQ 4, through its plugin before."""

import gzip
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aio_pika.abc import AbstractQueue

from tests.support.amqp_1_0 import send, take
from tests.support.clients import Client
from tests.support.roles import Service
from tests.support.services import version_of

CLOUD = "application/cloudevents+json"
DATA = {"text": "Grüße"}
CLOUD_EVENT = {"specversion": "1.0", "source": "/s", "type": "t", "subject": "Grüße"}
NEITHER = "body: is neither text nor bytes of AMQP 1.0"

Publish = Callable[..., Awaitable[None]]


@pytest.fixture
def publish(service: Service, amqp_management_url: str) -> Publish:
    """Publish to user 42: `await publish(body, **message)`."""
    version = version_of(amqp_management_url)

    async def to_user(body: object, **message: Any) -> None:  # noqa: ANN401  # as Proton takes them
        await send(service.amqp_url, version, "user.42", body, **message)

    return to_user


@pytest.fixture
def name() -> str:
    """The id of a test's event."""
    return secrets.token_hex(8)


def event_of(name: str) -> str:
    return json.dumps({"type": "t", "id": name, "data": DATA})


def packed(text: str) -> bytes:
    return gzip.compress(text.encode())


@pytest.mark.parametrize(
    ("body_of", "message"),
    [
        (str.encode, {"inferred": True}),
        (str, {}),
        (str.encode, {"inferred": False}),
        (str.encode, {"inferred": True, "content_type": "application/json"}),
        (packed, {"inferred": True, "content_encoding": "gzip"}),
        (str.encode, {"inferred": True, "properties": {"n": 1, "flag": True, "f": 1.5}}),
        (str.encode, {"inferred": True, "durable": True, "priority": 9, "ttl": 60_000}),
        (str.encode, {"inferred": True, "subject": "s", "creation_time": 1_767_225_600}),
    ],
    ids=["data", "text", "bytes", "json", "gzip", "properties", "header", "beside"],
)
async def test_an_event_arrives_whole(
    publish: Publish,
    client: Client,
    name: str,
    body_of: Callable[[str], object],
    message: dict[str, Any],
) -> None:
    await publish(body_of(event_of(name)), **message)

    event = await client.next_event()
    assert (event["id"], event["type"], event["data"]) == (name, "t", DATA)


async def test_the_message_id_is_the_events(publish: Publish, client: Client, name: str) -> None:
    await publish(b'{"type":"t"}', inferred=True, id=name)

    assert (await client.next_event())["id"] == name


async def test_a_structured_cloudevent_arrives_whole(
    publish: Publish, client: Client, name: str
) -> None:
    given = CLOUD_EVENT | {"id": name, "data": 7}

    await publish(json.dumps(given).encode(), inferred=True, content_type=CLOUD)

    assert (await client.next_event()).items() >= given.items()


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_"])
@pytest.mark.parametrize("body", [b'{"n":1}', '{"n":1}'], ids=["data", "text"])
async def test_a_binary_cloudevent_arrives_with_all_its_attributes(
    publish: Publish, client: Client, name: str, prefix: str, body: object
) -> None:
    given = CLOUD_EVENT | {"id": name, "tenant": "a", "count": 7, "urgent": True}
    properties = {prefix + attribute: value for attribute, value in given.items()}

    await publish(body, inferred=True, content_type="application/json", properties=properties)

    event = await client.next_event()
    assert event.items() >= given.items()
    assert event["data"] == {"n": 1}


@pytest.mark.parametrize(
    ("body", "message", "error"),
    [
        ({"type": "t"}, {}, NEITHER),
        (7, {}, NEITHER),
        # As a value RabbitMQ 3 itself refuses a list.
        (["a", 1], {"inferred": True}, NEITHER),
        (b"\xff", {"inferred": True}, "not UTF-8 at byte 0"),
        (b"\x1b", {"inferred": True, "content_encoding": "br"}, "content_encoding: br"),
        (b"1", {"inferred": True, "properties": {"cloudEvents:id": "1"}}, "is missing"),
    ],
    ids=["map", "number", "sequence", "no text", "coding", "attribute"],
)
async def test_a_message_that_is_no_event_becomes_a_dead_letter_with_its_reason(  # noqa: PLR0913, PLR0917  # the table's columns
    publish: Publish,
    dead: AbstractQueue,
    client: Client,
    name: str,
    body: object,
    message: dict[str, Any],
    error: str,
) -> None:
    await publish(body, **message)
    await publish(event_of(name))

    assert (await client.next_event())["id"] == name  # flows on
    async with dead.iterator(no_ack=True, timeout=20) as letters:
        letter = await anext(letters)
    assert error in str(letter.headers["notifier-error"])


async def test_a_message_that_rabbitmq_3_cannot_deliver_is_taken_off_and_the_next_ones_follow(
    publish: Publish, service: Service, amqp_management_url: str, client: Client, name: str
) -> None:
    if version_of(amqp_management_url) >= (4,):
        pytest.skip("RabbitMQ 4 delivers a message-id that is a number")
    await publish(b'{"type":"t"}', inferred=True, id=7)
    await publish(event_of(name))

    taken = await take(service.amqp_url, "notifier.events.0")

    assert taken == "7"
    assert (await client.next_event())["id"] == name
