"""Redis fails at one client's request, by an error that nobody foresaw: nobody else notices."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from tests.support.roles import TOKENS, Role, running, token
from tests.support.services import emptied
from tests.support.tls import NO_AUTHORITIES

ODD, SOUND = "room:odd", "room:sound"
# All that notifier has in Redis, but for one topic: so a call about it fails.
KEYS = (
    *(f"notifier:{{{name}*" for name in (SOUND, "user:", "everyone", "gateways")),
    *(f"notifier:{name}*" for name in ("answers", "revoked", "disconnected", "attending")),
)


@pytest.fixture
def house(logs: Path, _redis_address: str) -> Iterator[Role]:
    """All roles in one process, whose user of Redis has no right to one topic."""
    with emptied(_redis_address) as url, closing(redis.Redis.from_url(url)) as direct:
        direct.acl_setuser(
            "narrow", enabled=True, passwords="+pw", keys=KEYS, channels="*", commands=["+@all"]
        )
        narrow = urlsplit(url)
        narrow_url = f"redis://narrow:pw@{narrow.hostname}:{narrow.port}{narrow.path}"
        role = Role("dev", logs / "failing.log", **TOKENS, NOTIFIER_REDIS_URL=narrow_url)
        try:
            with running(role):
                yield role
        finally:
            direct.acl_deluser("narrow")


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
