"""A router publishes only what is still its own, and gives up what it cannot publish."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from tests.support.process import wait_until
from tests.support.producers import amqp_producer
from tests.support.proxy import Proxy
from tests.support.roles import Role, running
from tests.support.services import RedisServer

QUEUE = "notifier.events.0"
IDS = [f"e{number}" for number in range(150)]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def link() -> AsyncIterator[Callable[[str], Any]]:
    """Makes links to a server, given its URL."""
    links: list[Proxy] = []

    async def make(url: str) -> Proxy:
        port = urlsplit(url).port
        assert port is not None
        links.append(Proxy(port))
        return await links[-1].__aenter__()

    yield make
    for each in links:
        await each.__aexit__(None, None, None)


def through(link: Proxy, url: str) -> str:
    """The URL by way of a link."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{link.port}"))


def router(log: Path, amqp_url: str, redis_url: str, **settings: str) -> Role:
    settings = {"NOTIFIER_HISTORY_SIZE": "1000", "NOTIFIER_INBOX_SIZE": "1000", **settings}
    return Role("router", log, NOTIFIER_AMQP_URL=amqp_url, NOTIFIER_REDIS_URL=redis_url, **settings)


@asynccontextmanager
async def started(*roles: Role) -> AsyncIterator[None]:
    """Roles at work; the links to what they need run meanwhile."""
    roles_running = running(*roles)
    await asyncio.to_thread(roles_running.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(roles_running.__exit__, None, None, None)


async def until(ready: Callable[[], bool], role: Role, seconds: float = 30) -> None:
    await asyncio.to_thread(wait_until, ready, seconds=seconds, otherwise=role.log_tail)


def has_partition(role: Role) -> bool:
    return role.metric("notifier_partitions", queue=QUEUE) == 1


def published(server: RedisServer) -> list[str]:
    """The ids in the stream of user 42, in its order."""
    with closing(redis.Redis.from_url(server.url)) as client:
        log: Any = client.xrange("notifier:{user:42}:log")
    return [fields[b"r"].split(b'"id":"')[1].split(b'"')[0].decode() for _, fields in log]


async def post(amqp_url: str, ids: Sequence[str]) -> None:
    async with amqp_producer(amqp_url) as producer:
        await producer.send_to_user("42", ids)


async def at_work_and_standing_by(
    routers: Sequence[Role], links: Sequence[Proxy]
) -> tuple[Role, Proxy, Role]:
    """The router that has the partition, its link, and the other router."""
    first, second = routers
    await until(lambda: all('"routers":2' in each.output() for each in routers), first)
    await until(lambda: has_partition(first) != has_partition(second), first)
    if has_partition(first):
        return first, links[0], second
    return second, links[1], first


async def test_a_router_that_slept_publishes_no_duplicate_of_another_routers_events(
    tmp_path: Path, amqp_url: str, server: RedisServer, link: Callable[[str], Any]
) -> None:
    window = {"NOTIFIER_DEDUPLICATION_SECONDS": "1"}
    links = [await link(amqp_url) for _ in "ab"]
    routers = [
        router(tmp_path / f"{name}.log", through(each, amqp_url), server.url, **window)
        for name, each in zip("ab", links, strict=True)
    ]
    async with started(*routers):
        sleeper, its_link, other = await at_work_and_standing_by(routers, links)
        sleeper.pause()
        try:
            await post(amqp_url, IDS)
            its_link.cut()
            await until(lambda: len(published(server)) == len(IDS), other)
            await asyncio.sleep(2)  # the window is over
        finally:
            sleeper.resume()

        await until(lambda: "rabbitmq_lost" in sleeper.output(), sleeper)
        await until(lambda: sleeper.readiness()[0] == 200, sleeper)

    assert published(server) == IDS


async def test_a_router_cut_off_from_redis_alone_leaves_its_partition_to_another_one(
    tmp_path: Path, amqp_url: str, server: RedisServer, link: Callable[[str], Any]
) -> None:
    links = [await link(server.url) for _ in "ab"]
    routers = [
        router(tmp_path / f"{name}.log", amqp_url, through(each, server.url))
        for name, each in zip("ab", links, strict=True)
    ]
    async with started(*routers):
        cut_off, its_link, other = await at_work_and_standing_by(routers, links)
        its_link.silence()
        await post(amqp_url, IDS)

        await until(lambda: published(server) == IDS, other)
        await until(lambda: has_partition(other), other)
        assert not has_partition(cut_off)
        assert cut_off.readiness()[0] == 503

        its_link.heal()
        await until(lambda: cut_off.readiness()[0] == 200, cut_off)
        await post(amqp_url, ["after"])
        await until(lambda: published(server) == [*IDS, "after"], cut_off)


async def test_routers_that_are_all_cut_off_from_redis_lose_nothing(
    tmp_path: Path, amqp_url: str, server: RedisServer, link: Callable[[str], Any]
) -> None:
    to_redis = await link(server.url)
    routers = [
        router(tmp_path / f"{name}.log", amqp_url, through(to_redis, server.url)) for name in "ab"
    ]
    async with started(*routers):
        await until(lambda: any(map(has_partition, routers)), routers[0])
        to_redis.silence()
        await post(amqp_url, IDS)
        await until(lambda: not any(map(has_partition, routers)), routers[0])

        to_redis.heal()

        await until(lambda: published(server) == IDS, routers[0])
