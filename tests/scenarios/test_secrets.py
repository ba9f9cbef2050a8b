"""No credential and no payload ever stands in a log or an error."""

from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support.clients import Client, connected
from tests.support.commands import run
from tests.support.process import free_port, wait_until
from tests.support.producers import http_producer
from tests.support.roles import KEY, SECRET, TOKENS, Role, running, service_of, token

MARK = "hunter2-in-plain-text"


def with_password(url: str) -> str:
    """The same address with a wrong password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://guest:{MARK}@{rest.rpartition('@')[2]}"


async def test_a_working_service_logs_no_token_no_key_and_no_payload(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    service = service_of(tmp_path, amqp_url, redis_url, NOTIFIER_LOG_LEVEL="DEBUG")
    url = service.gateway
    given = token("42")
    with running(service.api, service.router, service.gateway):
        async with connected(url.gateway_url, given) as client:
            await client.send(type="auth", token=given)
            await client.send(type="auth", token=MARK)
            await client.send(type="auth", token=MARK, id=-1)
            async with http_producer(service.api.api_url) as producer:
                await producer.post({"users": ["42"], "type": 1, "data": MARK})
                await producer.post({"users": ["42"], "type": "t"}, authorization=f"Bearer {MARK}")
                await producer.send({"users": ["42"], "type": "t", "data": MARK})
            await client.next_event()
        for query in (f"token={given}", f"since={MARK}"):
            async with connect(f"{url.gateway_url}/v1/ws?{query}", proxy=None) as socket:
                await Client(socket).closed_with()

    for role in (service.api, service.router, service.gateway):
        for secret in (MARK, SECRET, given, KEY.secret, KEY.entry):
            assert secret not in role.output()


def test_roles_that_are_refused_by_their_backends_do_not_log_the_password(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    wrong = {
        "NOTIFIER_AMQP_URL": with_password(amqp_url),
        "NOTIFIER_REDIS_URL": with_password(redis_url),
        "NOTIFIER_LOG_LEVEL": "DEBUG",
    }
    api = Role("api", tmp_path / "api.log", NOTIFIER_API_KEYS=KEY.entry, **wrong)
    gateway = Role("gateway", tmp_path / "gateway.log", **TOKENS, **wrong)
    with api, gateway:
        wait_for(api, "rabbitmq_lost")
        wait_for(gateway, "redis_subscriber_lost")
        told = f"{api.readiness()} {gateway.readiness()}"

    assert MARK not in told + api.output() + gateway.output()


def wait_for(role: Role, happening: str) -> None:
    """Return when the role has logged it."""
    wait_until(lambda: bool(role.lines(happening)), seconds=20, otherwise=role.log_tail)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOTIFIER_AMQP_URL", f"http://guest:{MARK}@rabbitmq/"),
        ("NOTIFIER_AMQP_URL", f"amqp://guest:{MARK}@[rabbitmq/"),
        ("NOTIFIER_AMQP_URL", f"amqp://guest:{MARK}/@rabbitmq/"),
        ("NOTIFIER_REDIS_URL", f"redis://:{MARK}/@redis/0"),
        ("NOTIFIER_REDIS_URL", f"redis://:{MARK}@redis/0?socket_timeout={MARK}"),
        ("NOTIFIER_RABBITMQ_MANAGEMENT_URL", f"ftp://guest:{MARK}@rabbitmq/"),
        ("NOTIFIER_JWT_SECRET", MARK),
        ("NOTIFIER_API_KEYS", MARK),
    ],
)
def test_a_malformed_setting_is_named_and_not_quoted(name: str, value: str) -> None:
    ended = run("router", NOTIFIER_PRIVATE_PORT="0", **{name: value})

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(f"{name}: ")
    assert MARK not in ended.stdout + ended.stderr


@pytest.mark.parametrize("name", ["AMQP", "REDIS"])
def test_check_does_not_print_the_password(name: str) -> None:
    url = f"{name.lower()}://guest:{MARK}@127.0.0.1:{free_port()}/0"

    ended = run("check", **{f"NOTIFIER_{name}_URL": url})

    assert ended.returncode == 1
    assert f"correct NOTIFIER_{name}_URL" in ended.stdout
    assert MARK not in ended.stdout + ended.stderr
