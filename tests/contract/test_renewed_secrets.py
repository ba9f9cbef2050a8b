"""Passwords and certificates of backends: the next connection uses those of now."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from notifier.adapters.redis.broker import RedisBroker
from notifier.core.addresses import Address
from notifier.telemetry.metrics import Metrics
from tests.support.eventually import eventually
from tests.support.listening import Listening
from tests.support.proxy import Proxy
from tests.support.services import LocalRedis, RedisServer, SentinelServer
from tests.support.tls import expiry, expiry_of, tls_in_front_of

pytestmark = pytest.mark.services


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def close_all(server: RedisServer, url: str = "") -> None:
    """Close every connection to a Redis but this one."""
    with closing(redis.Redis.from_url(url or server.url)) as client:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)


async def returns(broker: RedisBroker) -> None:
    """Return when a broker that lost its connections has them again."""
    await eventually(lambda: broker.trouble is not None)
    await eventually(lambda: broker.trouble is None)


async def test_a_certificate_authority_that_was_replaced_counts_from_the_next_connection_on(
    server: RedisServer, tmp_path: Path
) -> None:
    authority, metrics = tmp_path / "authority.pem", Metrics()
    async with tls_in_front_of(server.port, authority) as tls, Proxy(tls) as place:
        address = Address(f"rediss://127.0.0.1:{place.port}/0?ssl_ca_certs={authority}")
        async with RedisBroker(address, metrics=metrics) as broker:
            broker.listen(Listening())
            await eventually(lambda: broker.trouble is None)

            async with tls_in_front_of(server.port, authority) as renewed:
                place.target = renewed
                place.cut()
                await returns(broker)
                await eventually(lambda: expiry(metrics, "redis") == expiry_of(authority))


async def test_the_password_of_sentinel_is_renewed_too() -> None:
    with (
        LocalRedis() as master,
        SentinelServer(master) as sentinel,
        closing(redis.Redis.from_url(sentinel.url)) as admin,
    ):
        admin.acl_setuser("eve", enabled=True, passwords="+old", commands=["+@all"])
        admin.acl_setuser("default", enabled=False)
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster?sentinel_username=eve"
        address = Address(f"{url}&sentinel_password=old")
        async with RedisBroker(address, metrics=Metrics()) as broker:
            broker.listen(Listening())
            await eventually(lambda: broker.trouble is None)
            admin.acl_setuser("eve", enabled=True, passwords=["+new", "-old"])

            assert address.replace(f"{url}&sentinel_password=new")
            await asyncio.gather(asyncio.to_thread(close_all, master), returns(broker))
