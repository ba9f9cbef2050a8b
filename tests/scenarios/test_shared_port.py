"""Several gateways on one machine, behind one port."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from tests.support.clients import connected
from tests.support.process import free_port
from tests.support.producers import http_producer
from tests.support.roles import KEY, TOKENS, Role, running, token
from tests.support.services import RedisServer


@contextmanager
def house(logs: Path, amqp_url: str) -> Iterator[tuple[Role, list[Role]]]:
    """Run an api with its router, and two gateways that share a port."""
    with RedisServer() as redis:
        backends = {"NOTIFIER_REDIS_URL": redis.url, "NOTIFIER_AMQP_URL": amqp_url}
        shared = {
            "NOTIFIER_GATEWAY_PORT": str(free_port()),
            "NOTIFIER_GATEWAY_PORT_SHARED": "true",
        }
        api = Role("api", logs / "api.log", **backends, NOTIFIER_API_KEYS=KEY.entry)
        router = Role("router", logs / "router.log", **backends)
        gateways = [
            Role("gateway", logs / f"gateway{n}.log", **TOKENS, **backends, **shared)
            for n in (1, 2)
        ]
        with running(api, router, *gateways):
            yield api, gateways


async def test_clients_come_to_every_gateway_behind_the_port_and_all_are_served(
    tmp_path: Path, amqp_url: str
) -> None:
    with house(tmp_path, amqp_url) as (api, gateways):
        url = gateways[0].gateway_url
        assert gateways[1].gateway_url == url
        async with AsyncExitStack() as stack:
            users = [f"u{number}" for number in range(40)]  # all at one gateway: once in 2^39
            clients = [
                await stack.enter_async_context(connected(url, token(user))) for user in users
            ]
            counts = [
                gateway.metric("notifier_connections", transport="websocket")
                for gateway in gateways
            ]
            async with http_producer(api.api_url) as producer:
                await producer.post({"users": users, "type": "t", "id": "e"})
            events = [await client.next_event() for client in clients]

        assert sum(counts) == len(users)
        assert min(counts) > 0
        assert {event["id"] for event in events} == {"e"}


async def test_when_one_has_stopped_all_clients_come_to_the_other(
    tmp_path: Path, amqp_url: str
) -> None:
    with house(tmp_path, amqp_url) as (_, (one, other)):
        url = other.gateway_url
        one.stop()
        for number in range(10):
            async with connected(url, token(f"u{number}")):
                pass

        assert other.metric("notifier_connections_opened_total", transport="websocket") == 10
