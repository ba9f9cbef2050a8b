"""The producer over HTTP, against the api itself and against answers that a test gives."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, new_key
from notifier.client import ClientError, NoAnswer, Producer, Refused, SyncProducer
from notifier.core.entries import events_of
from notifier.core.events import LARGEST_BATCH
from notifier.serving import serve
from notifier.telemetry.metrics import Metrics
from tests.support.process import free_port
from tests.support.queues import RecordingQueue

KEY = new_key("shop")
Answer = Callable[[list[dict[str, Any]]], Response]


@asynccontextmanager
async def api(queue: RecordingQueue) -> AsyncIterator[str]:
    app = create_app(queue, Metrics(), ApiKeys((KEY.entry,)))
    async with serve(app, host="127.0.0.1", port=0, setting="X") as port:
        yield f"http://127.0.0.1:{port}"


class Scripted:
    """Gives these answers in turn, then accepts; `bodies` has all that it was sent."""

    def __init__(self, *answers: Response | Answer) -> None:
        self.bodies: list[list[dict[str, Any]]] = []
        self._answers = list(answers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = json.loads(await Request(scope, receive).body())
        events = body if isinstance(body, list) else [body]
        self.bodies.append(events)
        answer: Response | Answer = self._answers.pop(0) if self._answers else accepted
        response = answer if isinstance(answer, Response) else answer(events)
        await response(scope, receive, send)


def accepted(events: list[dict[str, Any]]) -> Response:
    results = [{"status": 202, "id": event["id"]} for event in events]
    return JSONResponse({"results": results} if len(results) > 1 else results[0], 202)


def busy(after: str = "0") -> Response:
    return JSONResponse({"detail": "not confirmed"}, 503, {"retry-after": after})


@asynccontextmanager
async def producer_of(app: ASGIApp, **options: Any) -> AsyncIterator[Producer]:  # noqa: ANN401
    async with (
        serve(app, host="127.0.0.1", port=0, setting="X") as port,
        Producer(f"http://127.0.0.1:{port}", **options) as producer,
    ):
        yield producer


def put(queue: RecordingQueue) -> list[tuple[object, object]]:
    events = [event for entry in queue.entries for event in events_of(entry, 0)]
    return [(event.type, event.id) for event in events]


async def test_a_post_is_confirmed_by_the_api_and_returns_the_events_id() -> None:
    queue = RecordingQueue()
    async with api(queue) as url, Producer(url, KEY.secret) as producer:
        named = await producer.post("order.paid", users=["42"], id="o-7", data={"order": 7})
        made = await producer.post("order.paid", users=["42"])

    assert named == "o-7"
    assert put(queue) == [("order.paid", "o-7"), ("order.paid", made)]


async def test_events_posted_at_the_same_time_leave_in_one_batch_in_order() -> None:
    scripted = Scripted()
    async with producer_of(scripted) as producer, asyncio.TaskGroup() as tasks:
        for number in range(30):
            tasks.create_task(producer.post("step", users=["42"], id=str(number)))

    sent = [event["id"] for body in scripted.bodies for event in body]
    assert sent == [str(number) for number in range(30)]
    assert len(scripted.bodies) < 5


async def test_a_batch_stays_within_the_bounds_of_the_api() -> None:
    scripted = Scripted()
    large = "x" * 60_000
    async with producer_of(scripted) as producer, asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(producer.post("step", users=["42"], id=str(number), data=large))

    sizes = [sum(len(json.dumps(each)) for each in body) for body in scripted.bodies]
    assert max(sizes) < LARGEST_BATCH
    assert sum(map(len, scripted.bodies)) == 40


async def test_a_retry_has_the_same_id_and_comes_when_the_api_asked_for_it() -> None:
    scripted = Scripted(busy(), Response(status_code=502), busy("1"))
    loop = asyncio.get_running_loop()
    async with producer_of(scripted) as producer:
        begun = loop.time()
        event_id = await producer.post("step", users=["42"])

    assert [event["id"] for [event] in scripted.bodies] == [event_id] * 4
    assert loop.time() - begun >= 1  # Retry-After: never earlier


async def test_of_a_batch_only_the_events_that_were_not_confirmed_are_sent_again() -> None:
    def halfway(_: list[dict[str, Any]]) -> Response:
        results = [{"status": 202, "id": "0"}, {"status": 503, "detail": "x"}]
        return JSONResponse({"results": [*results, {"status": 422, "field": "ttl"}]}, 207)

    scripted = Scripted(halfway)
    async with producer_of(scripted) as producer:
        done = await asyncio.gather(
            *(producer.post("step", users=["42"], id=str(number)) for number in range(3)),
            return_exceptions=True,
        )

    assert done[:2] == ["0", "1"]
    assert isinstance(done[2], Refused)
    assert done[2].field == "ttl"
    assert [[event["id"] for event in body] for body in scripted.bodies] == [["0", "1", "2"], ["1"]]


async def test_a_refused_event_names_its_field_and_is_not_sent_again() -> None:
    queue = RecordingQueue()
    async with api(queue) as url, Producer(url, KEY.secret) as producer:
        with pytest.raises(Refused, match="ttl") as refused:
            await producer.post("order.paid", users=["42"], ttl=-1)
        with pytest.raises(Refused, match="users"):
            await producer.post("order.paid")
    async with api(queue) as url, Producer(url, "wrong") as producer:
        with pytest.raises(Refused, match="API key") as unknown:
            await producer.post("order.paid", users=["42"])

    assert (refused.value.status, refused.value.field) == (422, "ttl")
    assert unknown.value.status == 401
    assert queue.entries == []


async def test_an_event_that_spoils_a_batch_is_refused_alone() -> None:
    queue, deep = RecordingQueue(), "leaf"
    queue.open.clear()
    for _ in range(300):
        deep = [deep]  # type: ignore[assignment] # any JSON
    async with api(queue) as url, Producer(url, KEY.secret) as producer:
        first = asyncio.create_task(producer.post("first", users=["42"], id="first"))
        await queue.taken()
        posts = asyncio.gather(
            *(
                producer.post("step", users=["42"], id=str(number), data=data)
                for number, data in enumerate(["good", deep, "good"])
            ),
            return_exceptions=True,
        )
        queue.open.set()
        done = await posts
        await first

    assert [type(each) for each in done] == [str, Refused, str]
    assert sorted(str(event_id) for _, event_id in put(queue)) == ["0", "2", "first"]


async def test_an_api_that_is_away_is_tried_for_as_long_as_the_patience_lasts() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with Producer(url, patience=0.5) as producer:
        with pytest.raises(NoAnswer, match=r"not confirmed within 0.5 s: nothing answers at"):
            await producer.post("step", users=["42"])


async def test_leaving_waits_for_the_posts_that_are_under_way() -> None:
    queue = RecordingQueue()
    queue.open.clear()
    async with api(queue) as url:
        async with Producer(url, KEY.secret) as producer:
            post = asyncio.create_task(producer.post("step", users=["42"], id="late"))
            await queue.taken()
            asyncio.get_running_loop().call_soon(queue.open.set)

        assert await post == "late"


async def test_an_error_in_the_block_does_not_wait_and_tells_the_posts_under_way() -> None:
    queue = RecordingQueue()
    queue.open.clear()
    posts: list[asyncio.Task[str]] = []

    async def fail(producer: Producer) -> None:
        async with producer:
            posts.append(asyncio.create_task(producer.post("step", users=["42"])))
            await queue.taken()
            raise LookupError

    async with api(queue) as url:
        producer = Producer(url, KEY.secret)
        with pytest.raises(LookupError):
            await fail(producer)

        with pytest.raises(NoAnswer, match="closed"):
            await posts[0]
        with pytest.raises(ClientError, match="not open"):
            await producer.post("step", users=["42"])
        queue.open.set()


async def test_the_twin_without_an_event_loop_is_shared_by_threads() -> None:
    queue = RecordingQueue()

    def work(url: str) -> list[str]:
        with SyncProducer(url, KEY.secret) as producer, ThreadPoolExecutor(4) as threads:
            with pytest.raises(Refused):
                producer.post("order.paid", users=["42"], ttl=-1)
            names = map(str, range(8))
            return list(threads.map(lambda name: producer.post("t", users=["1"], id=name), names))

    async with api(queue) as url:
        posted = await asyncio.to_thread(work, url)

    assert posted == [str(number) for number in range(8)]
    assert sorted(event_id for _, event_id in put(queue)) == posted  # type: ignore[type-var] # texts


@pytest.mark.parametrize("url", ["notifier-api:8001", "ftp://api", ""])
def test_a_malformed_address_is_told_at_once(url: str) -> None:
    with pytest.raises(ClientError, match="http://"):
        Producer(url)


def test_over_amqp_a_source_is_needed_as_it_is_half_of_the_identity() -> None:
    with pytest.raises(ClientError, match="source"):
        Producer("amqp://guest:guest@localhost/")
