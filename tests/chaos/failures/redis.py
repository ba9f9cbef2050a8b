"""Failures of Redis."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

from tests.chaos.clients import NEWS
from tests.chaos.failures.registry import failure
from tests.chaos.producers import Style
from tests.chaos.world import FORGETFUL, Ground, World, off, until, until_told
from tests.support.clients import connected
from tests.support.invariants import streams_of
from tests.support.proxy import Proxy
from tests.support.roles import token
from tests.support.services import LocalRedis


@failure()
async def redis_killed(world: World) -> AsyncIterator[None]:
    """SIGKILL of a Redis that has everything on disk, and a start."""
    await off(world.redis.kill)
    await asyncio.sleep(world.seconds(0, 1))
    await off(world.redis.start)
    yield
    await world.ready()


@failure(gaps=True, ground=FORGETFUL)
async def redis_emptied(world: World) -> AsyncIterator[None]:
    """SIGKILL of a Redis that has nothing on disk."""
    gaps = world.crowd.gaps
    await off(world.redis.kill)
    await asyncio.sleep(world.seconds(0, 1))
    await off(world.redis.start)
    yield
    await world.ready()
    assert world.crowd.gaps > gaps, "nobody was told"


@failure(gaps=True, ground=FORGETFUL)
async def redis_rewound(world: World) -> AsyncIterator[None]:
    """SIGKILL of a Redis that comes back as it was up to a second and a half before."""
    await world.ask_redis("SAVE")
    await asyncio.sleep(world.seconds(0.1, 1.5))
    await off(world.redis.kill)
    await off(world.redis.start)
    yield
    await world.ready()


@failure()
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


@failure()
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


@failure()
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


_RETURN = 5  # seconds after which a client comes back at the latest, when it is told to


@failure(within=_RETURN + 3, tail=0.1)
async def pubsub_cut(world: World) -> AsyncIterator[None]:
    """CLIENT KILL TYPE pubsub."""
    for _ in range(world.chance.randint(1, 3)):
        await world.ask_redis("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(world.seconds(0, 0.2))
    yield


@failure(within=_RETURN + 3, tail=0.1)
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


@failure()
async def redis_full_by_turns(world: World) -> AsyncIterator[None]:
    """Redis has memory, and has none, and has again: within one pipeline."""
    async with (
        world.flow.busier(3, _IN_BURSTS),
        _turns(world, "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    ):
        await asyncio.sleep(world.seconds(3, 5))
    yield
    await world.ready()


@failure()
async def replicas_short_by_turns(world: World) -> AsyncIterator[None]:
    """Redis has too few replicas to take writes, now and then."""
    setting = "CONFIG SET min-replicas-to-write"
    async with world.flow.busier(3, _IN_BURSTS), _turns(world, f"{setting} 1", f"{setting} 0"):
        await asyncio.sleep(world.seconds(3, 5))
    yield
    await world.ready()


@failure()
async def scripts_flushed(world: World) -> AsyncIterator[None]:
    """SCRIPT FLUSH, again and again, between the parts of what gateways ask to greet a client."""
    missed = await _scripts_missed(world)
    links = [world.links.redis[gateway.log.stem] for gateway in world.gateways]
    for link in links:
        link.rate = _ASKED_IN_PARTS
    try:
        async with asyncio.timeout(60), _turns(world, "SCRIPT FLUSH", "PING"):
            await asyncio.gather(*(_follow_many(world, f"new{n}") for n in range(8)))
    finally:
        for link in links:
            link.heal()
    assert await _scripts_missed(world) > missed, "no script was missed"
    yield


# Bytes a second: 20 KB come at once, of the 30 that ask for 100 topics.
_ASKED_IN_PARTS = 400_000


async def _scripts_missed(world: World) -> int:
    """How often Redis was asked for a script that it had forgotten."""
    _, found, count = (await _info(world, "errorstats")).partition(b"errorstat_NOSCRIPT:count=")
    return int(count.split()[0]) if found else 0


async def _follow_many(world: World, user: str) -> None:
    """Connect with topics of one event each; AssertionError unless that and a later one come."""
    topics = [f"fresh:{user}.{world.flow.count}.{n}" for n in range(100)]
    first = await world.flow.flood(topics)
    door, start = world.chance.choice(world.crowd.doors), ",".join(f"{t}@start" for t in topics)
    async with connected(f"ws://{door}", token(user, "fresh:*"), since=start) as client:
        later = await world.flow.flood(topics)
        await client.read_until(lambda this: {*first, *later} <= {*this.events})
    streams = streams_of(client.frames)
    assert [tuple(streams[t].events) for t in topics] == list(zip(first, later, strict=True))


@asynccontextmanager
async def _turns(world: World, bad: str, good: str) -> AsyncIterator[None]:
    """Let Redis change its mind as fast as it answers: within one pipeline, too."""
    over = threading.Event()

    def take_turns() -> None:
        with world.admin() as client:
            while not over.is_set():
                client.execute_command(*bad.split())
                client.execute_command(*good.split())

    turns = asyncio.create_task(off(take_turns), name="turns")
    try:
        yield
    finally:
        over.set()
        await turns


# A router's batch, of which Redis reads 16 KB at a time.
_IN_BURSTS = Style(pause=8, topic=NEWS, burst=48, size=1_500)


@failure(gaps=True, ground=Ground(durable=False, replicated=True))
async def redis_promoted(world: World) -> AsyncIterator[None]:
    """A replica that lags is promoted when its primary is killed."""
    replica = LocalRedis(**world.redis_options)
    await off(replica.__enter__)
    world.cleanup.callback(replica.__exit__, None, None, None)
    primary, world.redis = world.redis, replica
    async with Proxy(primary.port) as link:
        await world.ask_redis("REPLICAOF", "127.0.0.1", str(link.port))
        in_step = b"master_link_status:up"
        await until_told(lambda: _says(world, "replication", in_step), "the replica is in step")
        await asyncio.sleep(world.seconds(0.5, 1.5))
        link.silence()
        await asyncio.sleep(world.seconds(0, 1))
        await off(primary.kill)
        await world.ask_redis("REPLICAOF", "NO", "ONE")
    for to_redis in world.links.redis.values():
        to_redis.target = replica.port
        to_redis.cut()
    yield
    await world.ready()


async def _says(world: World, section: str, text: bytes) -> bool:
    return text in await _info(world, section)


async def _info(world: World, section: str) -> bytes:
    def ask() -> bytes:
        with world.admin() as client:
            client.set_response_callback("INFO", bytes)
            return bytes(client.execute_command("INFO", section))

    return await off(ask)


@failure(ground=Ground(disk=48 * 2**20))
async def disk_full(world: World) -> AsyncIterator[None]:
    """The disk of Redis' append-only file is full, and is given room again."""
    ballast = world.disk / "ballast"
    await off(_fill, ballast)
    try:
        await until(lambda: not world.redis.is_running, "Redis ends, as `always` wants it")
    finally:
        ballast.unlink()
    await off(world.redis.start)
    yield
    await world.ready()


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@failure(gaps=True, ground=FORGETFUL)
async def redis_evicts(world: World) -> AsyncIterator[None]:
    """Redis throws keys away to make room, which `notifier check` warns of."""
    gaps = world.crowd.gaps
    await world.ask_redis("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    used = (await _info(world, "memory")).split(b"used_memory:")[1].split()[0]
    await world.ask_redis("CONFIG", "SET", "maxmemory", str(int(used) - 100_000))
    try:
        await until(lambda: world.crowd.gaps > gaps, "somebody is told of what was evicted")
    finally:
        await world.ask_redis("CONFIG", "SET", "maxmemory", "0")
        await world.ask_redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
    yield
    await world.ready()


@failure()
async def expired_meanwhile(world: World) -> AsyncIterator[None]:
    """Events whose time is over before Redis is back are no longer of use, and leave no hole."""
    await off(world.redis.pause)
    try:
        for user in range(8):
            body = {"users": [f"u{user}"], "type": "late", "ttl": 1}
            world.crowd.expire(f"user:u{user}")
            assert await world.flow.answer_to(body) == httpx.codes.ACCEPTED
        await asyncio.sleep(world.seconds(2, 4))
    finally:
        await off(world.redis.resume)
    yield
    await world.ready()


@failure(ground=Ground(settings={"NOTIFIER_HISTORY_SIZE": "10000", "NOTIFIER_INBOX_SIZE": "10000"}))
async def repeated_on_a_busy_topic(world: World) -> AsyncIterator[None]:
    """An event is posted again after so many others of its topic that a bound is felt."""
    topic = world.crowd.steady[0].recipient.topics[0]
    first = world.flow.large("repeated", topic, 20)
    await world.flow.post([first])
    await world.flow.flood([topic] * 11_500)
    await world.flow.answer_to(first.body())
    yield
