import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, new_key
from notifier.core.events import Event
from notifier.core.ingress import events_of
from notifier.telemetry.metrics import Metrics
from tests.support.queues import RecordingQueue

KEY = new_key("shop")
JSON = "application/json"
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
EVENT: dict[str, Any] = {"type": "t", "users": ["42"]}
CLOUDEVENT: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}
ATTRIBUTES = {f"ce-{name}": value for name, value in CLOUDEVENT.items()} | {"ce-user": "42"}


class Producer:
    """A backend service that posts."""

    def __init__(self, queue: RecordingQueue, metrics: Metrics, http: httpx.AsyncClient) -> None:
        self.queue = queue
        self._metrics = metrics
        self._http = http

    async def post(
        self, body: object, content_type: str = JSON, key: str = KEY.secret, **headers: str
    ) -> httpx.Response:
        content = body if isinstance(body, bytes | AsyncIterator) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._http.post(
            "/v1/events",
            content=content,
            headers={"authorization": f"Bearer {key}", "content-type": content_type} | named,
        )

    @property
    def put(self) -> list[Event]:
        return [event for entry in self.queue.entries for event in events_of(entry, 0.0)]

    def count(self, name: str, **labels: str) -> float:
        return self._metrics.registry.get_sample_value(f"notifier_{name}", labels) or 0


@asynccontextmanager
async def producer(*keys: str) -> AsyncIterator[Producer]:
    queue, metrics = RecordingQueue(), Metrics()
    app = create_app(queue, metrics, ApiKeys(keys or [KEY.entry]))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        yield Producer(queue, metrics, http)


# One event.


async def test_an_event_is_put_and_answered_with_its_id() -> None:
    async with producer() as shop:
        answer = await shop.post(EVENT | {"id": "e1", "data": {"a": 1}})

        assert (answer.status_code, answer.json()) == (202, {"id": "e1"})
        [event] = shop.put
        assert (event.id, event.source, event.users) == ("e1", "shop", ["42"])
        assert shop.count("events_total", stage="accepted") == 1
        assert shop.count("event_age_seconds_count", stage="confirmed") == 1


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
async def test_there_is_no_page_but_the_one_way_in(path: str) -> None:
    app = create_app(RecordingQueue(), Metrics(), ApiKeys([KEY.entry]))
    transport = httpx.ASGITransport(app)

    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        answer = await http.get(path)

    assert answer.status_code == 404


async def test_the_traceparent_of_a_request_is_that_of_each_event_without_one() -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with producer() as shop:
        await shop.post(EVENT, traceparent=traceparent)
        await shop.post([EVENT, EVENT | {"traceparent": "its own"}], traceparent=traceparent)

        assert [e.traceparent for e in shop.put] == [traceparent, traceparent, "its own"]


async def test_an_event_without_id_gets_one() -> None:
    async with producer() as shop:
        answer = await shop.post(EVENT)

        assert answer.json() == {"id": shop.put[0].id}


async def test_an_event_is_accepted_only_once_it_is_confirmed() -> None:
    async with producer() as shop:
        shop.queue.open.clear()
        posting = asyncio.create_task(shop.post(EVENT))
        await shop.queue.taken()
        before = posting.done()

        shop.queue.open.set()

        assert (before, (await posting).status_code) == (False, 202)


async def test_an_event_that_is_not_confirmed_is_to_be_posted_again_later() -> None:
    async with producer() as shop:
        shop.queue.away = True

        answer = await shop.post(EVENT)

        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["code"] == "unavailable"
        assert shop.count("events_total", stage="accepted") == 0
        assert shop.count("event_age_seconds_count", stage="confirmed") == 0
        assert shop.count("rejections_total", reason="unavailable") == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"users": ["42"]}, 422, "type"),
        ({"type": "t"}, 422, "users"),
        (EVENT | {"topic": "news"}, 422, "users"),
        (EVENT | {"users": ["1", "a b"]}, 422, "users[1]"),
        (EVENT | {"users": [1]}, 422, "users[0]"),
        (EVENT | {"id": "x" * 129}, 422, "id"),
        (EVENT | {"ttl": 0}, 422, "ttl"),
        (EVENT | {"colour": "red"}, 422, "colour"),
        ({"type": "t", "everyone": False}, 422, "everyone"),
        ({"type": "t", "topic": "a b"}, 422, "topic"),
        (7, 422, None),
        (b"", 400, None),
        (b"{", 400, None),
        (b'{"type":"\xff"}', 400, None),
        (EVENT | {"data": "x" * 65_536}, 413, None),
        (
            json.dumps({"type": "t", "users": ["1"] * 10_001}, separators=(",", ":")).encode(),
            413,
            "users",
        ),
        (b"[" + b" " * 1024 * 1024 + b"]", 413, None),
        ([EVENT] * 1_001, 413, None),
        ([], 422, None),
    ],
)
async def test_bad_input_is_a_problem_that_names_the_field(
    body: object, status: int, field: str | None
) -> None:
    async with producer() as shop:
        answer = await shop.post(body)

        problem = answer.json()
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert (problem["status"], problem.get("field")) == (status, field)
        assert problem.keys() >= {"type", "title", "code", "detail"}
        assert shop.queue.entries == []
        assert shop.count("rejections_total", reason=problem["code"]) == 1


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/xml", "multipart/form-data"]
)
async def test_a_content_type_that_carries_no_event_is_refused(content_type: str) -> None:
    async with producer() as shop:
        answer = await shop.post(EVENT, content_type)

        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_a_content_type_may_have_parameters(content_type: str) -> None:
    async with producer() as shop:
        assert (await shop.post(EVENT, content_type)).status_code == 202


async def test_an_event_of_64_kib_is_accepted_and_understood_by_the_router() -> None:
    room = 64 * 1024 - len(json.dumps(EVENT | {"data": ""}))
    async with producer() as shop:
        answer = await shop.post(EVENT | {"data": "x" * room})

        assert answer.status_code == 202
        assert [event.users for event in shop.put] == [["42"]]


async def test_of_a_body_without_end_no_more_is_read_than_a_batch_may_have() -> None:
    read: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while len(read) < 1_000:
            read.append(64 * 1024)
            yield b" " * read[-1]

    async with producer() as shop:
        answer = await shop.post(endless())

        assert answer.status_code == 413
        assert sum(read) <= 2 * 1024 * 1024


# API keys.


@pytest.mark.parametrize("key", ["", "nk_wrong", KEY.entry])
async def test_without_a_known_key_nothing_is_accepted(key: str) -> None:
    async with producer() as shop:
        answer = await shop.post(EVENT, key=key)

        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert key not in answer.text or not key
        assert shop.queue.entries == []


async def test_without_a_known_key_the_body_is_not_judged() -> None:
    async with producer() as shop:
        assert (await shop.post(b"{", key="nk_wrong")).status_code == 401


async def test_the_keys_name_is_the_source_of_events_that_name_none() -> None:
    other = new_key("billing")
    async with producer(KEY.entry, other.entry) as shop:
        await shop.post(EVENT, key=other.secret)
        await shop.post(EVENT | {"source": "/mine"}, key=other.secret)

        assert [event.source for event in shop.put] == ["billing", "/mine"]


# Batches.


async def test_a_batch_is_answered_item_by_item_in_order() -> None:
    async with producer() as shop:
        answer = await shop.post([EVENT | {"id": str(number)} for number in range(1_000)])

        assert answer.status_code == 202
        assert [item["id"] for item in answer.json()["results"]] == [str(n) for n in range(1_000)]
        assert len(shop.queue.entries) == 1_000


async def test_a_bad_item_does_not_hold_back_the_others() -> None:
    async with producer() as shop:
        answer = await shop.post(
            [EVENT | {"id": "a"}, {"type": "t", "users": [7]}, EVENT | {"id": "b"}]
        )

        assert answer.status_code == 207
        first, second, third = answer.json()["results"]
        assert (first, third) == ({"status": 202, "id": "a"}, {"status": 202, "id": "b"})
        assert (second["status"], second["field"]) == (422, "users[0]")
        assert [event.id for event in shop.put] == ["a", "b"]


async def test_items_that_are_not_confirmed_are_told_apart() -> None:
    async with producer() as shop:
        shop.queue.away = {2}

        answer = await shop.post([EVENT | {"id": "a"}, EVENT | {"id": "b"}])

        assert answer.status_code == 207
        assert [item["status"] for item in answer.json()["results"]] == [202, 503]


async def test_a_batch_of_which_nothing_is_confirmed_is_to_be_posted_again() -> None:
    async with producer() as shop:
        shop.queue.away = True

        answer = await shop.post([EVENT, EVENT])

        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0


async def test_an_item_is_held_to_the_size_of_an_event() -> None:
    async with producer() as shop:
        answer = await shop.post([EVENT | {"data": "x" * 65_536}, EVENT])

        assert [item["status"] for item in answer.json()["results"]] == [413, 202]


# CloudEvents.


async def test_a_structured_cloudevent_is_accepted() -> None:
    async with producer() as shop:
        answer = await shop.post(CLOUDEVENT | {"user": "42"}, STRUCTURED)

        assert answer.json() == {"id": "1"}
        assert shop.put[0].users == ["42"]


async def test_a_batch_of_cloudevents_is_answered_item_by_item() -> None:
    bad = {name: value for name, value in CLOUDEVENT.items() if name != "id"}
    async with producer() as shop:
        answer = await shop.post([CLOUDEVENT | {"topic": "news"}, bad], BATCHED)

        assert [item["status"] for item in answer.json()["results"]] == [202, 422]


async def test_a_binary_cloudevent_is_accepted() -> None:
    async with producer() as shop:
        answer = await shop.post(b'{"a":1}', JSON, **ATTRIBUTES)

        assert answer.json() == {"id": "1"}
        [event] = shop.put
        assert (event.source, event.users, event.datacontenttype) == ("/a", ["42"], JSON)


async def test_attributes_in_headers_are_percent_decoded() -> None:
    async with producer() as shop:
        await shop.post(
            b"", JSON, **(ATTRIBUTES | {"ce-subject": "Euro%20%E2%82%AC%20%F0%9F%98%80"})
        )

        assert shop.put[0].subject == "Euro € 😀"


async def test_data_of_any_kind_is_taken_in_binary_mode() -> None:
    async with producer() as shop:
        await shop.post(b"\x89PNG", "image/png", **ATTRIBUTES)

        assert shop.put[0].data_base64 == b"\x89PNG"


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"ce-id": ""}, "id"),
        ({"ce-user": "a%20b"}, "users[0]"),
        ({"ce-specversion": "0.3"}, "specversion"),
        ({"ce-ttl": '1,"everyone":true'}, "ttl"),
        ({"ce-topic": "news"}, "users"),
    ],
)
async def test_a_bad_attribute_is_named(headers: dict[str, str], field: str) -> None:
    async with producer() as shop:
        answer = await shop.post(b"1", JSON, **(ATTRIBUTES | headers))

        assert answer.status_code in (400, 422)
        assert answer.json()["field"] == field


async def test_data_cannot_smuggle_in_an_audience() -> None:
    async with producer() as shop:
        answer = await shop.post(b'1,"everyone":true', JSON, **ATTRIBUTES)

        assert (answer.status_code, answer.json()["field"]) == (400, "data")
        assert shop.queue.entries == []
