"""Each role tells about itself: health, metrics and logs."""

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from notifier.telemetry.metrics import Metrics
from tests.support.clients import connected
from tests.support.process import wait_until
from tests.support.producers import http_producer
from tests.support.roles import Role, Service, token
from tests.support.tls import NO_AUTHORITIES

ROLES = ["api", "router", "gateway"]


@pytest.fixture(params=ROLES)
def role(service: Service, request: pytest.FixtureRequest) -> Role:
    found: Role = getattr(service, request.param)
    return found


def test_a_role_says_that_it_is_alive(role: Role) -> None:
    assert role.is_alive()


def test_readiness_names_each_part(service: Service) -> None:
    parts = {name: getattr(service, name).readiness()[1]["parts"] for name in ROLES}

    assert parts == {
        "api": {"queue": "ok"},
        "router": {"queue": "ok", "broker": "ok", "holding": "ok"},
        "gateway": dict.fromkeys(("draining", "broker", "tokens", "control", "files"), "ok"),
    }


def test_a_role_has_every_metric(role: Role) -> None:
    text = httpx.get(f"{role.private_url}/metrics", verify=NO_AUTHORITIES).text

    for metric in Metrics().registry.collect():
        assert f"\n# TYPE {metric.name}" in f"\n{text}"


async def test_an_event_is_counted_wherever_it_passes(service: Service) -> None:
    counted = {
        service.api: ("notifier_events_total", {"stage": "accepted"}),
        service.router: ("notifier_events_total", {"stage": "routed"}),
        service.gateway: ("notifier_deliveries_total", {}),
    }
    before = {role: role.metric(name, **labels) for role, (name, labels) in counted.items()}

    async with (
        connected(service.gateway.gateway_url, token("anna")) as client,
        http_producer(service.api.api_url) as producer,
    ):
        await producer.send({"users": ["anna"], "type": "t"})
        await client.next_event()

        assert service.gateway.metric("notifier_connections", transport="websocket") == 1
    wait_until(
        lambda: all(
            role.metric(name, **labels) == before[role] + 1
            for role, (name, labels) in counted.items()
        ),
        seconds=10,
        otherwise=lambda: f"not counted: {before}",
    )
    for role, stage in (
        (service.api, "confirmed"),
        (service.router, "taken"),
        (service.router, "published"),
        (service.gateway, "written"),
    ):
        assert role.metric("notifier_event_age_seconds_count", stage=stage) >= 1


async def test_every_line_of_a_log_is_json_with_time_level_and_happening(
    service: Service, role: Role
) -> None:
    async with connected(service.gateway.gateway_url, token("bert")):
        role.readiness()

    lines = [json.loads(line) for line in role.output().splitlines()]
    assert lines
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)


async def test_a_connection_is_logged_with_its_user_and_session(service: Service) -> None:
    async with connected(service.gateway.gateway_url, token("carl")) as client:
        session = client.frames[0]["session"]

    def logged() -> list[str]:
        lines = service.gateway.lines()
        return [line["event"] for line in lines if line.get("session") == session]

    wait_until(
        lambda: logged() == ["connected", "disconnected"],
        seconds=10,
        otherwise=lambda: f"logged: {logged()}",
    )


def test_a_request_that_cannot_be_read_is_logged(role: Role) -> None:
    address = urlsplit(role.private_url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"not HTTP\r\n\r\n")
        connection.recv(1024)

    def lines() -> list[dict[str, str]]:
        return [line for line in role.lines() if line.get("event") == "request_refused"]

    wait_until(lambda: bool(lines()), seconds=10, otherwise=role.log_tail)
    assert lines()[0]["level"] == "warning"
