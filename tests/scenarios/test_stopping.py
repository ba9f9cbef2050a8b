"""How roles end: by a signal, by a port that is taken, by settings that cannot work."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aio_pika
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.clients import connected
from tests.support.commands import run
from tests.support.invariants import assert_delivered
from tests.support.process import free_port, wait_until
from tests.support.producers import amqp_producer
from tests.support.roles import KEY, TOKENS, Role, Service, running, service_of, token
from tests.support.streams import polled, streamed
from tests.support.tls import NO_AUTHORITIES


@pytest.fixture
def stoppable(tmp_path: Path, amqp_url: str, redis_url: str) -> Iterator[Service]:
    """One process of each role, of the test's own."""
    service = service_of(tmp_path, amqp_url, redis_url)
    with running(service.api, service.router, service.gateway):
        yield service


# Signals.

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@SIGNALS
def test_a_signal_ends_each_role_with_exit_code_0(
    stoppable: Service, number: signal.Signals
) -> None:
    roles = (stoppable.api, stoppable.router, stoppable.gateway)

    for role in roles:
        role.signal(number)

    assert [role.wait() for role in roles] == [0, 0, 0]
    assert [role.lines()[-1]["event"] for role in roles] == ["stopped", "stopped", "stopped"]


@SIGNALS
def test_a_signal_ends_dev_with_exit_code_0(tmp_path: Path, number: signal.Signals) -> None:
    dev = Role("dev", tmp_path / "dev.log")
    with running(dev):
        dev.signal(number)

        assert dev.wait() == 0


@SIGNALS
def test_a_signal_ends_a_role_whose_backends_are_away(
    tmp_path: Path, number: signal.Signals
) -> None:
    away = {
        "NOTIFIER_AMQP_URL": f"amqp://127.0.0.1:{free_port()}/",
        "NOTIFIER_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
    }
    with Role("router", tmp_path / "router.log", **away) as router:
        wait_until(
            lambda: bool(router.lines("rabbitmq_lost")), seconds=20, otherwise=router.log_tail
        )

        router.signal(number)

        assert router.wait() == 0


async def test_a_gateway_that_shuts_down_says_bye_and_closes_with_4000(stoppable: Service) -> None:
    gateway = stoppable.gateway
    async with AsyncExitStack() as leave:
        clients = [
            await leave.enter_async_context(connected(gateway.gateway_url, token(f"u{n}")))
            for n in range(20)
        ]

        gateway.signal(signal.SIGTERM)

        assert [await client.closed_with() for client in clients] == [4000] * 20
        for client in clients:
            bye = client.frames[-1]
            assert (bye["type"], bye["code"], bye["reason"]) == ("bye", 4000, "draining")
            assert bye["reconnect_after_ms"] > 0
    assert await asyncio.to_thread(gateway.wait) == 0


async def test_a_gateway_that_shuts_down_ends_streams_and_answers_polls(stoppable: Service) -> None:
    gateway = stoppable.gateway
    headers = {"authorization": f"Bearer {token('u')}"}
    url = gateway.gateway_url.replace("ws:", "http:")
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=60, verify=NO_AUTHORITIES
    ) as http:
        cursor = (await polled(http))["cursor"]
        async with streamed(http) as stream:
            await stream.next_of("hello")
            asked = asyncio.ensure_future(polled(http, cursor, wait=60))
            waiting = {"transport": "poll"}
            await asyncio.to_thread(
                wait_until,
                lambda: gateway.metric("notifier_connections", **waiting) == 1,
                seconds=20,
                otherwise=gateway.log_tail,
            )

            gateway.signal(signal.SIGTERM)

            bye = await stream.next_of("bye")
            assert (bye.data["code"], bye.retry) == (4000, bye.data["reconnect_after_ms"])
            assert await stream.next() is None
            answer = await asked
    assert [frame["type"] for frame in answer["frames"]] == ["bye"]
    assert answer["cursor"] == cursor
    assert await asyncio.to_thread(gateway.wait) == 0


async def test_a_gateway_that_shuts_down_refuses_clients_and_a_second_signal_ends_it_at_once(
    tmp_path: Path, redis_url: str
) -> None:
    slowly = {**TOKENS, "NOTIFIER_REDIS_URL": redis_url, "NOTIFIER_DRAIN_RATE": "0.1"}
    gateway = Role("gateway", tmp_path / "gateway.log", **slowly)
    with running(gateway):
        async with (
            connected(gateway.gateway_url, token("1")),
            connected(gateway.gateway_url, token("2")),
        ):
            gateway.signal(signal.SIGTERM)
            wait_until(
                lambda: gateway.readiness()[0] == 503, seconds=10, otherwise=gateway.log_tail
            )

            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{gateway.gateway_url}/v1/ws", proxy=None)
            gateway.signal(signal.SIGTERM)

            assert await asyncio.to_thread(gateway.wait) == 128 + signal.SIGTERM
    assert refused.value.response.status_code == 503
    assert "retry-after" in refused.value.response.headers


async def oldest_in_queue(url: str) -> str | None:
    """The message id of what would be routed next; nobody may be consuming."""
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).get_queue("notifier.events.0")
        async with asyncio.timeout(20), queue.iterator(no_ack=True) as deliveries:
            return (await anext(deliveries)).message_id


async def test_a_router_shut_down_in_mid_stream_means_no_lost_and_no_duplicate_event(
    tmp_path: Path, stoppable: Service, redis_url: str
) -> None:
    backends = {"NOTIFIER_AMQP_URL": stoppable.amqp_url, "NOTIFIER_REDIS_URL": redis_url}
    standby = Role("router", tmp_path / "standby.log", **backends)
    ids = [f"e{n}" for n in range(600)]

    async with (
        connected(stoppable.gateway.gateway_url, token("42")) as client,
        amqp_producer(stoppable.amqp_url) as producer,
    ):
        with running(standby):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(producer.send_to_user("42", ids))
                await client.next_events(100)
                assert await asyncio.to_thread(stoppable.router.stop) == 0
                await client.next_events(500)
            # The first has acked all that it published: the other never saw it.
            assert standby.metric("notifier_publications_total", outcome="duplicate") == 0
        await producer.send({"type": "t"}, "user.42", message_id="behind")

    assert client.events == ids
    assert_delivered(client.frames, {"user:42": set(ids)})
    assert await oldest_in_queue(stoppable.amqp_url) == "behind"


# Starts that cannot work.


@pytest.mark.parametrize(
    ("role", "setting"),
    [
        ("gateway", "NOTIFIER_GATEWAY_PORT"),
        ("api", "NOTIFIER_API_PORT"),
        ("router", "NOTIFIER_PRIVATE_PORT"),
        ("dev", "NOTIFIER_GATEWAY_PORT"),
    ],
)
def test_a_role_whose_port_is_taken_says_which_setting_to_change(role: str, setting: str) -> None:
    settings = {**TOKENS, "NOTIFIER_API_KEYS": KEY.entry, "NOTIFIER_HOST": "127.0.0.1"}
    settings |= dict.fromkeys(
        ("NOTIFIER_GATEWAY_PORT", "NOTIFIER_API_PORT", "NOTIFIER_PRIVATE_PORT"), "0"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        ended = run(role, **{**settings, setting: str(port)})

    assert ended.returncode == 1
    sentence = ended.stderr.splitlines()[-1]
    assert sentence.startswith(f"cannot listen on 127.0.0.1 port {port}: Address already in use")
    assert sentence.endswith(f"set {setting} to another port")


@pytest.mark.parametrize(
    ("role", "settings", "lines"),
    [
        ("api", {}, ["NOTIFIER_API_KEYS: is required"]),
        (
            "gateway",
            {},
            [
                "NOTIFIER_JWT_SECRET: exactly one is required",
                "NOTIFIER_JWT_ISSUER: is required",
                "NOTIFIER_JWT_AUDIENCE: is required",
            ],
        ),
        ("gateway", {**TOKENS, "NOTIFIER_JWT_SECRET": "short"}, ["NOTIFIER_JWT_SECRET: must have"]),
        (
            "router",
            {"NOTIFIER_AMQP_URL": "rabbitmq:5672", "NOTIFIER_PARTITIONS": "0"},
            [
                "NOTIFIER_AMQP_URL: must begin with amqp://",
                "NOTIFIER_PARTITIONS: must be at least 1",
            ],
        ),
        (
            "gateway",
            {
                "NOTIFIER_JWT_PUBLIC_KEY": "none",
                "NOTIFIER_JWT_ISSUER": "https://issuer.example/",
                "NOTIFIER_JWT_AUDIENCE": "notifier",
                "NOTIFIER_LOG_LEVEL": "ERROR",
            },
            ["NOTIFIER_JWT_PUBLIC_KEY: there is no PEM block"],
        ),
        ("router", {"NOTIFIER_REDIS_URI": "x"}, ["NOTIFIER_REDIS_URI: is not a setting; did you"]),
        ("router", {"NOTIFIER_AMQP_URL_FILE": "/no/such"}, ["NOTIFIER_AMQP_URL_FILE: cannot read"]),
        ("api", {"NOTIFIER_API_KEYS": "shop:secret"}, ["NOTIFIER_API_KEYS: must be name:sha256"]),
    ],
)
def test_settings_that_cannot_work_end_with_2_and_a_line_for_each(
    role: str, settings: dict[str, str], lines: list[str]
) -> None:
    ended = run(role, **settings)

    assert ended.returncode == 2
    said = ended.stderr.splitlines()
    assert len(said) == len(lines)
    for line, beginning in zip(said, lines, strict=True):
        assert line.startswith(beginning)
