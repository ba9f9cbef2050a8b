"""Redis behind Sentinel: the master is found, and a failover ends like any lost connection.

The promises are those of `test_redis`; here is what Sentinel adds.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from redis.exceptions import ConnectionError as LostConnectionError

from notifier.adapters.redis import sentinel
from notifier.adapters.redis.broker import RedisBroker
from notifier.core.errors import Unavailable
from notifier.core.history import Published, Since
from notifier.core.publications import NewPublication
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import record
from tests.support.commands import run
from tests.support.listening import Listening
from tests.support.process import free_port
from tests.support.services import LocalRedis, SentinelServer
from tests.support.tls import tls_in_front_of

pytestmark = pytest.mark.services
NOBODY = f"amqp://guest:guest@127.0.0.1:{free_port()}/"


class Group:
    """A master, its replica, and the Sentinel that watches them."""

    def __init__(self, master: LocalRedis, replica: LocalRedis, sentinel: SentinelServer) -> None:
        self.master, self.replica, self.sentinel = master, replica, sentinel
        # The first of them never answers.
        self.hosts = f"127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}"
        self.url = f"redis+sentinel://{self.hosts}/mymaster/0"

    async def is_complete(self) -> None:
        """Return when Sentinel knows the replica, which has all that the master has."""
        with (
            closing(redis.Redis.from_url(self.sentinel.url, decode_responses=True)) as sentinel,
            closing(redis.Redis.from_url(self.replica.url)) as replica,
        ):
            await until(lambda: told(sentinel, "num-slaves") == "1")
            await until(lambda: info(replica)["master_link_status"] == "up")

    async def has_replicated(self) -> None:
        """Return when the replica has all that the master has."""
        with closing(redis.Redis.from_url(self.master.url)) as master:
            await until(lambda: int(master.wait(1, 100)) == 1)


def master_of(group: Group) -> str:
    return f"redis://{group.master.address.replace(' ', ':')}/0"


def told(sentinel: redis.Redis, name: str) -> str:
    answer: Any = sentinel.execute_command("SENTINEL", "MASTER", "mymaster")  # type: ignore[no-untyped-call]  # redis-py's
    answer = (
        answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
    )
    return str(answer[name])


def info(client: redis.Redis) -> dict[str, Any]:
    answer: Any = client.info("replication")
    return dict(answer)


async def master_found(url: str) -> str:
    """Ask as a reconnecting client does: on a busy machine a Sentinel may take too long."""
    async with asyncio.timeout(30):
        while True:
            with suppress(LostConnectionError):
                return await sentinel.master_url(url)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.05)


@pytest.fixture
def group() -> Iterator[Group]:
    with (
        LocalRedis() as master,
        LocalRedis(replicaof=master.address, repl_diskless_sync_delay="0") as replica,
        SentinelServer(master) as sentinel,
    ):
        yield Group(master, replica, sentinel)


def new(name: str) -> NewPublication:
    return NewPublication("news", name, record(name))


async def published(broker: RedisBroker, publication: NewPublication) -> Published:
    """Publish, as a router does: until Redis takes it."""
    async with asyncio.timeout(30):
        while True:
            with suppress(Unavailable):
                [answer] = await broker.publish([publication])
                assert isinstance(answer, Published)
                return answer
            await asyncio.sleep(0.05)


async def test_after_a_failover_followers_recover_on_the_new_master_and_get_an_interruption(
    group: Group,
) -> None:
    await group.is_complete()
    async with RedisBroker(group.url, metrics=Metrics()) as broker:
        listening = Listening()
        broker.listen(listening)
        await broker.subscribe(["news"])
        await published(broker, new("a"))
        await group.has_replicated()

        await asyncio.to_thread(group.master.kill)

        await listening.interrupted("news")
        with closing(redis.Redis.from_url(group.replica.url)) as replica:
            await until(lambda: info(replica)["role"] == "master")
            after = await published(broker, new("b"))
            assert after.position.offset == 2
            assert replica.xlen("notifier:{news}:log") == 2
        [history] = await broker.read([Since("news", 0)])
        assert [p.event for p in history.publications] == [b'{"id":"a"}', b'{"id":"b"}']
        assert await listening.next_events(2) == [b'{"id":"a"}', b'{"id":"b"}']
        await until(lambda: broker.trouble is None)


async def test_user_and_password_are_those_of_redis(group: Group) -> None:
    with closing(redis.Redis.from_url(group.master.url)) as client:
        client.acl_setuser(
            "ann", enabled=True, passwords="+p@ss", keys="*", channels="*", commands=["+@all"]
        )
    url = f"redis+sentinel://ann:p%40ss@{group.hosts}/mymaster"

    async with RedisBroker(url, metrics=Metrics()) as broker:
        assert (await published(broker, new("a"))).position.offset == 1


async def test_user_and_password_of_sentinel_stand_in_the_query(group: Group) -> None:
    with closing(redis.Redis.from_url(group.sentinel.url)) as client:
        client.acl_setuser("eve", enabled=True, passwords="+p@ss", commands=["+@all"])
        client.acl_setuser("default", enabled=False)

    url = f"{group.url}?sentinel_username=eve&sentinel_password=p%40ss"
    assert await master_found(url) == master_of(group)
    with pytest.raises(LostConnectionError):
        await sentinel.master_url(group.url)


async def test_sentinels_speak_tls_as_redis_does(group: Group, tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    async with tls_in_front_of(group.sentinel.port, authority) as port:
        address = f"rediss+sentinel://127.0.0.1:{port}/mymaster"

        url = await master_found(f"{address}?ssl_ca_certs={authority}")

        assert urlsplit(url).netloc == urlsplit(master_of(group)).netloc
        with pytest.raises(LostConnectionError):
            await sentinel.master_url(address)


async def test_sentinels_that_hang_or_refuse_are_passed_over(group: Group) -> None:
    refuses = group.replica.address.replace(" ", ":")  # a Redis knows no SENTINEL
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # the kernel connects, nobody reads
        port = hangs.getsockname()[1]
        url = f"redis+sentinel://127.0.0.1:{port},{refuses},{group.hosts}/mymaster/0"

        assert await master_found(url) == master_of(group)


async def test_a_master_that_is_down_is_not_named() -> None:
    with LocalRedis() as master, SentinelServer(master) as server:
        url = f"redis+sentinel://127.0.0.1:{server.port}/mymaster"
        await asyncio.to_thread(master.kill)
        with closing(redis.Redis.from_url(server.url, decode_responses=True)) as client:
            await until(lambda: "s_down" in told(client, "flags"))

        with pytest.raises(LostConnectionError, match="mymaster that is up"):
            await sentinel.master_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://:se/cret@sentinel/mymaster", "not a URL of Redis"),
        ("redis+sentinel://sentinel", "not a URL of Redis"),
        ("redis+sentinel://sentinel:port/mymaster", "not a URL of Redis"),
        ("unix+sentinel://sentinel/mymaster", "not a URL of Redis"),
    ],
)
def test_an_invalid_url_is_refused_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        RedisBroker(url, metrics=Metrics())

    assert "cret" not in str(caught.value)


async def test_an_unknown_master_is_named_in_the_error(group: Group) -> None:
    url = f"redis+sentinel://{group.hosts}/theirmaster"

    async with RedisBroker(url, metrics=Metrics()) as broker:
        with pytest.raises(Unavailable, match="theirmaster"):
            await broker.publish([new("a")])


# `notifier check`.


def check(url: str) -> str:
    return run("check", "--role", "router", NOTIFIER_REDIS_URL=url, NOTIFIER_AMQP_URL=NOBODY).stdout


async def test_the_check_is_one_of_the_present_master(group: Group) -> None:
    host, port = group.master.address.split()

    assert f"{host}:{port} answers" in await asyncio.to_thread(check, group.url)


async def test_the_check_says_that_no_sentinel_knows_the_master(group: Group) -> None:
    url = f"redis+sentinel://:secret@{group.hosts}/theirmaster"

    output = await asyncio.to_thread(check, url)

    assert "no Sentinel knows of a master called theirmaster" in output
    assert "secret@" not in output
