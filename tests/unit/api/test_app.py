import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, new_key
from notifier.core.entries import ACCEPTED, events_of
from notifier.core.events import Event
from notifier.core.undelivered import WAITED
from notifier.core.watched import WATCHED
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
        self,
        body: object,
        content_type: str = JSON,
        key: str = KEY.secret,
        query: str = "",
        **headers: str,
    ) -> httpx.Response:
        content = body if isinstance(body, bytes | AsyncIterator) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._http.post(
            f"/v1/events?{query}",
            content=content,
            headers={"authorization": f"Bearer {key}", "content-type": content_type} | named,
        )

    async def post_raw(
        self, *lines: tuple[bytes, bytes], content: bytes | None = None, query: str = ""
    ) -> httpx.Response:
        """Post with these lines in the head, byte for byte; a binary CloudEvent unless told."""
        own = (
            [] if content is not None else [(n.encode(), v.encode()) for n, v in ATTRIBUTES.items()]
        )
        key = (b"authorization", b"Bearer " + KEY.secret.encode())
        return await self._http.post(
            f"/v1/events?{query}", content=content or b"", headers=[key, *own, *lines]
        )

    async def options(self, headers: dict[str, str]) -> httpx.Response:
        return await self._http.options("/v1/events", headers=headers)

    @property
    def put(self) -> list[Event]:
        return [event for entry in self.queue.entries for event in events_of(entry, 0.0)]

    def count(self, name: str, **labels: str) -> float:
        return self._metrics.registry.get_sample_value(f"notifier_{name}", labels) or 0


@asynccontextmanager
async def producer(*keys: str) -> AsyncIterator[Producer]:
    queue, metrics = RecordingQueue(), Metrics()
    async with client_of(create_app(queue, metrics, ApiKeys(keys or [KEY.entry]))) as http:
        yield Producer(queue, metrics, http)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://api")


# One event.


async def test_an_event_is_put_and_answered_with_its_id() -> None:
    async with producer() as shop:
        answer = await shop.post(EVENT | {"id": "e1", "data": {"a": 1}})

        assert (answer.status_code, answer.json()) == (202, {"id": "e1"})
        [event] = shop.put
        assert (event.id, event.source, event.users) == ("e1", "shop", ["42"])
        assert shop.count("events_total", stage="accepted") == 1
        assert shop.count("event_age_seconds_count", stage="confirmed") == 1


async def test_openapi_describes_the_way_in_and_needs_no_key() -> None:
    app = create_app(RecordingQueue(), Metrics(), ApiKeys([KEY.entry]))
    transport = httpx.ASGITransport(app)

    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        schema = (await http.get("/openapi.json")).json()

    told = schema["paths"]["/v1/events"]["post"]
    assert list(schema["paths"]) == [
        "/v1/events",
        *(f"/v1/users/{{user}}/{act}" for act in ("disconnect", "revoke")),
        "/v1/users/{user}/events/{event}",
        "/v1/users/{user}",
        "/v1/presence",
    ]
    assert list(told["responses"]) == [
        "202",
        "207",
        "400",
        "401",
        "403",
        "413",
        "415",
        "422",
        "503",
    ]
    assert next(iter(told["requestBody"]["content"])) == "application/json"
    assert told["security"] == [{"key": []}]


async def test_an_event_posted_with_a_slash_at_the_end_is_accepted_without_a_redirect() -> None:
    queue = RecordingQueue()
    transport = httpx.ASGITransport(create_app(queue, Metrics(), ApiKeys([KEY.entry])))

    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        headers = {"authorization": f"Bearer {KEY.secret}"}
        answer = await http.post("/v1/events/", json=EVENT, headers=headers)

    assert answer.status_code == 202


@pytest.mark.parametrize(("docs", "status"), [(True, 200), (False, 404)])
async def test_documentation_is_there_unless_it_is_switched_off(docs: bool, status: int) -> None:  # noqa: FBT001 - a parameter
    app = create_app(RecordingQueue(), Metrics(), ApiKeys([KEY.entry]), docs=docs)
    transport = httpx.ASGITransport(app)

    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        answers = [await http.get(path) for path in ("/docs", "/openapi.json")]

    assert [each.status_code for each in answers] == [status, status]


async def test_the_traceparent_of_a_request_is_that_of_each_event_without_one() -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    own = traceparent.replace("4bf9", "0bf9")
    async with producer() as shop:
        await shop.post(EVENT, traceparent=traceparent)
        await shop.post([EVENT, EVENT | {"traceparent": own}], traceparent=traceparent)

        assert [e.traceparent for e in shop.put] == [traceparent, traceparent, own]


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
        (EVENT | {"id": "x" * 257}, 422, "id"),
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


OURS = (ACCEPTED, WAITED, WATCHED)  # between processes of notifier's own


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/xml", "multipart/form-data", *OURS]
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


@pytest.mark.parametrize("key", ["", "nk_wrong", KEY.entry], ids=["none", "wrong", "the hash"])
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


# Bodies and headers as others send them.


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "identity, gzip"])
async def test_a_compressed_body_is_read(coding: str) -> None:
    async with producer() as shop:
        answer = await shop.post(gzip.compress(json.dumps(EVENT).encode()), content_encoding=coding)

        assert answer.status_code == 202
        assert [event.users for event in shop.put] == [["42"]]


async def test_a_compressed_body_is_the_data_of_a_binary_cloudevent() -> None:
    async with producer() as shop:
        body = gzip.compress(b"\x89PNG")
        await shop.post(body, "image/png", content_encoding="gzip", **ATTRIBUTES)

        assert shop.put[0].data_base64 == b"\x89PNG"


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, br", "gzip, gzip, gzip"])
async def test_another_coding_is_refused_with_the_one_that_is_taken(coding: str) -> None:
    async with producer() as shop:
        answer = await shop.post(EVENT, content_encoding=coding)

        assert (answer.status_code, answer.json()["field"]) == (415, "content_encoding")
        assert answer.headers["accept-encoding"] == "gzip"
        assert shop.queue.entries == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(bytes(20_000_000), mtime=0), 413),
        (gzip.compress(b"{}", mtime=0)[:-1], 400),
        (b"{}", 400),
    ],
)
async def test_a_body_that_is_no_gzip_or_too_large_a_one_is_refused(
    body: bytes, status: int
) -> None:
    async with producer() as shop:
        assert (await shop.post(body, content_encoding="gzip")).status_code == status


@pytest.mark.parametrize(
    "value",
    [
        "Grüße".encode(),
        b"Gr%C3%BC%C3%9Fe",
        b"Gr%c3%bc%C3%9fe",
        b'"Gr%C3%BC%C3%9Fe"',
        b'"Gr\xc3\xbc\\\xc3\x9fe"',
    ],
)
async def test_values_of_headers_are_utf8(value: bytes) -> None:
    async with producer() as shop:
        await shop.post_raw((b"ce-subject", value))

        assert [event.subject for event in shop.put] == ["Grüße"]


@pytest.mark.parametrize("value", ["Grüße".encode("latin-1"), b"Gr%FC%DFe", b"\xff"])
async def test_values_of_headers_that_are_not_utf8_are_refused(value: bytes) -> None:
    async with producer() as shop:
        answer = await shop.post_raw((b"ce-subject", value))

        assert (answer.status_code, answer.json()["field"]) == (422, "subject")
        assert shop.queue.entries == []


async def test_a_content_type_is_utf8_as_it_becomes_an_attribute() -> None:
    given = 'text/plain; title="Grüße"'
    async with producer() as shop:
        await shop.post_raw((b"content-type", given.encode()))
        answer = await shop.post_raw((b"content-type", given.encode("latin-1")))

        assert [event.datacontenttype for event in shop.put] == [given]
        assert (answer.status_code, answer.json()["field"]) == (422, "content_type")


async def test_two_content_types_are_refused() -> None:
    types = (b"content-type", b"text/plain"), (b"content-type", b"application/json")
    async with producer() as shop:
        answer = await shop.post_raw(*types)

        assert (answer.status_code, answer.json()["field"]) == (422, "content_type")


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip,chunked", b"deflate, Chunked"])
async def test_a_body_compressed_on_its_way_is_refused_by_name(coding: bytes) -> None:
    async with producer() as shop:
        answer = await shop.post_raw(
            (b"content-type", b"application/octet-stream"), (b"transfer-encoding", coding)
        )

        assert (answer.status_code, answer.json()["field"]) == (415, "transfer_encoding")
        assert shop.queue.entries == []


async def test_an_attribute_in_two_headers_is_refused() -> None:
    async with producer() as shop:
        answer = await shop.post_raw((b"ce-tenant", b"a"), (b"ce-tenant", b"b"))

        assert (answer.status_code, answer.json()["field"]) == (422, "tenant")


async def test_a_cloudevent_is_known_without_its_content_type() -> None:
    async with producer() as shop:
        single = await shop.post(CLOUDEVENT | {"user": "42"})
        batch = await shop.post([CLOUDEVENT | {"user": "42", "id": "2"}, EVENT | {"id": "3"}])

        assert (single.status_code, batch.status_code) == (202, 202)
        assert [event.id for event in shop.put] == ["1", "2", "3"]


# Senders that cannot choose their body.


@pytest.mark.parametrize(
    ("query", "audience"),
    [
        ("users=1,2&type=paid", {"users": ["1", "2"]}),
        ("topic=news&type=paid&_=1", {"topic": "news"}),
        ("everyone=true&type=paid", {"everyone": True}),
    ],
)
async def test_the_query_may_name_the_audience_of_any_json(
    query: str, audience: dict[str, object]
) -> None:
    async with producer() as shop:
        answer = await shop.post({"detail": 7, "everyone": True}, query=query)

        assert answer.status_code == 202
        [event] = shop.put
        assert event.type == "paid"
        assert {name: getattr(event, name) for name in audience} == audience
        assert json.loads(bytes(event.data or b"")) == {"detail": 7, "everyone": True}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("user=1", "user"),
        ("users=", "users[0]"),
        ("users=a%20b", "users[0]"),
        ("topic=news&users=1", "users"),
        ("everyone=1", "everyone"),
        ("colour=red", "colour"),
        ("type=paid", "type"),
        ("users=1&type=" + "x" * 300, "type"),
        ("users=1&users=2", "users"),
        ("topic=a&topic=b", "topic"),
        ("everyone=true&everyone=true", "everyone"),
        ("users=1&type=a&type=b", "type"),
    ],
)
async def test_a_bad_query_is_a_problem_that_names_the_parameter(query: str, field: str) -> None:
    async with producer() as shop:
        answer = await shop.post(7, query=query)

        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert shop.queue.entries == []


async def test_a_web_hook_is_agreed_to_before_its_first_event() -> None:
    async with producer() as shop:
        answer = await shop.options({"webhook-request-origin": "eventgrid.example"})

        assert answer.status_code == 200
        assert answer.headers["webhook-allowed-origin"] == "eventgrid.example"
        assert answer.headers["webhook-allowed-rate"] == "*"
        assert "POST" in answer.headers["allow"]


async def test_a_sender_that_is_no_web_hook_is_refused_validation() -> None:
    async with producer() as shop:
        plain = await shop.options({})
        bad = await shop.options({"webhook-request-origin": "a b"})

        assert "webhook-allowed-origin" not in {*plain.headers, *bad.headers}
        assert (plain.status_code, bad.status_code) == (200, 422)


# Any body is accepted or refused: nothing is answered by a 500.

TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20)
MEDIA = st.sampled_from([JSON, STRUCTURED, BATCHED, "text/plain", "image/png", "a; charset=x"])
BODIES = st.binary(max_size=40) | st.recursive(
    st.none() | st.integers() | st.floats() | TEXT | st.sampled_from(["1.0", "42", 10**400]),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(st.sampled_from([*CLOUDEVENT, "users", "ttl", "data", "time", "x"]), each)
    ),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode())
NAMES = st.sampled_from(
    [*ATTRIBUTES, "ce-ttl", "ce-time", "ce-everyone", "ce-data", "traceparent", "content-encoding"]
)


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """One for all examples: making it takes longer than its answer."""
    return create_app(RecordingQueue(), Metrics(), ApiKeys([KEY.entry]))


@given(
    body=BODIES | BODIES.map(gzip.compress),
    media=MEDIA | TEXT,
    headers=st.dictionaries(NAMES, TEXT | st.sampled_from(["1.0", "gzip", "%ff", '"', "9" * 400])),
    query=st.sampled_from(["", "users=1", "topic=n&type=t", "everyone=true"]) | TEXT.map(quote),
)
async def test_nothing_is_answered_by_a_500(
    app: FastAPI, body: bytes, media: str, headers: dict[str, str], query: str
) -> None:
    async with client_of(app) as http:
        shop = Producer(RecordingQueue(), Metrics(), http)
        lines = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await shop.post_raw(
            *lines, (b"content-type", media.encode("latin-1")), content=body, query=query
        )

        assert answer.status_code < 500
        assert answer.status_code in (202, 207) or "Expected" not in answer.text


# The log.


async def test_a_refused_post_is_logged_with_producer_address_and_id() -> None:
    with capture_logs() as logs:
        async with producer() as shop:
            await shop.post({"id": "e1", "users": ["42"]})
            await shop.post(b"1", **(ATTRIBUTES | {"ce-source": "%zz"}))
            await shop.post(EVENT, key="nk_wrong")

    lines = [line for line in logs if line["event"] == "event_refused"]
    assert [(each["producer"], each["event_id"], each["client"]) for each in lines] == [
        ("shop", "e1", "127.0.0.1"),
        ("shop", "1", "127.0.0.1"),
        ("", "", "127.0.0.1"),
    ]


async def test_a_batch_with_bad_events_is_one_line_in_the_log() -> None:
    with capture_logs() as logs:
        async with producer() as shop:
            await shop.post([EVENT, {"id": "e1"}, {"id": "e2"}])

    [line] = [line for line in logs if line["event"] == "events_refused"]
    assert (line["count"], line["producer"], line["event_id"]) == (2, "shop", "e1")
