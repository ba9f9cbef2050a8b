"""Redis fails at one client's request, by an error that nobody foresaw: nobody else notices."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from tests.support.eventually import eventually
from tests.support.producers import http_producer
from tests.support.roles import TOKENS, Role, running, token
from tests.support.services import emptied
from tests.support.tls import NO_AUTHORITIES

ODD, SOUND = "room:odd", "room:sound"
# All that notifier has in Redis, but for one topic and one user: so a call about these fails.
KEYS = (
    *(f"notifier:{{{name}*" for name in (SOUND, "user:ann", "user:bob", "everyone", "gateways")),
    *(f"notifier:{name}*" for name in ("answers", "revoked", "disconnected", "attending")),
)


@pytest.fixture
def address(_redis_address: str) -> Iterator[str]:
    """The URL of an empty Redis, with all rights."""
    with emptied(_redis_address) as url:
        yield url


@pytest.fixture
def operator(address: str) -> Iterator[redis.Redis]:
    """A client of it that grants rights."""
    with closing(redis.Redis.from_url(address)) as direct:
        yield direct


@pytest.fixture
def house(logs: Path, address: str, operator: redis.Redis) -> Iterator[Role]:
    """All roles in one process, whose user of Redis has no right to one topic and one user."""
    operator.acl_setuser(
        "narrow", enabled=True, passwords="+pw", keys=KEYS, channels="*", commands=["+@all"]
    )
    url = urlsplit(address)
    narrow_url = f"redis://narrow:pw@{url.hostname}:{url.port}{url.path}"
    settings = {"NOTIFIER_REDIS_URL": narrow_url, "NOTIFIER_DEDUPLICATION_SECONDS": "1"}
    role = Role("dev", logs / "failing.log", **TOKENS, **settings)
    try:
        with running(role):
            yield role
    finally:
        operator.acl_deluser("narrow")


@asynccontextmanager
async def client(role: Role, user: str) -> AsyncIterator[httpx.AsyncClient]:
    bearer = token(user, ODD, SOUND, publish=[ODD, SOUND])
    async with httpx.AsyncClient(
        base_url=role.gateway_url.replace("ws:", "http:"),
        headers={"authorization": f"Bearer {bearer}"},
        verify=NO_AUTHORITIES,
        timeout=30,
    ) as http:
        yield http


async def test_while_redis_fails_at_one_user_the_others_get_an_event_once(
    house: Role, operator: redis.Redis
) -> None:
    def held() -> int:
        return house.log.read_text().count("batch_held")

    async with client(house, "ann") as ann, http_producer(house.api_url) as producer:
        await producer.post({"type": "t", "users": ["ann", "odd", "bob"]})
        await eventually(lambda: held() > 0)
        first = held()
        await asyncio.sleep(2)  # past the deduplication window
        await eventually(lambda: held() > first + 1)
        listed = await ann.get("/v1/history?topics=user:ann")
        operator.acl_setuser("narrow", enabled=True, keys="*")
        await eventually(lambda: bool(operator.exists("notifier:{user:odd}:log")))
        async with client(house, "odd") as odd:
            late = await odd.get("/v1/history?topics=user:odd")

    assert len(listed.json()["frames"]) == 1
    assert [frame["event"]["type"] for frame in late.json()["frames"]] == ["t"]


async def test_a_request_that_redis_fails_at_shuts_nobody_out(house: Role) -> None:
    async with client(house, "ann") as ann, client(house, "bob") as bob:
        for number in range(3):
            event = {"type": "t", "id": f"m{number}"}
            failed = [
                await ann.get(f"/v1/history?topics={ODD}"),
                await ann.get(f"/v1/history?topics={ODD}&order=newest"),
                await ann.post("/v1/publish", json={"topic": ODD, "event": event}),
                await ann.post("/v1/marks", json={"topic": ODD, "read": "k3x.1"}),
            ]
            published = await bob.post("/v1/publish", json={"topic": SOUND, "event": event})
            listed = await bob.get(f"/v1/history?topics={SOUND}&order=newest")

            assert [each.status_code for each in failed] == [503] * 4
            assert {each.json()["code"] for each in failed} == {"unavailable"}
            assert all("log says why" in each.json()["detail"] for each in failed)
            assert published.status_code == 200
            assert listed.status_code == 200
            assert len(listed.json()["frames"]) == number + 1

    log = house.log.read_text()
    assert "redis_call_failed" in log
    assert all(
        f'"{call}"' in log or f"={call}" in log for call in ("read", "publish", "marks_move")
    )
