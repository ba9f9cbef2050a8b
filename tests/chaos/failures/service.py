"""Failures of the service's own processes."""

import asyncio
from collections.abc import AsyncIterator

from tests.chaos.failures.registry import failure
from tests.chaos.world import Ground, World, off
from tests.support.roles import Role
from tests.support.spoilt import little_memory, narrow_network, packets_dropped


@failure(within=6, tail=0.1)
async def router_killed(world: World) -> AsyncIterator[None]:
    """SIGKILL in the middle of a batch: Redis is some way off, so there always is one."""
    links = [world.links.redis[f"router-{n}"] for n in range(2)]
    for link in links:
        link.latency = world.seconds(0.02, 0.15)
    router = await world.busiest(world.routers)
    await asyncio.sleep(world.seconds(0, 0.2))
    await off(router.kill)
    for link in links:
        link.heal()
    yield
    await _again(world, router)


async def _again(world: World, role: Role) -> None:
    await off(role.start)
    await world.ready(role)


@failure(within=6, tail=0.1)
async def router_killed_before_ack(world: World) -> AsyncIterator[None]:
    """SIGKILL when Redis has answered and the ack has left, which RabbitMQ never gets."""
    router = await world.busiest(world.routers)
    others = [role for role in world.routers if role is not router]
    name, labels = "notifier_publications_total", {"outcome": "duplicate"}
    before = await world.sum_of(others, name, **labels)
    link, acked = world.links.rabbitmq[router.log.stem], asyncio.Event()

    def swallow(data: bytes) -> bytes | None:
        if _ACK not in data:
            return data
        acked.set()
        return None

    link.tap = swallow
    try:
        async with asyncio.timeout(20):
            await acked.wait()
        await off(router.kill)
    finally:
        link.heal()
    yield
    after = await world.sum_of(others, name, **labels)
    assert after > before, "the other router has recognised nothing"
    await _again(world, router)


# Size 13, class basic, method ack: AMQP 0-9-1, sections 2.3.5 and 1.8.3.13.
_ACK = b"\x00\x00\x00\x0d\x00\x3c\x00\x50"


@failure(within=6, tail=0.1)
async def router_stopped(world: World) -> AsyncIterator[None]:
    """SIGTERM."""
    router = await world.busiest(world.routers)
    assert await off(router.stop) == 0
    yield
    await _again(world, router)


@failure(within=10)
async def gateway_killed(world: World) -> AsyncIterator[None]:
    """SIGKILL; clients go on at the other one, which is some way off from Redis."""
    gateway = world.chance.choice(world.gateways)
    for link in world.links.redis.values():
        link.latency = world.seconds(0, 0.2)
    await off(gateway.kill)
    yield
    for link in world.links.redis.values():
        link.heal()
    await _again(world, gateway)


@failure()
async def gateway_stopped(world: World) -> AsyncIterator[None]:
    """SIGTERM: clients are told when to come back."""
    gateway = world.chance.choice(world.gateways)
    closes = world.crowd.closes(4000)
    assert await off(gateway.stop) == 0
    [draining] = gateway.lines("draining")
    yield
    assert not draining["sessions"] or world.crowd.closes(4000) > closes, "nobody was told"
    await _again(world, gateway)


@failure(ground=Ground(settings={"NOTIFIER_DEDUPLICATION_SECONDS": "5"}))
async def router_slept(world: World) -> AsyncIterator[None]:
    """SIGSTOP in the middle of a batch, for longer than a repeated event is recognised."""
    links = [world.links.redis[f"router-{n}"] for n in range(2)]
    for link in links:
        link.latency = world.seconds(0.1, 0.3)
    router = await world.busiest(world.routers)
    await off(router.pause)
    for link in links:
        link.heal()
    await asyncio.sleep(world.seconds(13, 15))
    await off(router.resume)
    yield
    await world.ready()


@failure()
async def router_cut_off_from_redis(world: World) -> AsyncIterator[None]:
    """One router reaches RabbitMQ and no Redis: the other one does its work."""
    router = await world.busiest(world.routers)
    link = world.links.redis[router.log.stem]
    link.silence()
    try:
        await world.all_arrives(30)
    finally:
        link.heal()
    yield
    await world.ready()


_FAST = 400  # seconds


@failure(ground=Ground(ahead=_FAST))
async def gateway_clock_ahead(world: World) -> AsyncIterator[None]:
    """A gateway believes that events are over which are not."""
    world.flow.ttl = _FAST // 3
    await asyncio.sleep(world.seconds(2, 4))
    yield
    world.flow.ttl = None


@failure(within=10)
async def gateway_out_of_memory(world: World) -> AsyncIterator[None]:
    """The kernel kills a gateway that needs more memory than it may have."""
    gateway = world.chance.choice(world.gateways)
    with little_memory(gateway.pid, 2**20):
        while gateway.is_running:
            await world.flow.post([world.flow.large("large", "everyone", 50_000)])
    yield
    await _again(world, gateway)


@failure()
async def packets_dropped_everywhere(world: World) -> AsyncIterator[None]:
    """Every link has less room than is asked of it, and drops the rest."""
    with narrow_network("2mbit"):
        await world.flow.post([world.flow.large("large", "everyone", 5_000)])
        await asyncio.sleep(world.seconds(3, 6))
        assert packets_dropped(), "nothing was dropped"
    yield
    await world.ready()
