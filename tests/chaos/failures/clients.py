"""Failures of clients, and clients that do harm."""

import asyncio
from collections.abc import AsyncIterator

from tests.chaos.failures.registry import failure
from tests.chaos.world import SEND_BUFFER, Ground, World, until_told


@failure()
async def slow_client(world: World) -> AsyncIterator[None]:
    """A client that stops reading while much comes in for it, until it is cut off."""
    closes, slow = world.crowd.all_closes, world.crowd.slow
    cut_off = await _cut_off(world)

    async def is_cut_off() -> bool:
        return await _cut_off(world) > cut_off

    async def is_behind() -> bool:
        return await world.sum_of(world.gateways, "notifier_send_buffer_bytes") > SEND_BUFFER

    slow.reads.clear()
    try:
        while not (await is_behind() or await is_cut_off()):
            await _flood(world)
        await _flood(world)  # with too much waiting already, the next event is too much
        await until_told(is_cut_off, "the slow client is cut off")
    finally:
        slow.reads.set()
    yield
    assert world.crowd.all_closes == closes, "others were closed"


async def _cut_off(world: World) -> float:
    """How many clients read too slowly; on a busy machine, a heartbeat may notice it first."""
    name, reasons = "notifier_connections_closed_total", ("slow_consumer", "heartbeat_timeout")
    return sum([await world.sum_of(world.gateways, name, reason=each) for each in reasons])


async def _flood(world: World) -> None:
    topic = world.crowd.slow.recipient.topics[0]
    await world.flow.post([world.flow.large("flood", topic, 60_000) for _ in range(8)])


@failure()
async def client_links_reset(world: World) -> AsyncIterator[None]:
    """The connections of all clients of a gateway are silent, then reset."""
    link = world.chance.choice(list(world.links.gateways.values()))
    link.silence()
    await asyncio.sleep(world.seconds(0, 2))
    link.cut()
    link.heal()
    yield


@failure()
async def client_links_slow(world: World) -> AsyncIterator[None]:
    """The connections of all clients of a gateway are slow and drip."""
    link = world.chance.choice(list(world.links.gateways.values()))
    link.latency, link.rate = world.seconds(0.05, 0.5), world.chance.randint(2_000, 20_000)
    await asyncio.sleep(world.seconds(0.5, 3))
    link.heal()
    yield


@failure(ground=Ground(settings={"NOTIFIER_HISTORY_SIZE": "10000", "NOTIFIER_INBOX_SIZE": "10000"}))
async def long_absence(world: World) -> AsyncIterator[None]:
    """Somebody comes back to 5,000 events."""
    client = world.chance.choice(world.crowd.steady)
    client.leave()
    try:
        await world.flow.flood([client.recipient.topics[0]] * 5_000)
    finally:
        client.come_back()
    yield


# An event that is gone from history comes back whether it was received or not: nobody marks here.
@failure(
    gaps=True,
    ground=Ground(settings={"NOTIFIER_HISTORY_SIZE": "1", "NOTIFIER_INBOX_SIZE": "1"}, acts=False),
)
async def history_of_one(world: World) -> AsyncIterator[None]:
    """Somebody comes back to more than history keeps, which is one event."""
    gaps = world.crowd.gaps
    client = world.chance.choice(world.crowd.steady)
    client.leave()
    try:
        await world.flow.flood([client.recipient.topics[0]] * 3)
        await asyncio.sleep(world.seconds(0, 1))
    finally:
        client.come_back()
    yield
    assert world.crowd.gaps > gaps, "nobody was told"
