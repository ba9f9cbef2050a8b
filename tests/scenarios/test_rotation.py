"""Secrets rotate while roles run, as docs/operating.md says."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote, urlsplit

import httpx
import pytest
import redis
from httpx import codes

from notifier.adapters.tokens.minting import mint
from notifier.api.keys import new_key
from tests.support.clients import Client, connected
from tests.support.commands import Listener
from tests.support.invariants import assert_delivered
from tests.support.process import Process, Spawned, wait_until
from tests.support.producers import HttpProducer, http_producer
from tests.support.roles import AUDIENCE, ISSUER, KEY, TOKENS, Role, Service, running
from tests.support.services import RedisServer
from tests.support.tls import NO_AUTHORITIES

OLD = TOKENS["NOTIFIER_JWT_SECRET"]
NEW = "the new secret of more than thirty-two bytes"
# Sends itself SIGHUP while it imports what a role needs.
EARLY = """
import os, signal, sys
from notifier.__main__ import main

class Hangup:
    def find_spec(self, name, *_):
        if name in ("notifier.settings", "notifier.wiring"):
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, Hangup())
sys.argv = ["notifier", "gateway"]
main()
"""


def token(secret: str = OLD, user: str = "42") -> str:
    return mint(secret, user, topics=(), issuer=ISSUER, audience=AUDIENCE, lifetime=600)


def rewrite(file: Path, content: str, *roles: Role) -> None:
    """Change a file of settings, and have the roles read it."""
    file.write_text(content)
    for role in roles:
        role.reload()


# Passwords of RabbitMQ and Redis, under load.


Change = Callable[[redis.Redis], object]


def passwords(change: str, admin: redis.Redis) -> None:
    """Add (+) or withdraw (-) a password of the user that has no name."""
    admin.acl_setuser(
        "default", enabled=True, passwords=change, keys="*", channels="*", commands=["+@all"]
    )


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server, closing(redis.Redis.from_url(server.url)) as client:
        passwords("+old", client)
        yield server


class Account:
    """A user of RabbitMQ with a virtual host; the password is `old` at first."""

    def __init__(self, url: str, management: httpx.Client) -> None:
        self._address = urlsplit(url)
        self._vhost = self._address.path[1:]
        self._name = f"rotating-{self._vhost}"
        self._management = management

    def __enter__(self) -> Self:
        self.set_password("old")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self._ask("PUT", f"/api/permissions/{self._vhost}/{self._name}", json=everything)
        return self

    def __exit__(self, *_: object) -> None:
        self._ask("DELETE", f"/api/users/{self._name}")

    def url(self, password: str) -> str:
        there = f"{self._address.hostname}:{self._address.port}"
        return self._address._replace(netloc=f"{self._name}:{password}@{there}").geturl()

    def set_password(self, password: str) -> None:
        self._ask("PUT", f"/api/users/{self._name}", json={"password": password, "tags": ""})

    def cut(self, *roles: Role) -> None:
        """Close the connections of roles, which RabbitMQ may not list at once."""

        def is_cut() -> bool:
            for each in self._ask("GET", f"/api/vhosts/{self._vhost}/connections").json():
                self._management.delete(f"/api/connections/{quote(each['name'], safe='')}")
            return all(role.lines("rabbitmq_lost") for role in roles)

        wait_until(is_cut, seconds=30, otherwise=lambda: "a role keeps its connection")

    def _ask(self, method: str, path: str, **body: Any) -> httpx.Response:  # noqa: ANN401  # httpx's
        return self._management.request(method, path, **body).raise_for_status()


@pytest.fixture
def account(amqp_url: str, amqp_management_url: str) -> Iterator[Account]:
    with (
        httpx.Client(base_url=amqp_management_url, timeout=30, verify=NO_AUTHORITIES) as management,
        Account(amqp_url, management) as account,
    ):
        yield account


class Files:
    """The files that hold addresses, API keys and the secret of tokens, for all three roles."""

    def __init__(self, folder: Path, account: Account, redis_server: RedisServer) -> None:
        self.amqp, self.redis, self.keys = folder / "amqp", folder / "redis", folder / "keys"
        self.secret = folder / "secret"
        self.amqp_url = account.url
        self._redis_url = redis_server.url
        self.secret.write_text(OLD)
        self.keys.write_text(KEY.entry)
        self.amqp.write_text(self.amqp_url("old"))
        self.redis.write_text(self.redis_url("old"))

    def redis_url(self, password: str) -> str:
        return self._redis_url.replace("redis://", f"redis://:{password}@")

    def tokens(self) -> dict[str, str]:
        others = {name: TOKENS[name] for name in ("NOTIFIER_JWT_ISSUER", "NOTIFIER_JWT_AUDIENCE")}
        return {**others, "NOTIFIER_JWT_SECRET_FILE": str(self.secret)}

    def service(self, logs: Path) -> Service:
        amqp = {"NOTIFIER_AMQP_URL_FILE": str(self.amqp)}
        backend = {"NOTIFIER_REDIS_URL_FILE": str(self.redis), "NOTIFIER_HISTORY_SIZE": "10000"}
        return Service(
            Role("api", logs / "api.log", **amqp, NOTIFIER_API_KEYS_FILE=str(self.keys)),
            Role("router", logs / "router.log", **amqp, **backend),
            Role("gateway", logs / "gateway.log", **backend, **self.tokens()),
            self.amqp_url("old"),
        )


class Load:
    """Posts event after event to user 42, as a producer that repeats what was answered by 503."""

    def __init__(self, producer: HttpProducer) -> None:
        self._producer = producer
        self.posted: list[str] = []
        self._is_over = False

    async def run(self) -> None:
        while not self._is_over:
            name = f"e{len(self.posted)}"
            event = {"users": ["42"], "type": "t", "id": name, "source": "load"}
            answer = await self._producer.post(event)
            if answer.status_code == codes.SERVICE_UNAVAILABLE:
                continue
            assert answer.status_code == codes.ACCEPTED, answer.text
            self.posted.append(name)

    def stop(self) -> None:
        self._is_over = True


@asynccontextmanager
async def loaded(service: Service) -> AsyncIterator[Client]:
    """Post to a client while inside; then it has got each event once, in order."""
    with running(service.api, service.router, service.gateway):
        url = service.gateway.gateway_url
        async with (
            connected(url, token()) as client,
            http_producer(service.api.api_url) as producer,
            asyncio.TaskGroup() as tasks,
        ):
            load = Load(producer)
            running_load = tasks.create_task(load.run())
            await client.next_events(20)
            yield client
            await client.next_events(20)
            load.stop()
            await running_load
            await client.read_until(lambda each: len(each.events) == len(load.posted))
        assert client.events == load.posted
        assert_delivered(client.frames, {"user:42": set(load.posted)})


def drops(service: Service) -> int:
    """How often a role had a connection to a backend that ended."""
    roles = (service.api, service.router, service.gateway)
    return sum(len(r.lines("rabbitmq_lost")) + len(r.lines("redis_subscriber_lost")) for r in roles)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(partial(passwords, "+new"), partial(passwords, "-old"), id="both hold"),
        pytest.param(lambda admin: admin.config_set("requirepass", "new"), bool, id="one holds"),
    ],
)
async def test_the_password_of_redis_rotates_under_load_with_nothing_lost_and_nobody_closed(
    tmp_path: Path, account: Account, redis_server: RedisServer, before: Change, after: Change
) -> None:
    files = Files(tmp_path, account, redis_server)
    service = files.service(tmp_path)
    roles = (service.router, service.gateway)

    with closing(redis.Redis.from_url(files.redis_url("old"))) as admin:
        async with loaded(service) as client:
            before(admin)
            await asyncio.to_thread(rewrite, files.redis, files.redis_url("new"), *roles)
            after(admin)
            assert drops(service) == 0
            cut(admin)
            await client.next_events(20)
            await asyncio.to_thread(back_after_the_cut, service.gateway)
            await newcomer(service)


def cut(admin: redis.Redis) -> None:
    """Close all connections to Redis but this one."""
    for kind in ("normal", "pubsub"):
        admin.client_kill_filter(_type=kind, skipme=True)


def back_after_the_cut(gateway: Role) -> None:
    """Return when a gateway that lost Redis follows all topics again: until then it answers 503."""
    wait_until(
        lambda: bool(gateway.lines("redis_subscriber_lost")),
        seconds=30,
        otherwise=gateway.log_tail,
    )
    gateway.wait_until_ready()


async def test_the_password_of_rabbitmq_rotates_under_load_with_nothing_lost_and_nobody_closed(
    tmp_path: Path, account: Account, redis_server: RedisServer
) -> None:
    files = Files(tmp_path, account, redis_server)
    service = files.service(tmp_path)
    roles = (service.api, service.router)

    async with loaded(service) as client:
        await asyncio.to_thread(account.set_password, "new")
        await asyncio.to_thread(rewrite, files.amqp, files.amqp_url("new"), *roles)
        assert drops(service) == 0
        await asyncio.to_thread(account.cut, *roles)
        await client.next_events(20)

    assert all(role.lines("rabbitmq_lost") for role in roles)


async def newcomer(service: Service, secret: str = OLD) -> None:
    """A client that comes now is let in."""
    async with connected(service.gateway.gateway_url, token(secret, "43")) as client:
        await client.send(type="ping")
        await client.next("pong")


async def test_a_bad_address_is_told_and_the_earlier_one_stays_in_force(
    tmp_path: Path, account: Account, redis_server: RedisServer
) -> None:
    files = Files(tmp_path, account, redis_server)
    service = files.service(tmp_path)
    gateway = service.gateway

    with running(gateway):
        files.redis.write_text("redis://:n/ew@redis:6379/0")
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(
            lambda: gateway.metric("notifier_settings_refused") == 1,
            seconds=30,
            otherwise=gateway.log_tail,
        )
        [line] = gateway.lines("settings_not_reloaded")
        status, _ = gateway.readiness()
        rewrite(files.redis, "redis://:new@another:6379/0", gateway)
        [waiting] = gateway.lines("settings_wait_for_a_restart")
        with closing(redis.Redis.from_url(files.redis_url("old"))) as admin:
            cut(admin)
        await asyncio.to_thread(back_after_the_cut, gateway)
        await newcomer(service)

        assert line["reason"].startswith("NOTIFIER_REDIS_URL: must begin with redis://")
        assert "n/ew" not in gateway.output()
        assert status == codes.OK
        assert waiting["settings"] == ["NOTIFIER_REDIS_URL"]
        assert gateway.metric("notifier_settings_refused") == 0


# Keys of producers, and of tokens.


async def test_keys_rotate_under_load_with_nothing_refused_and_nobody_closed(
    tmp_path: Path, account: Account, redis_server: RedisServer
) -> None:
    files = Files(tmp_path, account, redis_server)
    service, new = files.service(tmp_path), new_key("shop")

    async with loaded(service):
        await asyncio.to_thread(rewrite, files.keys, f"{KEY.entry},{new.entry}", service.api)
        async with http_producer(service.api.api_url, new.secret) as producer:
            await producer.send({"users": ["43"], "type": "t"})
        await asyncio.to_thread(rewrite, files.secret, f"{OLD}\n{NEW}\n", service.gateway)
        async with connected(service.gateway.gateway_url, token(NEW)) as second:
            await newcomer(service, OLD)
            await asyncio.to_thread(rewrite, files.secret, NEW, service.gateway)
            await newcomer(service, NEW)
            await second.next_events(20)


# SIGHUP at any time.


class Early(Role):
    """A gateway that gets SIGHUP while it is still importing."""

    def __init__(self, log: Path, **settings: str) -> None:
        super().__init__("gateway", log, **settings)
        self._command = [sys.executable, "-c", EARLY]

    def _spawn(self, environment: Mapping[str, str], log: BinaryIO) -> Spawned:
        return Process._spawn(self, environment, log)  # noqa: SLF001  # no fork: it is to import


def test_a_sighup_while_a_role_starts_is_taken_once_it_runs(tmp_path: Path, redis_url: str) -> None:
    gateway = Early(tmp_path / "gateway.log", NOTIFIER_REDIS_URL=redis_url, **TOKENS)

    with running(gateway):
        wait_until(
            lambda: bool(gateway.lines("settings_reloaded")),
            seconds=30,
            otherwise=gateway.log_tail,
        )


def test_sighups_until_a_role_has_ended_do_not_change_its_exit_code(
    tmp_path: Path, redis_url: str
) -> None:
    gateway = Role("gateway", tmp_path / "gateway.log", NOTIFIER_REDIS_URL=redis_url, **TOKENS)

    def has_ended() -> bool:
        os.kill(gateway.pid, signal.SIGHUP)
        return not gateway.is_running

    with running(gateway):
        gateway.signal(signal.SIGTERM)
        wait_until(has_ended, seconds=60, otherwise=gateway.log_tail)

        assert gateway.wait() == 0


def test_closing_the_terminal_of_dev_ends_it(tmp_path: Path) -> None:
    dev = Role("dev", tmp_path / "dev.log")

    with running(dev):
        dev.signal(signal.SIGHUP)
        assert dev.wait() == 0


def test_closing_the_terminal_of_listen_ends_it(tmp_path: Path, dev: Role) -> None:
    with Listener(tmp_path / "listen", "--user", "42", "--url", dev.gateway_url) as listener:
        listener.wait_for("listening as 42")
        os.kill(listener.pid, signal.SIGHUP)

        assert listener.wait() == -signal.SIGHUP
