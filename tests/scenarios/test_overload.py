"""More than a gateway, a user or a client may have: who is over a bound is told, others are not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.support.clients import Client, connected
from tests.support.roles import TOKENS, Role, running, token
from tests.support.tls import NO_AUTHORITIES


@contextmanager
def gateways(
    logs: Path, redis_url: str, number: int = 1, **settings: str
) -> Iterator[tuple[Role, ...]]:
    """Run gateways with these settings."""
    given = {**TOKENS, "NOTIFIER_REDIS_URL": redis_url, **settings}
    roles = tuple(Role("gateway", logs / f"gateway-{n}.log", **given) for n in range(number))
    with running(*roles):
        yield roles


@asynccontextmanager
async def knocking(role: Role, given: str | None) -> AsyncIterator[Client]:
    """Connect, whatever the first frame is; without a token in the handshake where it is None."""
    protocols = [Subprotocol("notifier.v1")]
    if given is not None:
        protocols.append(Subprotocol(f"bearer.{given}"))
    url = f"{role.gateway_url}/v1/ws"
    async with connect(url, subprotocols=protocols, ping_interval=None, proxy=None) as socket:
        yield Client(socket)


async def refusal(role: Role, user: str = "42") -> httpx.Response | Any:  # noqa: ANN401
    """The answer to an upgrade that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with knocking(role, token(user)):
            pass
    return refused.value.response


async def test_a_full_gateway_refuses_before_the_upgrade_until_someone_leaves(
    tmp_path: Path, redis_url: str
) -> None:
    with gateways(tmp_path, redis_url, NOTIFIER_MAX_CONNECTIONS="2") as (gateway,):
        url = gateway.gateway_url
        async with connected(url, token("1")):
            async with connected(url, token("2")):
                answer = await refusal(gateway)
            async with AsyncExitStack() as stack:
                await let_in(stack, gateway)

        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert gateway.metric("notifier_connections_limit") == 2
        assert gateway.metric("notifier_connections_refused_total", reason="full") >= 1


async def let_in(stack: AsyncExitStack, role: Role, user: str = "42", seconds: float = 30) -> None:
    """Connect again and again until it succeeds."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                client = await stack.enter_async_context(knocking(role, token(user)))
                if (await client.next_frame())["type"] == "hello":
                    return
            except InvalidStatus:
                pass


async def test_clients_over_the_connect_rate_limit_are_refused_before_the_upgrade(
    tmp_path: Path, redis_url: str
) -> None:
    with gateways(tmp_path, redis_url, NOTIFIER_CONNECT_RATE="1") as (gateway,):
        answers = [await arrival(gateway) for _ in range(20)]

        assert answers[:5] == ["hello"] * 5
        assert "503" in answers
        assert gateway.metric("notifier_connections_refused_total", reason="too_fast") > 0
        async with AsyncExitStack() as stack:
            await let_in(stack, gateway)


async def arrival(role: Role) -> str:
    """The first frame's type, or the status of a refusal."""
    try:
        async with knocking(role, token("42")) as client:
            return str((await client.next_frame())["type"])
    except InvalidStatus as refused:
        return str(refused.response.status_code)


async def test_a_user_has_so_many_connections_on_all_gateways_together(
    tmp_path: Path, redis_url: str
) -> None:
    with gateways(tmp_path, redis_url, 2, NOTIFIER_CONNECTIONS_PER_USER="2") as (one, other):
        async with (
            connected(one.gateway_url, token("42")),
            connected(other.gateway_url, token("42")),
            connected(other.gateway_url, token("43")),
        ):
            for role in (one, other):
                async with knocking(role, token("42")) as third:
                    assert (await third.next_frame())["code"] == "too_many_connections"
                    assert await third.closed_with() == 4504
            async with knocking(other, None) as third:
                await third.send(type="auth", token=token("42"))
                assert (await third.next_frame())["code"] == "too_many_connections"
                assert await third.closed_with() == 4504
            assert (await stream(one)).status_code == 429

        reason = "too_many_connections"
        assert other.metric("notifier_connections_refused_total", reason=reason) == 2
        async with AsyncExitStack() as stack:
            await let_in(stack, one)
            await let_in(stack, one)


async def stream(role: Role) -> httpx.Response:
    """The answer to who asks for server-sent events."""
    url = role.gateway_url.replace("ws", "http", 1)
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as http:
        given = {"Authorization": f"Bearer {token('42')}", "Accept": "text/event-stream"}
        return await http.get(f"{url}/v1/sse", headers=given)


async def test_connections_of_a_killed_gateway_count_no_more_after_a_while(
    tmp_path: Path, redis_url: str
) -> None:
    with gateways(tmp_path, redis_url, 2, NOTIFIER_CONNECTIONS_PER_USER="1") as (one, other):
        async with connected(one.gateway_url, token("42")):
            async with knocking(other, token("42")) as second:
                assert await second.closed_with() == 4504
            await asyncio.to_thread(one.kill)
        async with AsyncExitStack() as stack:
            await let_in(stack, other)


@pytest.mark.parametrize(
    ("text", "reason"),
    [('{"type":"ping"}', "too_many_frames"), (" " * 60_000, "too_many_bytes")],
)
async def test_a_client_over_its_rate_limit_gets_an_error_and_is_closed_with_4502(
    tmp_path: Path, redis_url: str, text: str, reason: str
) -> None:
    with gateways(tmp_path, redis_url) as (gateway,):
        url = gateway.gateway_url
        async with connected(url, token("42")) as flooding, connected(url, token("43")) as other:
            sending = asyncio.create_task(flood(flooding, text))
            assert await flooding.closed_with() == 4502
            await sending
            await other.send(type="ping")
            await other.next("pong")

        codes = {frame["code"] for frame in flooding.frames if frame["type"] == "error"}
        assert "too_many" in codes
        assert gateway.metric("notifier_frames_refused_total", reason=reason) == 1


async def flood(client: Client, text: str) -> None:
    """Send on until the connection is gone, and let the client hear what it is told meanwhile."""
    # AttributeError: where the server closes before all was sent, the library aborts a transport
    # of asyncio's that is gone. The test asserts the server's close; the client's says nothing.
    with suppress(ConnectionClosed, AttributeError):
        while True:
            await client.socket.send(text)
            await asyncio.sleep(0)


async def test_a_client_may_subscribe_to_a_hundred_topics_at_once_within_its_rate_limit(
    tmp_path: Path, redis_url: str
) -> None:
    with gateways(tmp_path, redis_url) as (gateway,):
        async with connected(gateway.gateway_url, token("42", "news:*")) as client:
            for n in range(98):  # beside the two that everybody follows
                await client.send(type="subscribe", topic=f"news:{n}")
            for _ in range(98):
                await client.next("subscribed")


async def test_a_connection_follows_so_many_topics_and_no_more(
    tmp_path: Path, redis_url: str
) -> None:
    with gateways(tmp_path, redis_url, NOTIFIER_TOPICS_PER_CONNECTION="1") as (gateway,):
        async with connected(gateway.gateway_url, token("42", "*")) as client:
            await client.follow("a")
            await client.send(type="subscribe", topic="b")
            assert (await client.next("error"))["code"] == "too_many"

        assert gateway.metric("notifier_frames_refused_total", reason="too_many") == 1


async def test_a_connection_of_the_greatest_age_is_told_to_reconnect(
    tmp_path: Path, redis_url: str
) -> None:
    with gateways(tmp_path, redis_url, NOTIFIER_MAX_CONNECTION_AGE_SECONDS="1") as (gateway,):
        async with connected(gateway.gateway_url, token("42")) as client:
            bye = await client.next("bye")
            assert await client.closed_with() == 4005

        assert (bye["code"], bye["reason"]) == (4005, "max_age")
        assert bye["reconnect_after_ms"] > 0
