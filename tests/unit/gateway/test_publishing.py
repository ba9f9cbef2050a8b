import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from notifier.core.access import Identity, WiderIdentity
from notifier.core.rate_limit import RateLimit
from notifier.gateway.admission import Capacity
from notifier.gateway.websocket import WebSocketConnection
from tests.support.eventually import eventually
from tests.support.gateways import House, served
from tests.support.streams import polled, streamed

MESSAGE = {"type": "chat.message", "id": "m1", "data": {"text": "hi"}}
ROOM = "?topics=room:7"


@asynccontextmanager
async def chatting(**options: Any) -> AsyncIterator[House]:  # noqa: ANN401  # of `served`
    """A gateway where ann may publish to rooms, and bob may follow them."""
    async with served(**options) as it:
        later = time.time() + 3600
        it.tokens.table |= {
            "ann": WiderIdentity("42", later, ("room:*",), publish=("room:*", "user:*")),
            "bob": Identity("43", later, ("room:*",)),
        }
        yield it


async def test_followers_get_the_event_of_a_client_and_it_gets_the_position() -> None:
    async with chatting() as it, it.client("bob", query=ROOM) as bob, it.welcomed() as ann:
        await bob.next_of("hello")
        await ann.say(type="publish", topic="room:7", event=MESSAGE, id=9)

        answer = await ann.next_of("published")
        frame = await bob.next_of("event")

        assert it.count("notifier_client_events_total", outcome="published") == 1
    assert answer == {"type": "published", "position": frame["position"], "id": 9}
    assert (frame["topic"], frame["event"]["source"]) == ("room:7", "user:42")
    assert frame["event"]["data"] == {"text": "hi"}


async def test_a_repeat_is_answered_by_the_same_position_and_delivered_once() -> None:
    async with chatting() as it, it.client("bob", query=ROOM) as bob, it.welcomed() as ann:
        await bob.next_of("hello")
        answers = []
        for event in (MESSAGE, {**MESSAGE, "id": "m2"}, MESSAGE):
            await ann.say(type="publish", topic="room:7", event=event)
            answers.append((await ann.next_of("published"))["position"])
        async with it.http() as http:
            body = {"topic": "room:7", "event": MESSAGE}
            answers.append((await http.post("/v1/publish", json=body)).json()["position"])
        it.broker.post("room:7", "last")

        ids = [(await bob.next_of("event"))["event"]["id"] for _ in range(3)]

    assert answers[0] == answers[2] == answers[3] != answers[1]
    assert ids == ["m1", "m2", "last"]


async def test_an_ephemeral_event_reaches_followers_of_now_on_every_transport() -> None:
    typing = {"type": "typing"}
    async with (
        chatting() as it,
        it.client("bob", query=ROOM) as bob,
        it.welcomed() as ann,
        it.http("bob") as http,
        streamed(http, ROOM) as stream,
    ):
        await bob.next_of("hello")
        cursor = (await stream.next_of("hello")).id
        await ann.say(type="publish", topic="room:7", event=typing, ephemeral=True, id=9)

        assert await ann.next_of("published") == {"type": "published", "id": 9}
        frame = await bob.next_of("ephemeral")
        told = await stream.next_of("ephemeral")
        assert (told.data, told.id) == (frame, None)
        assert (await polled(http, str(cursor), wait=0))["frames"] == []  # it has no history
        assert it.broker.published == []
    assert "position" not in frame
    assert (frame["topic"], frame["event"]["source"]) == ("room:7", "user:42")


async def test_a_long_poll_under_way_is_answered_by_an_ephemeral_event() -> None:
    async with chatting() as it, it.http("bob") as http, it.http() as anns:
        cursor = (await polled(http, "", wait=0))["cursor"]
        cursor += f",room:7@{it.broker.head('room:7')}"
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(polled(http, cursor), name="poll")
            await eventually(lambda: any(it.gateway.hub.followers("room:7")))
            body = {"topic": "room:7", "event": {"type": "typing"}, "ephemeral": True}
            assert (await anns.post("/v1/publish", json=body)).json() == {"type": "published"}
        frames = answer.result()["frames"]
    assert [frame["type"] for frame in frames] == ["ephemeral"]


@pytest.mark.parametrize(
    ("frame", "code", "message"),
    [
        ({"topic": "news"}, "forbidden", "the token does not allow publishing to topic news"),
        ({"topic": "user:43"}, "forbidden", "clients publish neither to everyone nor to personal"),
        ({"topic": "user:42"}, "forbidden", "clients publish neither to everyone nor to personal"),
        ({"topic": "everyone"}, "forbidden", "clients publish neither to everyone nor to personal"),
        ({"topic": "*gateways"}, "invalid", "topic: must be"),
        ({"topic": None}, "invalid", "topic: must be a string, not null"),
        ({"event": {**MESSAGE, "source": "user:43"}}, "invalid", "event.source: is decided on by"),
        ({"event": {"type": "t"}}, "invalid", "event.id: is missing"),
        ({"event": "hi"}, "invalid", "event: must be an object, not a string"),
        ({"ephemeral": 1}, "invalid", "ephemeral: must be true or false, not a whole number"),
    ],
)
async def test_a_publish_that_is_not_allowed_is_refused_on_every_transport(
    frame: dict[str, object], code: str, message: str
) -> None:
    asked = {"topic": "room:7", "event": MESSAGE, **frame}
    async with chatting() as it, it.welcomed() as ann, it.http() as http:
        await ann.say(type="publish", id=7, **asked)
        error = await ann.next_of("error")
        answer = await http.post("/v1/publish", json=asked)

        assert it.broker.published == []
    assert (error["code"], error["id"]) == (code, 7)
    assert error["message"].startswith(message)
    status = {"forbidden": 403, "invalid": 400}[code]
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"].startswith(message)


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_a_token_without_the_claim_publishes_nothing(*, ephemeral: bool) -> None:
    asked = {"topic": "room:7", "event": MESSAGE, "ephemeral": ephemeral}
    async with chatting() as it, it.welcomed("bob") as bob, it.http("bob") as http:
        await bob.say(type="publish", id=7, **asked)
        error = await bob.next_of("error")
        answer = await http.post("/v1/publish", json=asked)

        assert it.broker.published == []
    assert (error["code"], error["id"], answer.status_code) == ("forbidden", 7, 403)


async def test_a_renewed_token_decides_whether_its_client_may_publish() -> None:
    async with chatting() as it, it.welcomed() as ann:
        it.tokens.table["less"] = Identity("42", time.time() + 3600, ("room:*",))
        await ann.say(type="auth", token="less")
        await ann.next_of("authenticated")
        await ann.say(type="publish", topic="room:7", event=MESSAGE, id=7)

        assert (await ann.next_of("error"))["code"] == "forbidden"
        assert it.broker.published == []


async def test_nobody_publishes_before_auth() -> None:
    async with chatting() as it, it.client(None) as nobody, it.http(None) as http:
        await nobody.say(type="publish", topic="room:7", event=MESSAGE)

        assert (await nobody.next_of("error"))["code"] == "unauthorized"
        answer = await http.post("/v1/publish", json={"topic": "room:7", "event": MESSAGE})
        assert answer.status_code == 401
        assert it.broker.published == []


async def test_without_redis_a_client_is_told_and_its_repeat_is_published_once() -> None:
    body = {"topic": "room:7", "event": MESSAGE}
    async with chatting() as it, it.welcomed() as ann, it.http() as http:
        it.broker.away = True
        await ann.say(type="publish", id=7, **body)
        error = await ann.next_of("error")
        answer = await http.post("/v1/publish", json=body)
        assert (error["code"], error["id"]) == ("unavailable", 7)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert it.broker.stream("room:7").offset == 0

        it.broker.away = False
        await ann.say(type="publish", id=8, **body)
        await ann.next_of("published")
        assert it.broker.stream("room:7").offset == 1


async def test_a_frame_that_is_too_large_closes_and_a_body_is_refused() -> None:
    large = {"topic": "room:7", "event": {**MESSAGE, "data": "x" * 70_000}}
    async with chatting() as it, it.welcomed(compression=None) as ann, it.http() as http:
        await ann.say(type="publish", **large)
        assert await ann.closed_with() == 1009
        assert (await http.post("/v1/publish", json=large)).status_code == 413
        assert it.broker.published == []


class Hurried(WebSocketConnection):
    """Few frames at once."""

    frame_limit = RateLimit(rate=1, burst=3)


async def test_a_flood_of_frames_ends_the_connection() -> None:
    async with chatting(connection=Hurried) as it, it.welcomed() as ann:
        for number in range(4):
            event = {**MESSAGE, "id": str(number)}
            await ann.say(type="publish", topic="room:7", event=event)

        assert await ann.closed_with() == 4502
        assert len(it.broker.published) <= 3


@pytest.mark.parametrize(
    "capacity",
    [
        Capacity(frames=RateLimit(rate=0.001, burst=2_000)),
        Capacity(frame_bytes=RateLimit(rate=0.1, burst=2_000)),
    ],
    ids=["frames", "bytes"],
)
async def test_a_flood_of_posts_is_refused_for_its_user_alone(capacity: Capacity) -> None:
    body = {"topic": "room:7", "event": MESSAGE}
    async with chatting(capacity=capacity) as it, it.http() as http, it.http("bob") as bobs:
        answers = [await http.post("/v1/publish", json=body) for _ in range(4)]
        other = await bobs.post("/v1/publish", json=body)

    assert [answer.status_code for answer in answers][:1] == [200]
    assert answers[-1].status_code == 429
    assert answers[-1].headers["retry-after"] == "5"
    assert answers[-1].json()["code"] == "too_many"
    assert other.status_code == 403  # not 429


async def test_pages_of_other_sites_publish_nothing() -> None:
    body = {"topic": "room:7", "event": MESSAGE}
    cookie = {"Cookie": "notifier_token=ann"}
    async with chatting(origins=["https://app.example"]) as it, it.http(None) as http:
        statuses = [
            (await http.post("/v1/publish", json=body, headers=cookie | more)).status_code
            for more in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"})
        ]
        assert it.broker.published == []
        allowed = await http.post(
            "/v1/publish", json=body, headers=cookie | {"Origin": "https://app.example"}
        )

    assert statuses == [401, 403, 401]
    assert allowed.status_code == 200


async def test_a_post_takes_no_parameters() -> None:
    async with chatting() as it, it.http() as http:
        answer = await http.post("/v1/publish?topics=news", json={})

    assert (answer.status_code, answer.json()["field"]) == (400, "topics")
