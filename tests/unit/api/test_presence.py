"""Presence over HTTP: who may ask, the bounds, and the answers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest

from notifier.adapters.memory.broker import MemoryBroker
from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, NewKey, new_key
from notifier.core.errors import Unavailable
from notifier.core.ports import PresenceQueries
from notifier.core.presence import Answer, Presence, Seen
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import shared_ports_of
from tests.support.queues import RecordingQueue

READS = new_key("dashboard", ["read"])
POSTS = new_key("shop")
CONTROLS = new_key("support", ["control"])
BOUND = new_key("acme", ["read"], ["user:acme-*"])
SEEN = Seen("one", "s1", "websocket", "2026-01-31T09:30:00.000Z", {"user:42": "k3x9.17"})


class Known:
    """PresenceQueries that have each user once."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        self.asked.append(list(users))
        return Presence(dict.fromkeys(users, 1), [SEEN] if detailed else [], complete=True)

    async def answer(self, question: str, answer: Answer) -> None:
        raise NotImplementedError(question, answer)


class Away(Known):
    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        raise Unavailable("redis", f"no answer about {users} {detailed}")


@asynccontextmanager
async def asking(
    presence_queries: PresenceQueries | None, key: NewKey | None = READS
) -> AsyncIterator[httpx.AsyncClient]:
    keys = ApiKeys([each.entry for each in (READS, POSTS, CONTROLS, BOUND)])
    shared = None
    if presence_queries is not None:
        in_memory = shared_ports_of(MemoryBroker())
        shared = replace(in_memory, presence_queries=presence_queries)
    app = create_app(RecordingQueue(), Metrics(), keys, shared=shared)
    headers = {"authorization": f"Bearer {key.secret}"} if key else {}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://a", headers=headers) as http:
        yield http


@pytest.mark.parametrize("user", ["42", "A-z.0_9~:@/+=|$!&", "a/b", "42/disconnect"])
async def test_a_user_is_told_with_the_connections(user: str) -> None:
    async with asking(Known()) as http:
        answer = await http.get(f"/v1/users/{quote(user, safe='')}")

    assert (answer.status_code, answer.json()) == (
        200,
        {
            "user": user,
            "count": 1,
            "connections": [
                {
                    "gateway": "one",
                    "session": "s1",
                    "transport": "websocket",
                    "since": "2026-01-31T09:30:00.000Z",
                    "topics": {"user:42": "k3x9.17"},
                }
            ],
            "complete": True,
        },
    )


@pytest.mark.parametrize(
    ("path", "status"),
    [("42/disconnect", 405), ("42/revoke", 405), ("42/", 404), ("a/b", 404), ("a/b/revoke", 404)],
)
async def test_a_path_that_is_no_users_is_not_taken_for_an_odd_id(path: str, status: int) -> None:
    async with asking(Known()) as http:
        answer = await http.get(f"/v1/users/{path}")

    assert answer.status_code == status
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)


async def test_many_users_are_counted_each_asked_for_once() -> None:
    known = Known()
    users = [f"u{n}" for n in range(999)]
    async with asking(known) as http:
        answer = await http.post("/v1/presence", json={"users": [*users, "u0"]})

    assert answer.json() == {"users": dict.fromkeys(users, 1), "complete": True}
    assert known.asked == [users]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"[]", 422, None),
        (b"{}", 422, "users"),
        (b'{"users":"42"}', 422, "users"),
        (b'{"users":[]}', 422, "users"),
        (b'{"users":["42","a b"]}', 422, "users[1]"),
        (b'{"users":["42"],"topic":"x"}', 422, "topic"),
        (b'{"users":[' + b",".join([b'"42"'] * 1001) + b"]}", 413, "users"),
        (b'{"users":["' + b"u" * 200_000 + b'"]}', 413, None),
    ],
    ids=["no json", "list", "nothing", "text", "none", "bad id", "other", "many", "large"],
)
async def test_a_bad_question_is_a_problem_that_names_the_field(
    body: bytes, status: int, field: str | None
) -> None:
    known = Known()
    async with asking(known) as http:
        answer = await http.post("/v1/presence", content=body)

    assert (answer.status_code, answer.json().get("field")) == (status, field)
    assert known.asked == []


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), (POSTS, 403), (CONTROLS, 403)], ids=["none", "post", "control"]
)
async def test_without_the_scope_nothing_is_told(key: NewKey | None, status: int) -> None:
    known = Known()
    async with asking(known, key) as http:
        answers = [
            await http.get("/v1/users/42"),
            await http.post("/v1/presence", json={"users": ["42"]}),
        ]

    assert [answer.status_code for answer in answers] == [status, status]
    assert known.asked == []


async def test_a_bound_key_asks_about_its_own_users_alone() -> None:
    known = Known()
    async with asking(known, BOUND) as http:
        assert (await http.get("/v1/users/42")).status_code == 403
        answer = await http.post("/v1/presence", json={"users": ["acme-1", "42"]})
        assert (answer.status_code, "not to user:42" in answer.json()["detail"]) == (403, True)
        assert (await http.get("/v1/users/acme-1")).status_code == 200

    assert known.asked == [["acme-1"]]


@pytest.mark.parametrize("presence_queries", [Away(), None], ids=["away", "not set"])
async def test_without_redis_nothing_is_known(presence_queries: PresenceQueries | None) -> None:
    async with asking(presence_queries) as http:
        answer = await http.get("/v1/users/42")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
