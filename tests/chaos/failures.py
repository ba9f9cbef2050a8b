"""Every failure, how it is provoked, and what it must look like.

A failure is a generator with one `yield`. It yields in the moment in which its cause is over: the
server answers again, the link is whole, or, where something is killed for good, when it is dead.
It goes on when everybody has everything that was confirmed, to mend what is broken still.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from tests.chaos.world import World, off, until
from tests.support.roles import Role

# Half a megabyte each: just more than sockets hold, as the gateway waits five seconds for the
# client to take its close frame.
_FLOOD = 13

Provocation = Callable[[World], AsyncIterator[None]]


@dataclass(frozen=True)
class Failure:
    """A row of the table.

    Without `gaps` nobody may be told of one. With `durable` Redis keeps all that it has answered
    for. Everybody has everything `within` so many seconds. Producers pause a `tail` of seconds
    later at most: the shorter, the more has to be recovered without later events that show holes.
    """

    name: str
    provoke: Provocation
    gaps: bool
    durable: bool
    within: float
    tail: float


FAILURES: dict[str, Failure] = {}


def _failure(
    *, gaps: bool = False, durable: bool = True, within: float = 30, tail: float = 1
) -> Callable[[Provocation], Provocation]:
    def register(provoke: Provocation) -> Provocation:
        name = provoke.__name__.replace("_", "-")
        FAILURES[name] = Failure(name, provoke, gaps, durable, within, tail)
        return provoke

    return register


# RabbitMQ.


@_failure()
async def rabbitmq_killed(world: World) -> AsyncIterator[None]:
    """SIGKILL, and a start with the same data."""
    refused = world.flow.answers[503]
    await off(world.rabbitmq.kill)
    await until(lambda: world.flow.answers[503] > refused, "posts are answered with 503", 20)
    await off(world.rabbitmq.start)
    yield
    await world.ready()


@_failure()
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


@_failure()
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
    # Ten seconds, and what this machine takes.
    assert world.flow.slowest < 13, f"a post was answered after {world.flow.slowest:.1f} s"


@_failure()
async def rabbitmq_links_reset(world: World) -> AsyncIterator[None]:
    """Every connection to RabbitMQ is reset, once or a few times."""
    for _ in range(world.chance.randint(1, 3)):
        for link in world.links.rabbitmq.values():
            link.cut()
        await asyncio.sleep(world.seconds(0, 0.5))
    yield


@_failure()
async def memory_alarm(world: World) -> AsyncIterator[None]:
    """RabbitMQ believes that memory is short."""
    await off(world.rabbitmq.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        why = await world.in_trouble(world.api, "queue")
        assert "memory" in why, why
        await _are_refused_at_once(world)
        await until(lambda: not world.crowd.missing, "what was confirmed is drained")
        for router in world.routers:
            assert (await off(router.readiness))[0] == httpx.codes.OK
    finally:
        await off(world.rabbitmq.ctl, "set_vm_memory_high_watermark", "0.6")
    yield
    await world.ready()


async def _are_refused_at_once(world: World) -> None:
    begin = asyncio.get_running_loop().time()
    status = await world.flow.answer_to({"users": ["nobody"], "type": "chaos"})
    took = asyncio.get_running_loop().time() - begin
    assert (status, took < 3) == (503, True), f"answered with {status} after {took:.1f} s"


@_failure()
async def queue_deleted(world: World) -> AsyncIterator[None]:
    """A partition is deleted when it is empty: what a queue holds goes with it."""
    producing = [world.api, *world.routers]
    repairs = await world.sum_of(producing, "notifier_topology_repairs_total")
    queue = f"notifier.events.{world.chance.randint(0, 1)}"
    await world.flow.pause()
    await until(lambda: not world.crowd.missing, "the queue is empty")
    async with httpx.AsyncClient(base_url=world.rabbitmq.management_url, timeout=30) as management:
        await management.delete(f"/api/queues/%2F/{quote(queue)}")
        world.flow.resume()
    yield
    assert await world.sum_of(producing, "notifier_topology_repairs_total") > repairs
    vanished = [line for role in producing for line in role.lines("rabbitmq_queue_vanished")]
    assert vanished, "no line in any log"
    assert all(role.is_running for role in producing), "a role has ended"
    await world.ready()


# Redis.


@_failure()
async def redis_killed(world: World) -> AsyncIterator[None]:
    """SIGKILL of a Redis that has everything on disk, and a start."""
    await off(world.redis.kill)
    await asyncio.sleep(world.seconds(0, 1))
    await off(world.redis.start)
    yield
    await world.ready()


@_failure(gaps=True, durable=False)
async def redis_emptied(world: World) -> AsyncIterator[None]:
    """SIGKILL of a Redis that has nothing on disk."""
    gaps = world.crowd.gaps
    await off(world.redis.kill)
    await asyncio.sleep(world.seconds(0, 1))
    await off(world.redis.start)
    yield
    await world.ready()
    assert world.crowd.gaps > gaps, "nobody was told"


@_failure(gaps=True, durable=False)
async def redis_rewound(world: World) -> AsyncIterator[None]:
    """SIGKILL of a Redis that comes back as it was up to a second and a half before."""
    await world.ask_redis("SAVE")
    await asyncio.sleep(world.seconds(0.1, 1.5))
    await off(world.redis.kill)
    await off(world.redis.start)
    yield
    await world.ready()


@_failure()
async def redis_hung(world: World) -> AsyncIterator[None]:
    """SIGSTOP or DEBUG SLEEP: gateways go on, and keep their clients."""
    lag, closes = await _late(world), world.crowd.all_closes
    seconds = world.seconds(0.5, 5)
    if world.chance.random() < 0.5:
        await world.ask_redis("DEBUG", "SLEEP", f"{seconds:.1f}")
    else:
        await off(world.redis.pause)
        await asyncio.sleep(seconds)
        await off(world.redis.resume)
    yield
    await world.ready()
    assert world.crowd.all_closes == closes, "clients were closed"
    # 100 ms are promised; a machine that is busy may be late by itself, but not for a second.
    late = [now - before for now, before in zip(await _late(world), lag, strict=True)]
    assert not any(late), f"gateways' loops stood still: {late} times for over a second"


async def _late(world: World) -> list[float]:
    """How often each gateway's loop has been late by over a second."""
    name = "notifier_loop_lag_seconds"
    found = [await off(gateway.samples) for gateway in world.gateways]
    return [each[f"{name}_count"] - each[f'{name}_bucket{{le="1.0"}}'] for each in found]


@_failure()
async def redis_cut_off(world: World) -> AsyncIterator[None]:
    """Links to Redis pass nothing on for a while; some are then reset."""
    for link in world.links.redis.values():
        link.silence()
    await asyncio.sleep(world.seconds(0.5, 5))
    for link in world.links.redis.values():
        if world.chance.random() < 0.5:
            link.cut()
        link.heal()
    yield
    await world.ready()


@_failure()
async def redis_full(world: World) -> AsyncIterator[None]:
    """Redis has no memory left."""
    closes = world.crowd.all_closes
    await world.ask_redis("CONFIG", "SET", "maxmemory", "1")
    try:
        await _someone_holds(world)
        await asyncio.sleep(world.seconds(0, 2))
    finally:
        await world.ask_redis("CONFIG", "SET", "maxmemory", "0")
    yield
    await world.ready()
    assert world.crowd.all_closes == closes, "clients were closed"


async def _someone_holds(world: World) -> None:
    trouble = [world.in_trouble(router, "holding") for router in world.routers]
    tasks = [asyncio.ensure_future(each) for each in trouble]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()
        with suppress(asyncio.CancelledError):
            await other
    for each in done:
        each.result()


@_failure(within=5, tail=0.1)
async def pubsub_cut(world: World) -> AsyncIterator[None]:
    """CLIENT KILL TYPE pubsub."""
    for _ in range(world.chance.randint(1, 3)):
        await world.ask_redis("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(world.seconds(0, 0.2))
    yield


@_failure(within=5, tail=0.1)
async def pubsub_overflow(world: World) -> AsyncIterator[None]:
    """Redis cuts subscribers that have more to take than it will keep for them."""
    limit = "client-output-buffer-limit"
    before = await world.sum_of(world.gateways, "notifier_reconnects_total", backend="redis")
    await world.ask_redis("CONFIG", "SET", limit, "pubsub 1024 0 0")
    try:
        await world.flow.post([world.flow.large("large", "everyone", 50_000)])
        await asyncio.sleep(world.seconds(0, 0.3))
    finally:
        await world.ask_redis("CONFIG", "SET", limit, "pubsub 64mb 16mb 30")
    yield
    after = await world.sum_of(world.gateways, "notifier_reconnects_total", backend="redis")
    assert after > before, "no subscriber was cut"


# The service.


@_failure(within=6, tail=0.1)
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


@_failure(within=6, tail=0.1)
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


@_failure(within=6, tail=0.1)
async def router_stopped(world: World) -> AsyncIterator[None]:
    """SIGTERM."""
    router = await world.busiest(world.routers)
    assert await off(router.stop) == 0
    yield
    await _again(world, router)


@_failure(within=10)
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


@_failure()
async def gateway_stopped(world: World) -> AsyncIterator[None]:
    """SIGTERM: clients are told when to come back."""
    gateway = world.chance.choice(world.gateways)
    closes = world.crowd.closes(4000)
    assert await off(gateway.stop) == 0
    [draining] = gateway.lines("draining")
    yield
    assert not draining["sessions"] or world.crowd.closes(4000) > closes, "nobody was told"
    await _again(world, gateway)


# Clients.


@_failure()
async def slow_client(world: World) -> AsyncIterator[None]:
    """A client that stops reading while much comes in for it."""
    closes, slow = world.crowd.all_closes, world.crowd.slow
    closed = slow.closes[4002]
    slow.reads.clear()
    try:
        for _ in range(_FLOOD):
            topic = slow.recipient.topics[0]
            await world.flow.post([world.flow.large("flood", topic, 60_000) for _ in range(8)])
    finally:
        slow.reads.set()
    await until(lambda: slow.closes[4002] > closed, "the slow client is closed with 4002")
    yield
    assert world.crowd.all_closes == closes, "others were closed"


@_failure()
async def client_links_reset(world: World) -> AsyncIterator[None]:
    """The connections of all clients of a gateway are silent, then reset."""
    link = world.chance.choice(list(world.links.gateways.values()))
    link.silence()
    await asyncio.sleep(world.seconds(0, 2))
    link.cut()
    link.heal()
    yield


@_failure()
async def client_links_slow(world: World) -> AsyncIterator[None]:
    """The connections of all clients of a gateway are slow and drip."""
    link = world.chance.choice(list(world.links.gateways.values()))
    link.latency, link.rate = world.seconds(0.05, 0.5), world.chance.randint(2_000, 20_000)
    await asyncio.sleep(world.seconds(0.5, 3))
    link.heal()
    yield
