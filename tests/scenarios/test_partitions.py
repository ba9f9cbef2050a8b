"""Several routers share the partitions out, and keep all in order, whoever comes or goes."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

import pytest

from tests.support.clients import Client, connected
from tests.support.invariants import assert_delivered, assert_in_order
from tests.support.process import wait_until
from tests.support.producers import amqp_producer
from tests.support.roles import TOKENS, Role, running, token
from tests.support.services import RedisServer

PARTITIONS = [f"notifier.events.{number}" for number in range(6)]
USERS = [str(number) for number in range(18)]


@pytest.fixture
def stable_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own that keeps all it has answered for."""
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        yield server


@dataclass
class House:
    """A gateway and three routers."""

    gateway: Role
    routers: list[Role]
    logs: Path
    backends: dict[str, str]
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def another_router(self) -> Role:
        """A further router, not started yet."""
        log = self.logs / f"router{next(self.numbers)}.log"
        return Role("router", log, NOTIFIER_PARTITIONS=str(len(PARTITIONS)), **self.backends)

    def share_of(self, router: Role) -> list[str]:
        """The partitions that a router says it takes from."""
        told: list[str] = router.readiness()[1]["partitions"]
        return [name for name in told if name in PARTITIONS]

    def is_even(self, routers: Sequence[Role]) -> bool:
        """Whether each partition is one router's, and all have as many."""
        shares = [self.share_of(router) for router in routers]
        sizes = {len(share) for share in shares}
        return sorted(chain(*shares)) == PARTITIONS and max(sizes) - min(sizes) <= 1


@pytest.fixture
def house(tmp_path: Path, amqp_url: str, stable_redis: RedisServer) -> Iterator[House]:
    redis = {
        "NOTIFIER_REDIS_URL": stable_redis.url,
        "NOTIFIER_HISTORY_SIZE": "10000",
        "NOTIFIER_INBOX_SIZE": "10000",
    }
    gateway = Role("gateway", tmp_path / "gateway.log", **TOKENS, **redis)
    house = House(gateway, [], tmp_path, {"NOTIFIER_AMQP_URL": amqp_url, **redis})
    house.routers = [house.another_router() for _ in range(3)]
    with running(gateway, *house.routers):
        yield house


async def balanced(house: House, *routers: Role) -> None:
    """Wait until these routers share the partitions evenly."""
    await asyncio.to_thread(
        wait_until,
        lambda: house.is_even(routers),
        seconds=30,
        otherwise=lambda: f"uneven: {[house.share_of(router) for router in routers]}",
    )


@asynccontextmanager
async def events_flowing(
    amqp_url: str, clients: dict[str, Client]
) -> AsyncIterator[dict[str, tuple[str, int]]]:
    """Let three producers post to all users while inside, and all be read; yields what they post.

    What is posted: each event's lane, which is its producer and user, and its number there.
    """
    posted: dict[str, tuple[str, int]] = {}
    ending = asyncio.Event()

    async def post(producer_name: str) -> None:
        async with amqp_producer(amqp_url) as producer:
            for number in count():
                for user in USERS:
                    name, lane = f"{producer_name}-{user}-{number}", f"{producer_name} {user}"
                    await producer.send({"type": "t", "id": name}, f"user.{user}")
                    posted[name] = (lane, number)
                if ending.is_set():
                    return

    async def read(user: str) -> None:
        client = clients[user]
        await client.read_until(lambda client: is_over.is_set() and all_read(user, client))

    def all_read(user: str, client: Client) -> bool:
        return len(client.events) >= sum(lane.endswith(f" {user}") for lane, _ in posted.values())

    is_over = asyncio.Event()
    async with asyncio.TaskGroup() as reading:
        async with asyncio.TaskGroup() as posting:
            for name in ("a", "b", "c"):
                posting.create_task(post(name))
            for user in USERS:
                reading.create_task(read(user))
            yield posted
            ending.set()
        posted |= {f"last-{user}": (f"last {user}", 0) for user in USERS}
        is_over.set()
        async with amqp_producer(amqp_url) as producer:
            for user in USERS:  # so that each reader looks once more
                await producer.send({"type": "t", "id": f"last-{user}"}, f"user.{user}")


async def test_while_routers_start_die_and_shut_down_events_come_in_order_none_lost_or_duplicate(
    house: House, amqp_url: str
) -> None:
    first, second, third = house.routers
    fourth = house.another_router()
    async with AsyncExitStack() as leaving:
        clients = {
            user: await leaving.enter_async_context(
                connected(house.gateway.gateway_url, token(user))
            )
            for user in USERS
        }
        await balanced(house, first, second, third)
        stack = leaving.enter_context(ExitStack())

        async with events_flowing(amqp_url, clients) as posted:
            await asyncio.to_thread(first.kill)
            await balanced(house, second, third)
            stack.enter_context(running(fourth))
            await balanced(house, second, third, fourth)
            assert await asyncio.to_thread(second.stop) == 0
            await balanced(house, third, fourth)
            first.start()
            await asyncio.to_thread(first.wait_until_ready)
            await balanced(house, first, third, fourth)

        for user, client in clients.items():
            of_user = {name for name, (lane, _) in posted.items() if lane.endswith(f" {user}")}
            assert_delivered(client.frames, {f"user:{user}": of_user})
            assert_in_order(client.events, posted)


async def test_partitions_of_a_killed_router_are_taken_at_once_though_redis_does_not_answer(
    house: House, amqp_url: str, stable_redis: RedisServer
) -> None:
    first, second, third = house.routers
    await balanced(house, first, second, third)
    async with amqp_producer(amqp_url) as producer:
        stable_redis.pause()
        try:
            await asyncio.to_thread(first.kill)
            for user in USERS:
                await producer.send({"type": "t"}, f"user.{user}")
            await asyncio.to_thread(
                wait_until,
                lambda: sorted(house.share_of(second) + house.share_of(third)) == PARTITIONS,
                seconds=20,
                otherwise=second.log_tail,
            )
        finally:
            stable_redis.resume()
        await balanced(house, second, third)


def test_metrics_tell_which_partitions_a_router_has(house: House) -> None:
    wait_until(
        lambda: house.is_even(house.routers), seconds=30, otherwise=house.routers[0].log_tail
    )

    for router in house.routers:
        told = [
            name for name in PARTITIONS if router.metric("notifier_partitions", queue=name) == 1
        ]
        assert told == house.share_of(router)
