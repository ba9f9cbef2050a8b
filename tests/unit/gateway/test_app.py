import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from notifier.core import frames
from notifier.core.access import Identity
from notifier.core.errors import Unauthorized
from notifier.core.frames import ServerFrame
from notifier.core.positions import Position
from notifier.core.publications import Publication
from notifier.gateway import app, description
from notifier.gateway.entrance import visitor
from notifier.gateway.gateway import Visitor
from notifier.gateway.open_response import OpenResponse, Transport
from notifier.http.exchange import Exchange
from notifier.http.port import Header
from tests.support.gateways import served

ZOE = Identity("zoe", 4e9)


async def zoe() -> Visitor:
    return Visitor(ZOE, (), {})


async def nobody() -> Visitor:
    raise Unauthorized("nobody comes in")


async def test_a_replaced_dependency_names_the_client_on_every_transport() -> None:
    async with served() as it, it.http(None) as http:
        it.app.dependency_overrides[visitor] = zoe
        async with it.client(None) as client:
            hello = await client.next_of("hello")
        polled = (await http.get("/v1/poll")).json()
        history = (await http.get("/v1/history")).json()

    assert hello["user"] == "zoe"
    assert "user:zoe@" in polled["cursor"]
    assert history["more"] is False


async def test_an_error_of_a_replaced_dependency_is_told_in_frames() -> None:
    async with served() as it:
        it.app.dependency_overrides[visitor] = nobody
        async with it.client("ann") as client:
            error = await client.next_of("error")
            code = await client.closed_with()

    assert (error["message"], code) == ("nobody comes in", 4500)


async def test_openapi_describes_every_endpoint_and_needs_no_token() -> None:
    async with served() as it, it.http(None) as http:
        answer = await http.get("/openapi.json")

    schema = answer.json()
    assert sorted(schema["paths"]) == [
        "/v1/history",
        "/v1/marks",
        "/v1/poll",
        "/v1/publish",
        "/v1/sse",
        "/v1/ws",
    ]
    assert names_of(schema, "/v1/poll") == ["topics", "since", "Last-Event-ID", "wait", "marks"]
    assert names_of(schema, "/v1/history") == [
        *("topics", "since", "Last-Event-ID", "limit", "order", "before"),
    ]
    for path in ("sse", "poll", "history"):
        told = schema["paths"][f"/v1/{path}"]["get"]
        no_seat = [] if path == "history" else ["429"]
        assert sorted(told["responses"]) == ["200", "400", "401", "403", *no_seat, "503"]
        assert told["security"] == [{"token": []}, {"cookie": []}]
    assert "Problem" in schema["components"]["schemas"]
    assert "token" in schema["components"]["securitySchemes"]


def names_of(schema: dict[str, Any], path: str) -> list[str]:
    return [each["name"] for each in schema["paths"][path]["get"]["parameters"]]


async def test_the_page_of_documentation_needs_no_token() -> None:
    async with served() as it, it.http(None) as http:
        answer = await http.get("/docs")

    assert answer.status_code == 200
    assert "GET /v1/poll" in answer.text


async def test_a_request_whose_upgrade_a_proxy_dropped_is_told_so() -> None:
    async with served() as it, it.http() as http:
        answer = await http.get("/v1/ws")

    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"
    assert answer.json()["code"] == "upgrade_required"
    assert "a proxy dropped it" in answer.json()["detail"]


class LinesConnection(OpenResponse):
    """A transport as CONTRIBUTING tells to add one: a line of JSON for each frame."""

    transport = "lines"

    def __init__(
        self, exchange: Exchange, cursor: Mapping[str, Position], headers: Iterable[Header]
    ) -> None:
        super().__init__(exchange, cursor, headers)
        self._transport.write(exchange.head(((b"connection", b"close"), *self._headers)))

    @property
    def encode(self) -> Callable[[Publication], bytes]:
        return event_line

    def send(self, frame: ServerFrame) -> None:
        self._note(frame)
        self.write(frames.encode(frame) + b"\n")

    def ping(self) -> bool:
        return False


def event_line(publication: Publication) -> bytes:
    return frames.event_frame(publication) + b"\n"


LINES = Transport("lines", lambda _: LinesConnection, description.follows("Lines.", {}))


async def test_a_transport_is_one_module_and_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "TRANSPORTS", (*app.TRANSPORTS, LINES))
    async with (
        served() as it,
        it.http() as http,
        http.stream("GET", "/v1/lines?topics=news") as answer,
    ):
        lines = answer.aiter_lines()
        hello = json.loads(await anext(lines))
        it.broker.post("news", "e1")
        event = json.loads(await anext(lines))
        await it.gateway.drain()
        rest = [json.loads(line) async for line in lines]

    assert hello["type"] == "hello"
    assert (event["topic"], event["event"]["id"]) == ("news", "e1")
    assert [frame["type"] for frame in rest] == ["bye"]
