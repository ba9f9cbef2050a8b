"""The frames of conversations keep the published schemas, on every transport, good and bad.

The schemas are taken strictly: the gateway sends no member that is not described.
"""

import json
import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from contracts.documents import documents
from notifier.core import events
from notifier.core.access import WiderIdentity
from notifier.core.publications import publications_of
from tests.support.gateways import Client, House, served
from tests.support.streams import polled, streamed

Frame = dict[str, Any]
FRAMES = documents()["frames.json"]


def strictly(schema: Frame) -> Frame:
    """Forbid members that are not described, but for extensions of a CloudEvent."""
    told = {**schema}
    if "properties" in schema and "additionalProperties" not in schema:
        told["additionalProperties"] = False
    return told


STRICT = {name: strictly(each) for name, each in FRAMES["$defs"].items()}


def faults(frame: Frame, union: str = "ServerFrame", *, strict: bool = True) -> list[str]:
    schema = {"$ref": f"#/$defs/{union}", "$defs": STRICT if strict else FRAMES["$defs"]}
    return [each.message for each in Draft202012Validator(schema).iter_errors(frame)]


async def test_the_frames_of_a_websocket_are_as_described() -> None:
    async with served() as it:
        allow_all(it)
        async with it.client("all", query="?marks=true&presence=true") as client:
            seen = [await client.next_of("hello")]
            await post(it, "a")
            seen += await until(client, "event")
            await converse(client, seen)
            await client.socket.send("no JSON")
            seen += await until(client, "error")
            await it.gateway.drain()
            seen += await until(client, "bye")

    kinds = {each["type"] for each in seen}
    assert kinds >= {"hello", "event", "marks", "marked", "subscribed", "unsubscribed", "pong"}
    assert kinds >= {"published", "ephemeral", "authenticated", "error", "bye", "gap"}
    assert [(each, faults(each)) for each in seen if faults(each)] == []


async def converse(client: Client, seen: list[Frame]) -> None:
    """Say each frame that a client may say, and keep the answers."""
    said: list[tuple[Frame, str]] = [
        ({"type": "ping"}, "pong"),
        ({"type": "subscribe", "topic": "room:7", "id": 1}, "subscribed"),
        ({"type": "subscribe", "topic": "room:8", "since": "gone.7"}, "gap"),
        ({"type": "mark", "read": seen[-1].get("position", ""), "id": "two"}, "marked"),
        ({"type": "auth", "token": "all", "id": 3}, "authenticated"),
        (
            {"type": "publish", "topic": "room:7", "event": {"type": "t", "id": "1"}, "id": 4},
            "published",
        ),
        (
            {"type": "publish", "topic": "room:7", "event": {"type": "t"}, "ephemeral": True},
            "ephemeral",
        ),
        ({"type": "unsubscribe", "topic": "room:7", "id": 5}, "unsubscribed"),
    ]
    for frame, answer in said:
        assert faults(frame, "ClientFrame") == []
        await client.say(**frame)
        seen += await until(client, answer)


async def test_the_frames_of_the_other_transports_are_as_described() -> None:
    async with served() as it, it.http() as http:
        async with streamed(http, "?marks=true") as stream:
            seen = [(await stream.next_of("hello")).data]
            await post(it, "a")
            seen.append((await stream.next_of("event")).data)
        cursor = (await polled(http))["cursor"]
        await post(it, "b")
        seen += (await polled(http, cursor))["frames"]
        seen += (await http.get("/v1/history")).json()["frames"]
        listed = (await http.get("/v1/history?order=newest")).json()["frames"]

    assert {each["type"] for each in seen} >= {"hello", "event"}
    assert [(each, faults(each)) for each in seen if faults(each)] == []
    assert listed
    assert [each for each in listed if faults(each, "Listed")] == []


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "subscribe"},
        {"type": "subscribe", "topic": "a,b"},
        {"type": "subscribe", "topic": "room:7", "since": "17"},
        {"type": "subscribe", "topic": "room:7", "id": -1},
        {"type": "subscribe", "topic": "room:7", "id": "x" * 65},
        {"type": "unsubscribe", "topic": 7},
        {"type": "auth"},
        {"type": "mark"},
        {"type": "mark", "read": "17"},
        {"type": "publish", "topic": "room:7"},
        {"type": "publish", "topic": "room:7", "event": {"type": "t"}},
        {"type": "publish", "topic": "room:7", "event": {"type": "t", "id": "1", "users": ["4"]}},
        {"type": "publish", "topic": "room:7", "event": {"id": "1"}},
        {"type": "unknown"},
        {},
    ],
    ids=json.dumps,
)
async def test_a_frame_that_the_schemas_refuse_is_refused_by_the_gateway(frame: Frame) -> None:
    async with served() as it:
        allow_all(it)
        async with it.welcomed("all") as client:
            await client.say(**frame)
            error = await client.next_of("error")

    assert faults(frame, "ClientFrame", strict=False)
    assert error["code"] == "invalid"


def allow_all(it: House) -> None:
    later = time.time() + 3600
    it.tokens.table["all"] = WiderIdentity("42", later, ("*",), publish=("*",), presence=("*",))


async def post(it: House, name: str) -> None:
    """Publish an event with all that it may have to user 42, as a router does."""
    now = time.time()
    members = {
        "type": "t",
        "users": ["42"],
        "id": name,
        "data": {"order": 7},
        "subject": "orders/7",
        "ttl": 60,
        "dataschema": "https://shop.example/o.json",
        "extensions": {"shop": True},
    }
    event = events.decode(json.dumps(members).encode())
    [new] = publications_of(events.completed(event, source="/orders", now=now), now)
    await it.broker.publish([new])


async def until(client: Client, kind: str) -> list[Frame]:
    """Return the frames up to the first of a type."""
    seen = [await client.next_frame()]
    while seen[-1]["type"] != kind:
        seen.append(await client.next_frame())
    return seen
