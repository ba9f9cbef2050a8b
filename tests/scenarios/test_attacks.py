"""Attacks on marks, publishing, presence and control by clients and keys that may not: 0 get in."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from ssl import create_default_context
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from notifier.api.keys import NewKey, new_key
from tests.support.roles import TOKENS, Role, running, token
from tests.support.services import emptied

KEYS = {
    "post": new_key("shop"),
    "read": new_key("dashboard", ["read"]),
    "control": new_key("support", ["control"]),
    "all": new_key("operator", ["post", "read", "control"]),
    "bound": new_key("acme", ["post", "read", "control"], ["user:acme-*", "acme.*"]),
    "none": NewKey("a-key-that-nobody-has-made", ""),
}
VICTIM = "victim"
OWN, SECRET = "room:own", "room:secret"  # topics that the attacker may and may not follow
EVENT = {"type": "chat.message", "id": "m1", "data": {"text": "hi"}}
FEW_FRAMES = 5  # a second, and ten times as many at once
_TLS = create_default_context()  # made once: each client would take a tenth of a second for its own
_NAMES = count()


@pytest.fixture(scope="module", params=["memory", "redis"])
def house(request: pytest.FixtureRequest, logs: Path, _redis_address: str) -> Iterator[Role]:
    """All roles in one process, with the streams in memory or in Redis."""
    keys = ",".join(key.entry for key in KEYS.values() if key.entry)
    settings = {"NOTIFIER_API_KEYS": keys, "NOTIFIER_FRAME_RATE": str(FEW_FRAMES)}
    with emptied(_redis_address) as redis_url:
        if request.param == "redis":
            settings["NOTIFIER_REDIS_URL"] = redis_url
        role = Role("dev", logs / f"attacked-on-{request.param}.log", **TOKENS, **settings)
        with running(role):
            asyncio.run(_fill(role))
            yield role


async def _fill(role: Role) -> None:
    """Give the victim a mark behind the first of two events, and each topic an event."""
    async with backend(role, "all") as api:
        for name, audience, whose in (
            ("e0", "users", [VICTIM]),
            ("e1", "users", [VICTIM]),
            ("e2", "topic", SECRET),
            ("e3", "topic", OWN),
        ):
            body = {audience: whose, "type": "t", "id": name}
            (await api.post("/v1/events", json=body)).raise_for_status()
    async with client(role, VICTIM, SECRET, OWN) as http:
        async with asyncio.timeout(30):
            while await _events(http) < 4:
                pass
        page = (await http.get("/v1/history?order=newest")).json()
        first = {"read": page["frames"][-1]["position"]}
        (await http.post("/v1/marks", json=first)).raise_for_status()


async def _events(http: httpx.AsyncClient) -> int:
    answers = [await http.get(f"/v1/history{query}") for query in ("", f"?topics={SECRET},{OWN}")]
    return sum(len(answer.json()["frames"]) for answer in answers)


@asynccontextmanager
async def backend(role: Role, key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {KEYS[key].secret}"}
    async with httpx.AsyncClient(
        base_url=role.api_url, headers=headers, verify=_TLS, timeout=30
    ) as http:
        yield http


@asynccontextmanager
async def client(role: Role, user: str, *topics: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {token(user, *topics)}"}
    url = role.gateway_url.replace("ws:", "http:")
    async with httpx.AsyncClient(base_url=url, headers=headers, verify=_TLS, timeout=30) as http:
        yield http


def socket(role: Role, bearer: str, query: str = "") -> connect:
    headers = {"Authorization": f"Bearer {bearer}"}
    return connect(f"{role.gateway_url}/v1/ws{query}", additional_headers=headers, proxy=None)


async def next_of(stream: ClientConnection, *kinds: str) -> dict[str, Any]:
    """Return the next frame of one of these types; others are passed over."""
    async with asyncio.timeout(30):
        while True:
            frame: dict[str, Any] = json.loads(await stream.recv())
            if frame["type"] in kinds:
                return frame


async def state(role: Role) -> dict[str, object]:
    """All that an attack might have changed."""
    async with client(role, VICTIM, SECRET, OWN) as http, backend(role, "all") as api:
        marks = await http.get("/v1/history?order=newest")
        held = await http.get(f"/v1/history?topics={SECRET},{OWN}")
        users = await api.post("/v1/presence", json={"users": [VICTIM]})
    return {
        "marks": [frame["read"] for frame in marks.json()["frames"]],
        "streams": [(f["topic"], f["event"]["id"]) for f in held.json()["frames"]],
        "connections": users.json()["users"],
    }


@asynccontextmanager
async def unharmed(role: Role) -> AsyncIterator[None]:
    """See that nothing changes meanwhile, and that the victim is told nothing."""
    bearer = token(VICTIM, SECRET, OWN)
    async with socket(role, bearer, f"?topics={SECRET},{OWN}") as victim:
        await next_of(victim, "hello")
        yield
        assert await state(role) == {
            "marks": [False, True],
            "streams": [(SECRET, "e2"), (OWN, "e3")],
            "connections": {VICTIM: 1},
        }
        await victim.send('{"type":"ping"}')
        assert json.loads(await victim.recv()) == {"type": "pong"}


class Attack(NamedTuple):
    """A frame of a client's that has to be refused, and the code of the refusal."""

    frame: Mapping[str, object]
    code: str = "forbidden"


MARKS = {
    "mark of another": Attack({"topic": f"user:{VICTIM}", "read": "{head}"}),
    "single mark of another": Attack({"topic": f"user:{VICTIM}", "read_only": ["{head}"]}),
    "received of another": Attack({"topic": f"user:{VICTIM}", "received": "{head}"}),
    "mark in a closed topic": Attack({"topic": SECRET, "read": "{head}"}),
    "mark in the gateways' topic": Attack({"topic": "*gateways", "read": "{head}"}, "invalid"),
    "mark beyond the head": Attack({"topic": OWN, "read": "{epoch}.999"}, "invalid"),
    "mark of a forged epoch": Attack({"topic": OWN, "read": "forged.1"}, "invalid"),
    "mark of another's stream": Attack({"read": "{head}"}, "invalid"),
    "negative mark": Attack({"topic": OWN, "read": "{epoch}.-1"}, "invalid"),
    "mark of 2^64": Attack({"topic": OWN, "read": f"{{epoch}}.{2**64}"}, "invalid"),
    "mark with a line break": Attack({"topic": OWN, "read": "{head}\n"}, "invalid"),
    "single marks beyond": Attack({"topic": OWN, "read_only": ["{epoch}.7"]}, "invalid"),
    "too many single marks": Attack({"topic": OWN, "read_only": ["{head}"] * 101}, "invalid"),
}
PUBLISHES = {
    "publish without the claim": Attack({"topic": OWN}),
    "ephemeral without the claim": Attack({"topic": OWN, "ephemeral": True}),
    "publish to a closed topic": Attack({"topic": SECRET}),
    "publish to a user": Attack({"topic": f"user:{VICTIM}"}),
    "ephemeral to a user": Attack({"topic": f"user:{VICTIM}", "ephemeral": True}),
    "publish to everyone": Attack({"topic": "everyone"}),
    "order to the gateways": Attack({"topic": "*gateways", "ephemeral": True}, "invalid"),
    "publish to a pattern": Attack({"topic": "room:*"}, "invalid"),
}
FORGED = {
    "forged source": Attack({"event": {**EVENT, "source": f"user:{VICTIM}"}}, "invalid"),
    "forged time": Attack({"event": {**EVENT, "time": "2020-01-01T00:00:00Z"}}, "invalid"),
    "own audience": Attack({"event": {**EVENT, "users": [VICTIM]}}, "invalid"),
    "audience of all": Attack({"event": {**EVENT, "everyone": True}}, "invalid"),
    "report to backends": Attack({"event": {**EVENT, "report": True}}, "invalid"),
    "hand back to backends": Attack({"event": {**EVENT, "undelivered_after": 1}}, "invalid"),
}


def attacks(*tables: Mapping[str, Attack]) -> pytest.MarkDecorator:
    named = [(name, attack) for table in tables for name, attack in table.items()]
    return pytest.mark.parametrize("attack", [a for _, a in named], ids=[n for n, _ in named])


async def forged(role: Role, frame: Mapping[str, object]) -> dict[str, object]:
    """Return the frame with the victim's or the topic's real position where it names one."""
    async with client(role, VICTIM, SECRET, OWN) as http:
        topic = OWN if frame.get("topic") == OWN else f"user:{VICTIM}"
        told = (await http.get(f"/v1/history?order=newest&topics={topic}")).json()
    head = told["frames"][0]["position"]
    text = json.dumps(frame).replace("{head}", head).replace("{epoch}", head.partition(".")[0])
    made: dict[str, object] = json.loads(text)
    return made


async def refusals(role: Role, path: str, frame: Mapping[str, object], bearer: str) -> set[str]:
    """Try a frame on a WebSocket and as a post, and return the codes of the refusals."""
    kind = {"/v1/marks": "mark", "/v1/publish": "publish"}[path]
    async with socket(role, bearer) as stream:
        await next_of(stream, "hello")
        await stream.send(json.dumps({**frame, "type": kind, "id": 7}))
        answer = await next_of(stream, "error", "marked", "published")
    url = role.gateway_url.replace("ws:", "http:")
    headers = {"authorization": f"Bearer {bearer}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, verify=_TLS, timeout=30) as http:
        posted = await http.post(path, json=frame)
    return {answer.get("code", answer["type"]), posted.json().get("code", "taken")}


@attacks(MARKS)
async def test_no_mark_gets_in_that_is_not_the_users_own_and_true(
    house: Role, attack: Attack
) -> None:
    mallory = token(f"mallory{next(_NAMES)}", OWN)
    async with unharmed(house):
        frame = await forged(house, attack.frame)

        assert await refusals(house, "/v1/marks", frame, mallory) == {attack.code}


_ENDS = ["{epoch}.0", "{epoch}.1", f"{{epoch}}.{10**16 - 1}", "start", "none.0", "forged.0"]


@pytest.mark.parametrize("position", _ENDS)
async def test_no_position_that_a_client_names_shuts_others_out(house: Role, position: str) -> None:
    mallory = f"mallory{next(_NAMES)}"
    async with unharmed(house), client(house, mallory, OWN) as http:
        named = (await forged(house, {"topic": OWN, "at": position}))["at"]
        since = f"{OWN}@{named}"
        statuses = {
            (await http.get(path)).status_code
            for path in (
                f"/v1/history?order=newest&topics={OWN}&before={named}",
                f"/v1/history?since={since}",
                f"/v1/poll?wait=0&since={since}",
            )
        }
        async with socket(house, token(mallory, OWN)) as stream:
            await next_of(stream, "hello")
            await stream.send(json.dumps({"type": "subscribe", "topic": OWN, "since": named}))
            answer = await next_of(stream, "subscribed", "error")

        async with socket(house, token(VICTIM)) as other:
            await next_of(other, "hello")
    assert statuses == {200}
    assert answer["type"] == "subscribed"


@attacks(PUBLISHES)
async def test_nothing_gets_in_that_a_token_without_the_claim_publishes(
    house: Role, attack: Attack
) -> None:
    mallory = token(f"mallory{next(_NAMES)}", OWN)
    async with unharmed(house):
        frame = {"event": EVENT, **attack.frame}

        assert await refusals(house, "/v1/publish", frame, mallory) == {attack.code}


@attacks(FORGED, {name: PUBLISHES[name] for name in ("publish to a user", "publish to everyone")})
async def test_nothing_forged_gets_in_though_the_claim_opens_all(
    house: Role, attack: Attack
) -> None:
    mallory = token(f"mallory{next(_NAMES)}", OWN, publish=["*", "user:*", "everyone"])
    async with unharmed(house):
        frame = {"topic": OWN, "event": EVENT, **attack.frame}

        assert await refusals(house, "/v1/publish", frame, mallory) == {attack.code}


@pytest.mark.parametrize(
    ("topics", "claim", "watched"),
    [
        (["room:*"], [], "room:1"),
        ([], ["*"], "room:2"),
        (["room:*"], ["room:other"], "room:3"),
        ([], ["*", "user:*"], f"user:{VICTIM}"),
        (["*"], ["*", "everyone"], "everyone"),
    ],
    ids=["no claim", "a topic not to be read", "another topic", "a user", "everyone"],
)
async def test_nobody_sees_members_or_is_one_without_the_right(
    house: Role, topics: list[str], claim: list[str], watched: str
) -> None:
    friends = [token(name, "room:*", presence=["room:*"]) for name in ("ann", "bob")]
    query = f"?topics={watched}&presence=true"
    async with socket(house, token("mallory", *topics, presence=claim), query) as mallory:
        hello = await next_of(mallory, "hello")
        async with socket(house, friends[0], query) as ann, socket(house, friends[1], query):
            if watched.startswith("room:"):
                while (told := await next_of(ann, "presence"))["count"] < 2:
                    pass
                assert "mallory" not in (*told.get("members", ()), *told.get("joined", ()))
            await mallory.send('{"type":"ping"}')
            while (frame := json.loads(await mallory.recv()))["type"] != "pong":
                assert frame["type"] == "error"

    assert set(hello["topics"]) <= {"user:mallory", "everyone", watched}


_ROUTES = {
    "disconnect": ("POST", f"/v1/users/{VICTIM}/disconnect", None, "control"),
    "revoke": ("POST", f"/v1/users/{VICTIM}/revoke", None, "control"),
    "see": ("GET", f"/v1/users/{VICTIM}", None, "read"),
    "look for": ("POST", "/v1/presence", {"users": [VICTIM]}, "read"),
    "explain": ("GET", f"/v1/users/{VICTIM}/events/e0?source=operator", None, "read"),
    "post": ("POST", "/v1/events", {"users": [VICTIM], "type": "t", "id": "x"}, "post"),
}


_FORBIDDEN = [
    (key, name) for key in KEYS for name in _ROUTES if key not in (_ROUTES[name][3], "all")
]


@pytest.mark.parametrize(("key", "route"), _FORBIDDEN)
async def test_no_key_does_more_than_its_scopes_and_topics(
    house: Role, key: str, route: str
) -> None:
    method, path, body, _ = _ROUTES[route]
    async with unharmed(house), backend(house, key) as http:
        answer = await http.request(method, path, json=body)

    assert answer.status_code == (401 if key == "none" else 403)


async def test_a_clients_token_is_no_key(house: Role) -> None:
    headers = {"authorization": f"Bearer {token(VICTIM)}"}
    async with unharmed(house), backend(house, "none") as http:
        for method, path, body, _ in _ROUTES.values():
            answer = await http.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401


@pytest.mark.parametrize(
    "frames",
    [
        [{"type": "mark", "read": "a.1"}],
        [{"type": "publish", "topic": OWN, "event": EVENT}],
        [{"type": "subscribe", "topic": OWN}, {"type": "unsubscribe", "topic": OWN}],
    ],
    ids=["marks", "publishes", "joins and leaves"],
)
async def test_a_flood_of_frames_ends_its_connection_and_nobody_elses(
    house: Role, frames: list[dict[str, object]]
) -> None:
    flooding = token("flood", OWN, publish=[OWN], presence=[OWN])
    texts = [json.dumps(frame) for frame in frames]
    bearer = token(VICTIM)
    async with socket(house, bearer) as other, socket(house, flooding, "?presence=true") as flood:
        await next_of(other, "hello")
        with pytest.raises(ConnectionClosed):  # noqa: PT012  # at whichever frame it comes
            for number in range(20 * FEW_FRAMES):
                await flood.send(texts[number % len(texts)])
            while True:
                await asyncio.wait_for(flood.recv(), 30)
        assert flood.close_code == 4502
        await other.send('{"type":"ping"}')
        await next_of(other, "pong")


@pytest.mark.parametrize("path", ["/v1/marks", "/v1/publish"])
async def test_a_flood_of_posts_is_refused_for_its_user_alone(house: Role, path: str) -> None:
    async with client(house, f"flood{path[4:]}", OWN) as flood, client(house, VICTIM) as other:
        statuses = {(await flood.post(path, json={})).status_code for _ in range(100)}
        calm = await other.post(path, json={})

    assert statuses == {400, 429}
    assert calm.status_code == 400
