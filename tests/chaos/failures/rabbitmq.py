"""Failures of RabbitMQ, and of the service's queues there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

import httpx

from tests.chaos.failures.registry import failure
from tests.chaos.producers import Style
from tests.chaos.world import World, off, until, until_told
from tests.support.roles import Role
from tests.support.tls import NO_AUTHORITIES


@failure()
async def rabbitmq_killed(world: World) -> AsyncIterator[None]:
    """SIGKILL, and a start with the same data."""
    refused = world.flow.answers[503]
    await off(world.rabbitmq.kill)
    await until(lambda: world.flow.answers[503] > refused, "posts are answered with 503", 20)
    await off(world.rabbitmq.start)
    yield
    await world.ready()


@failure()
async def rabbitmq_hung(world: World) -> AsyncIterator[None]:
    """SIGSTOP, until api and routers have noticed."""
    world.flow.slowest = 0.0
    await off(world.rabbitmq.pause)
    try:
        await _notice_that_rabbitmq_is_away(world)
    finally:
        await off(world.rabbitmq.resume)
    yield
    await world.ready()


@failure()
async def rabbitmq_cut_off(world: World) -> AsyncIterator[None]:
    """Links to RabbitMQ pass nothing on, until api and routers have noticed."""
    links = world.links.rabbitmq.values()
    world.flow.slowest = 0.0
    for link in links:
        link.silence()
    try:
        await _notice_that_rabbitmq_is_away(world)
    finally:
        for link in links:
            link.heal()
    yield
    await world.ready()


async def _notice_that_rabbitmq_is_away(world: World) -> None:
    for role in (world.api, *world.routers):
        await world.in_trouble(role, "queue")
    await asyncio.sleep(world.seconds(0, 1))
    # Ten seconds, and the time that this machine takes.
    assert world.flow.slowest < 13, f"a post was answered after {world.flow.slowest:.1f} s"


@failure()
async def rabbitmq_links_reset(world: World) -> AsyncIterator[None]:
    """Every connection to RabbitMQ is reset, once or a few times."""
    for _ in range(world.chance.randint(1, 3)):
        for link in world.links.rabbitmq.values():
            link.cut()
        await asyncio.sleep(world.seconds(0, 0.5))
    yield


@failure()
async def memory_alarm(world: World) -> AsyncIterator[None]:
    """RabbitMQ believes that memory is short."""
    await off(world.rabbitmq.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        why = await world.in_trouble(world.api, "queue")
        assert "memory" in why, why
        await _are_refused_at_once(world)
        await until(lambda: not world.crowd.missing, "what was confirmed is drained")
        await asyncio.sleep(world.seconds(0, 6))  # a router looks at RabbitMQ every five seconds
        for router in world.routers:
            _, told = await off(router.readiness)
            # It may hold entries whose events are to wait: RabbitMQ takes nothing new.
            assert told["parts"]["queue"] == "ok", told
    finally:
        await off(world.rabbitmq.ctl, "set_vm_memory_high_watermark", "0.6")
    yield
    await world.ready()


async def _are_refused_at_once(world: World) -> None:
    begin = asyncio.get_running_loop().time()
    status = await world.flow.answer_to({"users": ["nobody"], "type": "chaos"})
    took = asyncio.get_running_loop().time() - begin
    assert (status, took < 3) == (503, True), f"answered with {status} after {took:.1f} s"


@failure()
async def queue_deleted(world: World) -> AsyncIterator[None]:
    """A partition is deleted when it is empty: what a queue holds goes with it."""
    producing = [world.api, *world.routers]
    repairs = await world.sum_of(producing, "notifier_topology_repairs_total")
    queue = f"notifier.events.{world.chance.randint(0, 1)}"
    await world.flow.pause()
    await until(lambda: world.is_drained, "the queue is empty")
    world.reports.forget()
    async with _management(world) as management:
        await management.delete(f"/api/queues/%2F/{quote(queue)}")
        world.flow.resume()
    yield
    assert await world.sum_of(producing, "notifier_topology_repairs_total") > repairs
    vanished = [line for role in producing for line in role.lines("rabbitmq_queue_vanished")]
    assert vanished, "no line in any log"
    assert all(role.is_running for role in producing), "a role has ended"
    await world.ready()


def _management(world: World) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    return httpx.AsyncClient(
        base_url=world.rabbitmq.management_url, timeout=30, verify=NO_AUTHORITIES
    )


@failure()
async def vhost_remade(world: World) -> AsyncIterator[None]:
    """All exchanges and queues vanish, and are made anew under producers without `mandatory`."""
    await world.flow.pause()
    await until(lambda: world.is_drained, "the queues are empty")
    world.reports.forget()
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    careless = Style(pause=0.1, mandatory=False)
    async with _management(world) as management, world.flow.busier(4, careless):
        (await management.delete("/api/vhosts/%2F")).raise_for_status()
        world.flow.resume()
        (await management.put("/api/vhosts/%2F")).raise_for_status()
        grant = await management.put("/api/permissions/%2F/guest", json=everything)
        grant.raise_for_status()
        await world.ready()
        await asyncio.sleep(world.seconds(0, 1))
    yield


@failure()
async def exchange_deleted(world: World) -> AsyncIterator[None]:
    """The exchange of events is deleted while there is no api, which would make it anew."""
    exchange = "/api/exchanges/%2F/notifier.events"
    await off(world.api.stop)
    async with _management(world) as management:
        await management.delete(exchange)

        async def is_there() -> bool:
            return (await management.get(exchange)).is_success

        await until_told(is_there, "the exchange is made anew")
    await off(world.api.start)
    await world.ready(world.api)
    yield
    await world.ready()


@failure()
async def delivered_often(world: World) -> AsyncIterator[None]:
    """A batch held by a router, as Redis is full, is delivered more often than RabbitMQ 4 likes."""
    router, other = world.routers
    await off(other.stop)
    await world.ask_redis("CONFIG", "SET", "maxmemory", "1")
    await _holds_more(world, router, 0)
    world.flow.hold()  # clients that publish have no answer while Redis is full
    for _ in range(_MORE_THAN_THE_DELIVERY_LIMIT):
        held = await world.metric(router, "notifier_held_batches_total")
        world.links.rabbitmq[router.log.stem].cut()
        await _holds_more(world, router, held)
    await world.ask_redis("CONFIG", "SET", "maxmemory", "0")
    yield
    await off(other.start)
    await world.ready()
    put_aside = {"reason": "delivery_limit"}
    aside = await world.metric(router, "notifier_put_aside_total", **put_aside)
    assert not aside, f"RabbitMQ took {aside:g} good entries out of their queues"


_MORE_THAN_THE_DELIVERY_LIMIT = 25  # 20 by default


async def _holds_more(world: World, router: Role, held: float) -> None:
    """Return when a router holds one more batch than it has held before."""

    async def one_more() -> bool:
        return await world.metric(router, "notifier_held_batches_total") > held

    await until_told(one_more, "it holds a batch", 60)


@failure()
async def consumer_timeout(world: World) -> AsyncIterator[None]:
    """Redis hangs for longer than RabbitMQ lets a consumer keep what it has taken."""
    dead = await world.dead_letters()
    await _set_consumer_timeout(world, 4_000, 1_000)
    await off(world.redis.pause)
    try:
        await asyncio.sleep(world.seconds(12, 15))
    finally:
        await off(world.redis.resume)
        await _set_consumer_timeout(world, 1_800_000, 60_000)
    yield
    await world.ready()
    assert await world.dead_letters() == dead, "good events ended as dead letters"


async def _set_consumer_timeout(world: World, after: int, look_each: int) -> None:
    settings = {"consumer_timeout": after, "channel_tick_interval": look_each}
    for name, value in settings.items():
        await off(world.rabbitmq.ctl, "eval", f"application:set_env(rabbit, {name}, {value}).")
    for link in world.links.rabbitmq.values():
        link.cut()  # channels take both when they are opened
    await world.ready()


@failure()
async def queue_full(world: World) -> AsyncIterator[None]:
    """Partitions are as long as a policy lets them be: posts are refused until there is room."""
    refused = world.flow.answers[503]
    full = '{"max-length":20,"overflow":"reject-publish"}'
    pattern = r"^notifier\.events\."
    await off(world.rabbitmq.ctl, "set_policy", "--apply-to", "queues", "full", pattern, full)
    for name in ("router-0", "router-1"):
        world.links.redis[name].silence()
    try:
        await until(lambda: world.flow.answers[503] > refused + 5, "posts are refused")
    finally:
        for name in ("router-0", "router-1"):
            world.links.redis[name].heal()
        await off(world.rabbitmq.ctl, "clear_policy", "full")
    yield
    await world.ready()
