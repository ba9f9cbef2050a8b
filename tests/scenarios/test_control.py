"""Orders about users, by real processes on a real Redis: every gateway obeys, also a later one."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from notifier.api.keys import new_key
from tests.support.clients import connected
from tests.support.commands import run
from tests.support.producers import http_producer
from tests.support.roles import KEY, TOKENS, Role, running, token
from tests.support.services import RedisServer

SUPPORT = new_key("support", ["control"])
READS = new_key("dashboard", ["read"])


@dataclass(frozen=True)
class House:
    api: Role
    gateways: tuple[Role, Role]
    redis: RedisServer
    logs: Path

    def order(self, act: str, user: str, key: str = SUPPORT.secret) -> "CompletedProcess[str]":
        return run("users", act, user, "--url", self.api.api_url, NOTIFIER_API_KEY=key)

    def show(self, user: str) -> dict[str, Any]:
        shown = run("users", "show", user, "--url", self.api.api_url, NOTIFIER_API_KEY=READS.secret)
        found: dict[str, Any] = json.loads(shown.stdout)
        return found

    def explain(self, user: str, event: str) -> "CompletedProcess[str]":
        asked = (user, event, "--source", "shop", "--url", self.api.api_url)
        return run("events", "explain", *asked, NOTIFIER_API_KEY=READS.secret)

    def another_gateway(self) -> Role:
        return Role("gateway", self.logs / "later.log", **TOKENS, NOTIFIER_REDIS_URL=self.redis.url)


@pytest.fixture
def house(tmp_path: Path, amqp_url: str) -> Iterator[House]:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        redis = {"NOTIFIER_REDIS_URL": server.url}
        keys = {"NOTIFIER_API_KEYS": f"{SUPPORT.entry},{READS.entry},{KEY.entry}"}
        api = Role("api", tmp_path / "api.log", **redis, **keys, NOTIFIER_AMQP_URL=amqp_url)
        one, other = (
            Role("gateway", tmp_path / f"gateway{n}.log", **TOKENS, **redis) for n in (1, 2)
        )
        stack.enter_context(running(api, one, other))
        yield House(api, (one, other), server, tmp_path)


async def test_a_revoked_token_is_refused_on_every_gateway_also_on_a_later_one(
    house: House,
) -> None:
    stolen = token("42")
    one, other = (gateway.gateway_url for gateway in house.gateways)
    async with (
        connected(one, stolen) as first,
        connected(other, stolen) as second,
        connected(one, token("43")) as neighbour,
    ):
        answer = await asyncio.to_thread(house.order, "revoke", "42")

        assert json.loads(answer.stdout)["act"] == "revoke"
        assert [await client.closed_with() for client in (first, second)] == [4500, 4500]
        await neighbour.send(type="ping")
        await neighbour.next("pong")

    later = house.another_gateway()
    with running(later):
        for gateway in (*house.gateways, later):
            assert await refused_with(gateway.gateway_url, stolen) == 4500
    [line] = house.api.lines("ordered")
    assert (line["act"], line["user"], line["key"]) == ("revoke", "42", "support")
    assert SUPPORT.secret not in house.api.output()


async def refused_with(url: str, bearer: str) -> int | None:
    """Connect with a token, and return the code that the gateway closes with."""
    subprotocols = [Subprotocol("notifier.v1"), Subprotocol(f"bearer.{bearer}")]
    async with connect(f"{url}/v1/ws", subprotocols=subprotocols, proxy=None) as socket:
        with suppress(ConnectionClosed):
            while '"hello"' not in str(await socket.recv()):
                pass
        return socket.close_code


async def test_a_disconnected_user_comes_back_with_the_same_token(house: House) -> None:
    url = house.gateways[0].gateway_url
    async with connected(url, token("42")) as client:
        await asyncio.to_thread(house.order, "disconnect", "42")

        assert await client.closed_with() == 4006
    async with connected(url, token("42")):
        pass


async def test_while_redis_hangs_no_order_is_taken_and_events_are(house: House) -> None:
    house.redis.pause()
    try:
        answer = await asyncio.to_thread(house.order, "revoke", "42")
        fate = await asyncio.to_thread(house.explain, "42", "order-7")
        async with http_producer(house.api.api_url) as producer:
            posted = await producer.post({"users": ["42"], "type": "t"})
    finally:
        house.redis.resume()

    assert answer.returncode == 1
    assert "503" in answer.stderr
    assert (fate.returncode, "503" in fate.stderr) == (1, True)
    assert posted.status_code == 202
    assert house.api.readiness()[0] == 200


async def test_a_key_that_posts_orders_nothing(house: House) -> None:
    async with connected(house.gateways[0].gateway_url, token("42")) as client:
        answer = await asyncio.to_thread(house.order, "disconnect", "42", KEY.secret)

        assert answer.returncode == 1
        assert "has the scope post, not control" in answer.stderr
        await client.send(type="ping")
        await client.next("pong")


async def test_presence_knows_both_gateways_and_forgets_one_that_is_killed(house: House) -> None:
    one, other = house.gateways
    async with (
        connected(one.gateway_url, token("42", "news"), topics=["news"]),
        connected(other.gateway_url, token("42")),
    ):
        both = await asyncio.to_thread(house.show, "42")
        other.kill()
        async with asyncio.timeout(10):
            while (left := await asyncio.to_thread(house.show, "42"))["count"] != 1:
                pass

    never = await asyncio.to_thread(house.explain, "42", "a/b c")
    told = json.loads(never.stdout)
    assert (told["event"], told["fate"]) == ("a/b c", "not_published")
    assert (both["count"], both["complete"]) == (2, True)
    assert [sorted(each["topics"]) for each in left["connections"]] == [
        ["everyone", "news", "user:42"]
    ]
