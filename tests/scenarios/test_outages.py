"""Backends break, and nothing is lost silently or comes twice."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.support.clients import Client, connected, slow_client
from tests.support.invariants import assert_delivered, streams_of
from tests.support.issuer import Issuer
from tests.support.process import wait_until
from tests.support.producers import HttpProducer, amqp_producer, http_producer
from tests.support.roles import (
    AUDIENCE,
    ISSUER,
    TOKENS,
    Role,
    Service,
    running,
    service_of,
    token,
)
from tests.support.services import RabbitServer, RedisServer
from tests.support.tls import NO_AUTHORITIES

IDS = [f"e{n}" for n in range(600)]


@pytest.fixture
def durable_redis() -> Iterator[RedisServer]:
    """A Redis that keeps all it has answered for."""
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture
def forgetful_redis() -> Iterator[RedisServer]:
    """A Redis that loses everything when it is killed."""
    with RedisServer() as server:
        yield server


def on(stack: ExitStack, logs: Path, amqp_url: str, redis_url: str, **settings: str) -> Service:
    """Start one process of each role; history holds all that a test posts."""
    settings = {"NOTIFIER_HISTORY_SIZE": "1000", "NOTIFIER_INBOX_SIZE": "1000", **settings}
    service = service_of(logs, amqp_url, redis_url, **settings)
    stack.enter_context(running(service.api, service.router, service.gateway))
    return service


async def test_while_redis_is_away_a_router_holds_its_batch_and_no_event_is_lost_when_both_recover(
    tmp_path: Path, amqp_url: str, durable_redis: RedisServer
) -> None:
    with ExitStack() as stack:
        service = on(stack, tmp_path, amqp_url, durable_redis.url)
        async with (
            connected(service.gateway.gateway_url, token("42")) as client,
            amqp_producer(amqp_url) as producer,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(producer.send_to_user("42", IDS))
            await client.next_events(100)
            await asyncio.to_thread(durable_redis.kill)
            await asyncio.to_thread(wait_for_trouble, service.router, "holding")
            await asyncio.to_thread(wait_for_trouble, service.gateway, "broker")
            await asyncio.to_thread(durable_redis.start)
            await client.next_events(500)

        assert client.events == IDS
        assert_delivered(client.frames, {"user:42": set(IDS)})
        service.router.wait_until_ready()
        service.gateway.wait_until_ready()


async def test_a_router_killed_with_a_batch_in_hand_loses_nothing(
    tmp_path: Path, amqp_url: str, durable_redis: RedisServer
) -> None:
    with ExitStack() as stack:
        service = on(stack, tmp_path, amqp_url, durable_redis.url)
        async with (
            connected(service.gateway.gateway_url, token("42")) as client,
            amqp_producer(amqp_url) as producer,
        ):
            await asyncio.to_thread(durable_redis.kill)
            # Meanwhile: after five seconds without Redis the router holds nothing any more.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(producer.send_to_user("42", IDS))
                await asyncio.to_thread(wait_for_trouble, service.router, "holding")
                await asyncio.to_thread(service.router.kill)
            await asyncio.to_thread(durable_redis.start)
            service.router.start()
            await client.next_events(600)

        assert client.events == IDS
        assert_delivered(client.frames, {"user:42": set(IDS)})


async def test_a_publication_that_is_retried_on_a_hung_redis_makes_no_duplicate(
    tmp_path: Path, amqp_url: str, durable_redis: RedisServer
) -> None:
    with ExitStack() as stack:
        service = on(stack, tmp_path, amqp_url, durable_redis.url)
        async with (
            connected(service.gateway.gateway_url, token("42")) as client,
            amqp_producer(amqp_url) as producer,
        ):
            durable_redis.pause()  # questions of now wait in its sockets
            # Meanwhile: after five seconds without Redis the router holds nothing any more.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(producer.send_to_user("42", IDS))
                await asyncio.to_thread(wait_for_trouble, service.router, "holding")
                durable_redis.resume()
            await client.next_events(600)
            duplicates = service.router.metric("notifier_publications_total", outcome="duplicate")

        assert client.events == IDS
        assert_delivered(client.frames, {"user:42": set(IDS)})
        assert duplicates > 0


def wait_for_trouble(role: Role, part: str) -> None:
    """Return when the role says that this part does not work."""
    wait_until(
        lambda: role.readiness()[1]["parts"][part] != "ok",
        seconds=20,
        otherwise=lambda: f"{part} works: {role.readiness()}",
    )


async def test_when_redis_has_lost_its_data_clients_get_a_gap_and_events_flow_on(
    tmp_path: Path, amqp_url: str, forgetful_redis: RedisServer
) -> None:
    with ExitStack() as stack:
        service = on(stack, tmp_path, amqp_url, forgetful_redis.url)
        async with (
            connected(service.gateway.gateway_url, token("42")) as client,
            amqp_producer(amqp_url) as producer,
        ):
            await producer.send_to_user("42", ["before"])
            await client.next_event()

            await asyncio.to_thread(forgetful_redis.kill)
            await asyncio.to_thread(forgetful_redis.start)
            gaps = [await client.next("gap"), await client.next("gap")]
            await producer.send_to_user("42", ["after"])
            await client.next_event()

        assert {(gap["topic"], gap["reason"]) for gap in gaps} == {
            ("user:42", "restarted"),
            ("everyone", "restarted"),
        }
        assert streams_of(client.frames)["user:42"].events == ["before", "after"]


async def test_a_router_killed_in_mid_stream_means_no_lost_and_no_duplicate_event(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    with ExitStack() as stack:
        service = on(stack, tmp_path, amqp_url, redis_url)
        backends = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_REDIS_URL": redis_url}
        standby = Role("router", tmp_path / "standby.log", **backends)
        stack.enter_context(running(standby))
        async with (
            connected(service.gateway.gateway_url, token("42")) as client,
            amqp_producer(amqp_url) as producer,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(producer.send_to_user("42", IDS))
            for _ in range(4):
                await client.next_events(100)
                active = await asyncio.to_thread(at_work, service.router, standby)
                await asyncio.to_thread(active.kill)
                await client.next_events(40)  # of the other router
                active.start()
                await asyncio.to_thread(active.wait_until_ready)
            await client.next_events(40)

        assert client.events == IDS
        assert_delivered(client.frames, {"user:42": set(IDS)})


def at_work(*routers: Role) -> Role:
    """The router that takes from the partition, once one does."""
    found: list[Role] = []

    def is_found() -> bool:
        found[:] = [r for r in routers if "notifier.events.0" in r.readiness()[1]["partitions"]]
        return bool(found)

    wait_until(is_found, seconds=20, otherwise=routers[0].log_tail)
    return found[0]


async def test_a_client_of_a_killed_gateway_reconnects_to_another_and_resumes(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    with ExitStack() as stack:
        service = on(stack, tmp_path, amqp_url, redis_url)
        other = Role("gateway", tmp_path / "other.log", **TOKENS, NOTIFIER_REDIS_URL=redis_url)
        stack.enter_context(running(other))
        async with amqp_producer(amqp_url) as producer, asyncio.TaskGroup() as tasks:
            async with connected(service.gateway.gateway_url, token("42")) as first:
                tasks.create_task(producer.send_to_user("42", IDS))
                await first.next_events(100)
                await asyncio.to_thread(service.gateway.kill)
            async with connected(other.gateway_url, token("42"), since=first.cursor) as second:
                await second.next_events(500)

        assert first.events + second.events == IDS
        assert_delivered([*first.frames, *second.frames], {"user:42": set(IDS)})


async def test_after_a_cut_of_pubsub_connections_the_hole_is_filled(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    with ExitStack() as stack:
        service = on(stack, tmp_path, amqp_url, redis_url)
        keys = stack.enter_context(redis.Redis.from_url(redis_url))
        async with (
            connected(service.gateway.gateway_url, token("42")) as client,
            amqp_producer(amqp_url) as producer,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(producer.send_to_user("42", IDS))
            for _ in range(5):
                await client.next_events(100)
                await asyncio.to_thread(cut_pubsub, keys)
            await client.next_events(100)

        assert client.events == IDS
        assert_delivered(client.frames, {"user:42": set(IDS)})
        assert service.gateway.metric("notifier_reconnects_total", backend="redis") > 0


def cut_pubsub(keys: redis.Redis) -> None:
    """Cut the connections that subscribe, once there are any."""
    wait_until(
        lambda: keys.client_kill_filter(_type="pubsub") > 0,
        seconds=20,
        otherwise=lambda: "nobody subscribes",
    )


async def test_a_slow_client_is_closed_with_4002_and_others_are_undisturbed(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    large = {"users": ["42"], "type": "large", "data": "x" * 60_000}
    with ExitStack() as stack:
        service = on(stack, tmp_path, amqp_url, redis_url, NOTIFIER_SEND_BUFFER_BYTES="65536")
        url = service.gateway.gateway_url
        async with (
            slow_client(url, token("42")) as slow,
            connected(url, token("42")) as quick,
            http_producer(service.api.api_url) as producer,
        ):
            # In few posts: the gateway waits five seconds for the client to take its close frame.
            batches = [
                [{**large, "id": f"e{n}"} for n in range(b, b + 14)] for b in range(0, 112, 14)
            ]
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(quick.next_events(112))
                ids = [name for batch in batches for name in await producer.send_batch(batch)]

            assert await slow.closed_with() == 4002
        async with connected(url, token("42"), since=slow.cursor) as back:
            await back.read_until(lambda client: client.events[-1:] == [ids[-1]])

        assert_delivered(quick.frames, {"user:42": set(ids)})
        assert_delivered([*slow.frames, *back.frames], {"user:42": set(ids)})
        assert service.gateway.metric("notifier_slow_consumers_total") == 1


async def test_while_rabbitmq_is_away_posts_get_503_and_afterwards_roles_recover_by_themselves(
    tmp_path: Path, redis_url: str
) -> None:
    with ExitStack() as stack:
        rabbit = stack.enter_context(RabbitServer())
        service = on(stack, tmp_path, rabbit.url, redis_url)
        async with (
            connected(service.gateway.gateway_url, token("42")) as client,
            http_producer(service.api.api_url) as producer,
        ):
            confirmed = await post_for_three_seconds(producer)
            await asyncio.to_thread(rabbit.kill)
            refused = await producer.post({"users": ["42"], "type": "t", "id": "refused"})
            status, body = service.api.readiness()
            is_alive = service.api.is_alive()
            await asyncio.to_thread(rabbit.start)
            await asyncio.to_thread(service.api.wait_until_ready)
            await asyncio.to_thread(service.router.wait_until_ready)
            confirmed.append(await producer.send({"users": ["42"], "type": "t", "id": "after"}))
            await client.read_until(lambda client: client.events[-1:] == ["after"])

        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "rabbitmq is unavailable" in refused.json()["detail"]
        assert (status, body["ready"]) == (503, False)
        assert "not connected to RabbitMQ" in body["parts"]["queue"]
        assert is_alive
        assert_delivered(client.frames, {"user:42": set(confirmed)}, in_doubt={"refused"})


async def post_for_three_seconds(producer: HttpProducer) -> list[str]:
    """Post events; RabbitMQ 3.10 must not be killed within 2 s of declaring a quorum queue."""
    clock = asyncio.get_running_loop().time
    end, ids = clock() + 3, []
    while clock() < end:
        ids.append(await producer.send({"users": ["42"], "type": "t"}))
    return ids


async def test_while_redis_hangs_each_surface_says_so_and_clients_stay_connected(
    tmp_path: Path, amqp_url: str, durable_redis: RedisServer
) -> None:
    with ExitStack() as stack:
        service = on(stack, tmp_path, amqp_url, durable_redis.url)
        url = service.gateway.gateway_url
        async with (
            connected(url, token("42", "news"), topics=["news"]) as client,
            amqp_producer(amqp_url) as producer,
        ):
            durable_redis.pause()
            await asyncio.to_thread(wait_for_trouble, service.gateway, "broker")
            await client.send(type="unsubscribe", topic="news")
            await client.send(type="subscribe", topic="news", id=7)
            error = await client.next("error")
            upgrade = await refused_upgrade(url)
            poll = await polled_once(url)
            await client.send(type="ping")
            await client.next("pong")

            durable_redis.resume()
            await asyncio.to_thread(service.gateway.wait_until_ready)
            await client.follow("news")
            async with connected(url, token("43")):
                pass
            await producer.send_to_user("42", ["after"])
            await client.next_event()

        assert (error["id"], error["code"]) == (7, "unavailable")
        for status, headers in (upgrade, poll):
            assert status == 503
            assert int(headers["retry-after"]) > 0
        assert client.events == ["after"]


async def refused_upgrade(url: str) -> tuple[int, Mapping[str, str]]:
    """The status and the headers of an upgrade that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with connected(url, token("43")):
            pass
    return refused.value.response.status_code, refused.value.response.headers


async def polled_once(url: str) -> tuple[int, Mapping[str, str]]:
    """The status and the headers of the answer to a long-poll."""
    async with httpx.AsyncClient(timeout=30, verify=NO_AUTHORITIES) as http:
        given = {"Authorization": f"Bearer {token('43')}"}
        answer = await http.get(f"{url.replace('ws', 'http', 1)}/v1/poll", headers=given)
    return answer.status_code, answer.headers


async def test_while_the_issuer_is_away_a_client_that_needs_its_keys_may_reconnect_later(
    tmp_path: Path, redis_url: str
) -> None:
    checked = {"NOTIFIER_JWT_ISSUER": ISSUER, "NOTIFIER_JWT_AUDIENCE": AUDIENCE}
    with Issuer() as issuer:
        settings = {"NOTIFIER_REDIS_URL": redis_url, "NOTIFIER_JWKS_URL": issuer.url, **checked}
        gateway = Role("gateway", tmp_path / "gateway.log", **settings)
        with running(gateway):
            async with connected(gateway.gateway_url, issuer.token("42")) as client:
                known = issuer.token("42")
                issuer.away = True
                issuer.rotate()
                unknown = issuer.token("42")

                await client.send(type="auth", token=unknown, id=7)
                error = await client.next("error")
                code = await closed_after_auth(gateway.gateway_url, unknown)
                async with connected(gateway.gateway_url, known):
                    pass  # by a key that was fetched before

                issuer.away = False
                await renewed(client, unknown)

        assert (error["id"], error["code"]) == (7, "unavailable")
        assert code == 4004


async def closed_after_auth(url: str, given: str) -> int:
    """The code that a client is closed with whose first frame holds this token."""
    async with connect(f"{url}/v1/ws", subprotocols=[Subprotocol("notifier.v1")]) as socket_:
        client = Client(socket_)
        await client.send(type="auth", token=given)
        return await client.closed_with()


async def renewed(client: Client, given: str) -> None:
    """Return when the token was taken, which is asked for again and again."""
    async with asyncio.timeout(30):
        while True:
            await client.send(type="auth", token=given)
            if (await client.next_frame())["type"] == "authenticated":
                return
            await asyncio.sleep(0.2)  # a client of good manners: there is a bound on frames
