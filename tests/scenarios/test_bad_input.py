"""Bad input is answered with a reason, or becomes a dead letter; the rest flows on."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aio_pika.abc import AbstractQueue

from notifier.core.events import LARGEST_BODY, MOST_USERS
from notifier.core.names import LONGEST_NAME
from tests.support.clients import Client, connected
from tests.support.producers import AmqpProducer, HttpProducer, amqp_producer, http_producer
from tests.support.roles import Service, token

CLOUD = "application/cloudevents+json"
GOOD = {"users": ["42"], "type": "t"}


@pytest.fixture
async def http(service: Service) -> AsyncIterator[HttpProducer]:
    async with http_producer(service.api.api_url) as producer:
        yield producer


@pytest.fixture
async def amqp(service: Service) -> AsyncIterator[AmqpProducer]:
    async with amqp_producer(service.amqp_url) as producer:
        yield producer


# Over HTTP.

CLOUD_EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "user": "42"}
BINARY: dict[str, object] = {
    "cloudEvents:specversion": "1.0",
    "cloudEvents:id": "1",
    "cloudEvents:source": "/s",
    "cloudEvents:type": "t",
}


@pytest.mark.parametrize(
    ("body", "status", "field", "detail"),
    [
        (b"{", 400, None, "not JSON"),
        (b'{"users":["42"],"type":"\xff"}', 400, None, "not UTF-8 at byte 24"),
        (b"", 400, None, "not JSON"),
        (b'"text"', 422, None, "must be an object, not a string"),
        (b"[" * 100_000, 400, None, "JSON"),
        ({"type": "t"}, 422, "users", "name users, topic or everyone"),
        ({"users": ["42"]}, 422, "type", "is missing"),
        ({**GOOD, "topic": "news"}, 422, "users", "not several"),
        ({**GOOD, "users": []}, 422, "users", "at least one"),
        ({**GOOD, "users": "42"}, 422, "users", "must be a list, not a string"),
        ({**GOOD, "users": ["42", "a b"]}, 422, "users[1]", "1 to 128 of the characters"),
        ({**GOOD, "users": ["u" * 129]}, 422, "users[0]", "1 to 128 of the characters"),
        ({**GOOD, "users": ["42"] * 10_001}, 413, "users", "at most 10000 users"),
        ({"type": "t", "topic": "a,b"}, 422, "topic", "1 to 128 of the characters"),
        ({"type": "t", "topic": "n" * 129}, 422, "topic", "1 to 128 of the characters"),
        ({"type": "t", "everyone": False}, 422, "everyone", "can only be true"),
        ({**GOOD, "id": "i" * 257}, 422, "id", "1 to 256 characters"),
        ({**GOOD, "ttl": -1}, 422, "ttl", "more than 0"),
        ({**GOOD, "ttl": 60, "expires": "2030-01-01T00:00:00Z"}, 422, "ttl", "not both"),
        ({**GOOD, "time": "yesterday"}, 422, "time", "must be a moment by RFC 3339"),
        (
            {**GOOD, "colour": "red"},
            422,
            "colour",
            "is not a member of an event; members of your own go into data",
        ),
        ({**GOOD, "data": "x" * 65_536}, 413, None, "at most 65536 bytes"),
        ([], 422, None, "the batch is empty"),
        (b" " * (LARGEST_BODY + 1), 413, None, f"a body has at most {LARGEST_BODY} bytes"),
        ([GOOD] * 1_001, 413, None, "at most 1000 events"),
        (b"[%b]" % (b" " * 1_048_575), 413, None, "at most 1048576 bytes"),
    ],
)
async def test_a_bad_body_gets_a_problem_that_names_the_field(
    http: HttpProducer, body: object, status: int, field: str | None, detail: str
) -> None:
    answer = await http.post(body)

    problem = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem.get("field")) == (status, field)
    assert detail in problem["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "field"),
    [
        (GOOD, {"content-type": "text/plain"}, 415, "content_type"),
        (GOOD, {"content-encoding": "br"}, 415, "content_encoding"),
        ({**CLOUD_EVENT, "specversion": "0.3"}, {"content-type": CLOUD}, 422, "specversion"),
        ({"specversion": "1.0"}, {"content-type": CLOUD}, 422, "id"),
        ({**CLOUD_EVENT, "users": "a,b"}, {"content-type": CLOUD}, 422, "users"),
        ({**CLOUD_EVENT, "Colour": "red"}, {"content-type": CLOUD}, 422, "extensions.Colour"),
        (b"{", {"content-type": CLOUD}, 400, None),
        (b"1", {"ce-specversion": "1.0", "ce-id": "1", "ce-user": "42"}, 422, "source"),
        (
            b"{",
            {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"},
            400,
            "data",
        ),
    ],
)
async def test_a_bad_cloudevent_gets_a_problem_that_names_the_attribute(
    http: HttpProducer, body: object, headers: dict[str, str], status: int, field: str | None
) -> None:
    answer = await http.post(body, **headers)

    assert (answer.status_code, answer.json().get("field")) == (status, field)


async def test_the_bad_ones_of_a_batch_are_named_and_the_good_ones_delivered(
    http: HttpProducer, client: Client
) -> None:
    answer = await http.post([{**GOOD, "id": "a"}, {"users": [1], "type": "t"}, {"type": "t"}, 7])

    results = answer.json()["results"]
    assert answer.status_code == 207
    assert [result["status"] for result in results] == [202, 422, 422, 422]
    assert [result.get("field") for result in results[1:3]] == ["users[0]", "users"]
    assert (await client.next_event())["id"] == "a"


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer nk_not-one-of-them", "Basic c2hvcDpz"]
)
async def test_a_producer_without_an_api_key_is_refused(
    http: HttpProducer, authorization: str
) -> None:
    answer = await http.post(GOOD, authorization=authorization)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "API key" in answer.json()["detail"]


async def test_a_body_without_a_length_is_cut_off_at_the_bound(http: HttpProducer) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b" " * 16_384

    answer = await http.http.post("/v1/events", content=endless())

    assert answer.status_code == 413


# At the bounds.


async def test_the_largest_event_of_all_is_taken_by_both_ways_and_delivered(
    http: HttpProducer, amqp: AmqpProducer, service: Service
) -> None:
    user = "u" * LONGEST_NAME  # ten thousand different ones would fill 655 MB of history
    event = {"type": "t", "users": [user] * MOST_USERS, "id": "1", "data": ""}
    largest = {**event, "data": "x" * (LARGEST_BODY - len(json.dumps(event)))}

    async with connected(service.gateway.gateway_url, token(user)) as client:
        assert await http.send(largest) == "1"
        await amqp.send({**largest, "id": "2"}, "any")

        found = await client.next_events(2)
    assert [(event["id"], event["data"]) for event in found] == [
        ("1", largest["data"]),
        ("2", largest["data"]),
    ]


# Over AMQP.


async def dead_letter(queue: AbstractQueue) -> tuple[bytes, dict[str, Any]]:
    """Wait for a dead letter; its body and headers."""
    async with asyncio.timeout(20), queue.iterator(no_ack=True) as letters:
        letter = await anext(letters)
    return letter.body, dict(letter.headers)


@pytest.mark.parametrize(
    ("body", "key", "properties", "code", "error"),
    [
        (b"\x00\xff", "user.42", {}, "unreadable", "not UTF-8 at byte 1"),
        (b"{", "user.42", {}, "unreadable", "not JSON"),
        (b"{}", "somewhere", {}, "invalid", "type: is missing"),
        (b'{"type":"t"}', "somewhere", {}, "invalid", "give users, topic or everyone in the body"),
        (b'{"type":"t"}', "user.a b", {}, "invalid", "routing key: must be 1 to 128"),
        (b'{"type":"t"}', "user.", {}, "invalid", "routing key: must be 1 to 128"),
        (b'{"type":"t","users":["a","b c"]}', "", {}, "invalid", "users[1]: must be 1 to 128"),
        (
            b'[{"type":"t","users":["a"]},{"type":1}]',
            "",
            {},
            "invalid",
            "[1].type: must be a string",
        ),
        (json.dumps("x" * 65_536).encode(), "user.42", {}, "too_large", "at most 65536 bytes"),
        (
            b"\x80\x04K\x01.",
            "user.42",
            {"content_type": "application/x-python-serialize", "content_encoding": "binary"},
            "unsupported_type",
            "content_type: application/x-python-serialize",
        ),
        (
            b"\x1b",
            "user.42",
            {"content_encoding": "br"},
            "unsupported_coding",
            "content_encoding: br",
        ),
        (
            b"BZh9",
            "user.42",
            {"content_encoding": "utf-8", "headers": {"compression": "application/x-bz2"}},
            "unsupported_coding",
            "content_encoding: application/x-bz2 is not taken; send gzip",
        ),
        (
            b"{}",
            "user.42",
            {"content_encoding": "gzip"},
            "unreadable",
            "content_encoding: the body",
        ),
        (
            b"{}",
            "user.42",
            {"headers": {**BINARY, "cloudEvents:subject": bytearray(b"Gr\xfc\xdfe")}},
            "invalid",
            "subject: is not UTF-8",
        ),
        (
            b"{}",
            "user.42",
            {"headers": {**BINARY, "cloudEvents:source": "%zz"}},
            "invalid",
            "source: must be a URI reference",
        ),
        (b'{"id":"1"}', "user.42", {"content_type": CLOUD}, "invalid", "specversion: is missing"),
        (
            b"1",
            "user.42",
            {"headers": {"cloudEvents:specversion": "1.0", "cloudEvents:id": "1"}},
            "invalid",
            "source: is missing",
        ),
    ],
)
async def test_an_entry_that_cannot_be_understood_becomes_a_dead_letter_with_the_reason(  # noqa: PLR0913, PLR0917  # the table's columns
    amqp: AmqpProducer,
    dead: AbstractQueue,
    client: Client,
    body: bytes,
    key: str,
    properties: dict[str, Any],
    code: str,
    error: str,
) -> None:
    await amqp.send(body, key, **properties)

    kept, headers = await dead_letter(dead)
    assert kept == body
    assert headers["notifier-reason"] == code
    assert error in headers["notifier-error"]
    assert headers["notifier-routing-key"] == key
    assert headers["notifier-queue"] == "notifier.events.0"
    await amqp.send({"text": "flows on"}, "user.42")
    assert (await client.next_event())["data"] == {"text": "flows on"}


async def test_the_headers_that_a_dead_letter_came_with_are_kept(
    amqp: AmqpProducer, dead: AbstractQueue
) -> None:
    await amqp.send(b"{", "user.42", headers={"trace": "abc"}, message_id="m-1", app_id="crm")

    _, headers = await dead_letter(dead)
    assert headers["trace"] == "abc"


async def test_any_json_can_be_data_when_the_routing_key_names_the_audience(
    amqp: AmqpProducer, client: Client
) -> None:
    await amqp.send([1, 2], "user.42", type="numbers", app_id="crm", message_id="m-2")

    event = await client.next_event()
    assert (event["id"], event["source"], event["type"]) == ("m-2", "crm", "numbers")
    assert event["data"] == [1, 2]


async def test_compressed_bodies_come_through_by_both_ways(
    http: HttpProducer, amqp: AmqpProducer, client: Client
) -> None:
    packed = gzip.compress(json.dumps({**GOOD, "data": "Grüße"}).encode())

    await http.post(packed, **{"content-encoding": "gzip"})
    await amqp.send(packed, "any", content_encoding="gzip")

    assert [event["data"] for event in await client.next_events(2)] == ["Grüße", "Grüße"]


async def test_text_in_headers_comes_through_by_both_ways(
    http: HttpProducer, amqp: AmqpProducer, client: Client
) -> None:
    raw = {"ce-id": "2", "ce-subject": "Grüße"}
    encoded = {"ce-subject": "Gr%C3%BC%C3%9Fe"}
    attributes = {f"ce-{name}": value for name, value in CLOUD_EVENT.items()}

    await http.post(b"1", **attributes, **encoded)
    await http.http.post(
        "/v1/events",
        content=b"1",
        headers=[(n.encode(), v.encode()) for n, v in (attributes | raw).items()],
    )
    await amqp.send(
        b"1", "user.42", headers={**BINARY, "cloudEvents:id": "3", "cloudEvents:subject": "Grüße"}
    )

    assert [event["subject"] for event in await client.next_events(3)] == ["Grüße"] * 3


async def test_cloudevents_come_through_by_every_binding(
    http: HttpProducer, amqp: AmqpProducer, client: Client
) -> None:
    def event(name: str) -> dict[str, str]:
        return {**CLOUD_EVENT, "id": name}

    def attributes(name: str, prefix: str) -> dict[str, str]:
        return {prefix + key: value for key, value in event(name).items()}

    await http.post(event("http-structured"), **{"content-type": CLOUD})
    await http.post([event("http-batched")], **{"content-type": CLOUD.replace("+", "-batch+")})
    await http.post({"n": 1}, **attributes("http-binary", "ce-"))
    await amqp.send(event("amqp-structured"), "any", content_type=CLOUD)
    await amqp.send({"n": 1}, "any", headers=attributes("amqp-binary", "cloudEvents:"))
    await amqp.send({"n": 1}, "any", headers=attributes("amqp-binary_", "cloudEvents_"))
    await amqp.send({"n": 1}, "any", headers=attributes("rabbitmq-binary", "ce-"))

    assert [event["id"] for event in await client.next_events(7)] == [
        "http-structured",
        "http-batched",
        "http-binary",
        "amqp-structured",
        "amqp-binary",
        "amqp-binary_",
        "rabbitmq-binary",
    ]
