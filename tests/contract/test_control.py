"""The promises of control (`notifier.core.ports.Control`)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing

import pytest
import redis

from notifier.adapters.memory.broker import MemoryBroker
from notifier.adapters.memory.control import MemoryControl
from notifier.adapters.redis import control as redis_control
from notifier.adapters.redis.broker import RedisBroker
from notifier.adapters.redis.control import RedisControl
from notifier.core.control import LOOK, Act, Order
from notifier.core.errors import Unavailable
from notifier.core.names import GATEWAYS
from notifier.core.ports import Control
from notifier.telemetry.metrics import Metrics
from tests.support.listening import Listening
from tests.support.services import RedisServer

ODD = "A-z.0_9~:@/+=|$!&"
DAY = 86_400


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.services)])
async def another(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Control]]:
    """Make control as another process would."""
    if request.param == "memory":
        memory = MemoryControl(MemoryBroker(deduplication_seconds=1, history_size=1))
        yield lambda: memory
        return
    url = request.getfixturevalue("redis_url")
    made: list[RedisControl] = []

    def make() -> Control:
        made.append(RedisControl(url, DAY, metrics=Metrics()))
        return made[-1]

    yield make
    async with AsyncExitStack() as stack:
        for control in made:
            await stack.enter_async_context(control)


def about(orders: list[Order]) -> set[tuple[Act, str]]:
    return {(order.act, order.user) for order in orders}


@pytest.mark.parametrize("act", Act)
async def test_an_order_reaches_a_gateway_that_looks_later(
    another: Callable[[], Control], act: Act
) -> None:
    given = await another().give(act, ODD)

    assert await another().orders() == [given]
    assert (given.act, given.user) == (act, ODD)
    assert abs(given.moment - time.time()) < 60


async def test_an_order_reaches_a_gateway_that_has_looked_before(
    another: Callable[[], Control],
) -> None:
    api, gateway = another(), another()
    assert await gateway.orders() == []

    await api.give(Act.REVOKE, "42")
    await api.give(Act.DISCONNECT, "43")

    assert about(await gateway.orders()) == {(Act.REVOKE, "42"), (Act.DISCONNECT, "43")}


async def test_an_order_that_is_given_again_has_a_later_moment(
    another: Callable[[], Control],
) -> None:
    first = await another().give(Act.REVOKE, "42")
    second = await another().give(Act.REVOKE, "42")

    [found] = await another().orders()
    assert first.moment <= second.moment == found.moment


@pytest.mark.services
async def test_thousands_of_orders_are_read(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_control, "_PAGE", 7)
    async with RedisControl(redis_url, DAY, metrics=Metrics()) as control:
        for n in range(50):
            await control.give(Act.REVOKE, f"u{n}")

        assert {order.user for order in await control.orders()} == {f"u{n}" for n in range(50)}


@pytest.mark.services
async def test_gateways_are_told_to_look_at_once(redis_url: str) -> None:
    heard = Listening()
    async with (
        RedisControl(redis_url, DAY, metrics=Metrics()) as control,
        RedisBroker(redis_url, metrics=Metrics()) as broker,
    ):
        broker.listen(heard)
        await broker.subscribe([GATEWAYS])

        await control.give(Act.DISCONNECT, "42")

        assert (await heard.next_signal()).name == LOOK


@pytest.mark.services
async def test_an_order_on_a_redis_that_took_over_is_read_by_any_clock() -> None:
    with RedisServer() as server:
        ahead = int(time.time() * 1000) + 10**9
        async with RedisControl(server.url, DAY, metrics=Metrics()) as gateway:
            with closing(redis.Redis.from_url(server.url)) as client:
                client.zadd("notifier:revoked", {"42": ahead})
            assert about(await gateway.orders()) == {(Act.REVOKE, "42")}

            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            async with RedisControl(server.url, DAY, metrics=Metrics()) as api:
                given = await api.give(Act.REVOKE, "43")

            assert await read(gateway) == [given]


async def read(control: Control) -> list[Order]:
    """Read orders, past the connection that was lost."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await control.orders()
            except Unavailable:
                await asyncio.sleep(0)


@pytest.mark.services
async def test_orders_are_kept_for_their_lifetime(redis_url: str) -> None:
    async with RedisControl(redis_url, DAY, metrics=Metrics()) as control:
        await control.give(Act.REVOKE, "42")
        await control.give(Act.DISCONNECT, "42")

    with closing(redis.Redis.from_url(redis_url)) as client:
        kept = [client.ttl(f"notifier:{name}") for name in ("revoked", "disconnected")]
    assert DAY - 60 < int(str(kept[0])) <= DAY
    assert 60 < int(str(kept[1])) <= 120


async def test_without_redis_no_order_is_taken() -> None:
    async with RedisControl("redis://127.0.0.1:1/0", DAY, metrics=Metrics()) as control:
        with pytest.raises(Unavailable):
            await control.give(Act.REVOKE, "42")
        with pytest.raises(Unavailable):
            await control.orders()
