"""The fate of an event over HTTP: who may ask, the bounds, and the answers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest

from notifier.adapters.memory.broker import MemoryBroker
from notifier.adapters.memory.marks import MemoryMarks
from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, NewKey, new_key
from notifier.core.errors import Unavailable
from notifier.core.events import Event, completed
from notifier.core.history import Published
from notifier.core.marks import Move
from notifier.core.ports import PresenceQueries
from notifier.core.positions import Position
from notifier.core.presence import Answer, Presence, Seen
from notifier.core.publications import publications_of
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import shared_ports_of
from tests.support.queues import RecordingQueue

NOW = 1_769_851_800.0
READS = new_key("dashboard", ["read"])
POSTS = new_key("shop")
BOUND = new_key("acme", ["read"], ["user:acme-*", "news"])
SEEN = Seen("one", "s1", "websocket", "2026-01-31T09:30:00.000Z", {"room:7": "k3x9.17"})


class Present:
    """PresenceQueries that have each user once, in a room."""

    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        return Presence(dict.fromkeys(users, 1), [SEEN] if detailed else [], complete=True)

    async def answer(self, question: str, answer: Answer) -> None:
        raise NotImplementedError(question, answer)


class Away(Present):
    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        raise Unavailable("redis", f"no answer about {users} {detailed}")


class House:
    """An api on streams in memory."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.marks = MemoryMarks(self.broker)

    async def publish(self, event: Event) -> Position:
        event = completed(event, source="shop", now=NOW)
        [answer] = await self.broker.publish(publications_of(event, NOW))
        assert isinstance(answer, Published)
        return answer.position

    @asynccontextmanager
    async def asking(
        self, key: NewKey | None = READS, presence_queries: PresenceQueries | None = None
    ) -> AsyncIterator[httpx.AsyncClient]:
        keys = ApiKeys([each.entry for each in (READS, POSTS, BOUND)])
        shared = replace(
            shared_ports_of(self.broker),
            marks=self.marks,
            presence_queries=presence_queries or Present(),
        )
        app = create_app(RecordingQueue(), Metrics(), keys, shared=shared)
        headers = {"authorization": f"Bearer {key.secret}"} if key else {}
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://a", headers=headers
        ) as http:
            yield http


async def test_the_answer_has_the_fate_the_reason_the_moments_and_the_connections() -> None:
    house = House()
    position = await house.publish(Event(type="t", users=["42"], id="paid", source="shop", ttl=1))
    await house.marks.move([Move("42", "user:42", received=position)])

    async with house.asking() as http:
        answer = await http.get("/v1/users/42/events/paid?source=shop")

    assert (answer.status_code, answer.json()) == (
        200,
        {
            "user": "42",
            "event": "paid",
            "fate": "received",
            "because": "a device of the user has marked it received",
            "topics": [
                {
                    "topic": "user:42",
                    "fate": "received",
                    "position": str(position),
                    "accepted": "2026-01-31T09:30:00.000Z",
                    "expires": "2026-01-31T09:30:01.000Z",
                }
            ],
            "connections": [
                {
                    "gateway": "one",
                    "session": "s1",
                    "transport": "websocket",
                    "since": "2026-01-31T09:30:00.000Z",
                    "topics": {"room:7": "k3x9.17"},
                }
            ],
            "complete": True,
        },
    )


@pytest.mark.parametrize(
    ("event", "query"),
    [
        (Event(type="t", everyone=True, id="e", source="shop"), {}),
        (Event(type="t", topic="room:7", id="e", source="shop"), {}),
        (Event(type="t", topic="news", id="e", source="shop"), {"topic": "news"}),
    ],
    ids=["everyone", "a topic that a connection follows", "a topic that is named"],
)
async def test_every_topic_of_the_user_is_looked_at(event: Event, query: dict[str, str]) -> None:
    house = House()
    await house.publish(event)

    async with house.asking() as http:
        answer = await http.get("/v1/users/42/events/e", params={"source": "shop", **query})

    assert answer.json()["fate"] == "published"


async def test_a_topic_with_a_mark_of_the_user_is_looked_at() -> None:
    house = House()
    first = await house.publish(Event(type="t", topic="old", id="e", source="shop"))
    await house.marks.move([Move("42", "old", read=first)])

    async with house.asking() as http:
        assert (await http.get("/v1/users/42/events/e")).json()["fate"] == "read"


async def test_an_event_that_nobody_has_says_so() -> None:
    async with House().asking() as http:
        blind = (await http.get("/v1/users/42/events/e")).json()
        told = (await http.get("/v1/users/42/events/e?source=shop")).json()

    assert (blind["fate"], blind["topics"]) == ("not_published", [])
    assert "without its source" in blind["because"]
    assert "without its source" not in told["because"]


@pytest.mark.parametrize(("user", "event"), [("a/b", "x/y"), ("42", "/events/"), ("é", "ü")])
async def test_slashes_and_letters_of_an_id_are_percent_encoded(user: str, event: str) -> None:
    house = House()
    is_name = user.isascii()
    if is_name:
        await house.publish(Event(type="t", users=[user], id=event, source="shop"))
    async with house.asking() as http:
        path = f"/v1/users/{quote(user, safe='')}/events/{quote(event, safe='')}"
        answer = await http.get(path)

    if is_name:
        assert (answer.json()["user"], answer.json()["event"]) == (user, event)
        assert answer.json()["fate"] == "published"
    else:
        assert answer.status_code == 422


async def test_a_user_whose_id_looks_like_this_route_is_still_a_user() -> None:
    async with House().asking() as http:
        answer = await http.get("/v1/users/a%2Fevents%2Fb")

    assert (answer.json()["user"], answer.json()["count"]) == ("a/events/b", 1)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/users/a b/events/e", "user"),
        (f"/v1/users/42/events/{'e' * 257}", "id"),
        ("/v1/users/42/events/e?source=", "source"),
        (f"/v1/users/42/events/e?source={'s' * 2049}", "source"),
        ("/v1/users/42/events/e?topic=a%20b", "topic"),
        ("/v1/users/42/events/e?topics=a", "topics"),
        ("/v1/users/42/events/e?topic=a&topic=b", "topic"),
        ("/v1/users/42?topic=a", "topic"),
    ],
    ids=["user", "event", "no source", "source", "topic", "topics", "twice", "of a user"],
)
async def test_a_bad_question_is_a_problem_that_names_the_field(path: str, field: str) -> None:
    async with House().asking() as http:
        answer = await http.get(path)

    assert (answer.status_code, answer.json()["field"]) == (422, field)


@pytest.mark.parametrize(("key", "status"), [(None, 401), (POSTS, 403)], ids=["none", "post"])
async def test_without_the_scope_nothing_is_told(key: NewKey | None, status: int) -> None:
    async with House().asking(key) as http:
        assert (await http.get("/v1/users/42/events/e")).status_code == status


async def test_a_bound_key_learns_of_its_own_users_and_topics_alone() -> None:
    house = House()
    await house.publish(Event(type="t", everyone=True, id="e", source="shop"))
    await house.publish(Event(type="t", topic="room:7", id="e", source="shop"))

    async with house.asking(BOUND) as http:
        assert (await http.get("/v1/users/42/events/e")).status_code == 403
        assert (await http.get("/v1/users/acme-1/events/e?topic=room:7")).status_code == 403
        answer = await http.get("/v1/users/acme-1/events/e?source=shop&topic=news")

    assert answer.json()["fate"] == "not_published"


async def test_while_redis_is_away_the_answer_is_503() -> None:
    async with House().asking(presence_queries=Away()) as http:
        answer = await http.get("/v1/users/42/events/e")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
