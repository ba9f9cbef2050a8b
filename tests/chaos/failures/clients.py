"""Failures of clients, and clients that do harm."""

import asyncio
from collections.abc import AsyncIterator

from tests.chaos.failures.registry import failure
from tests.chaos.world import Ground, World, until

# Half a megabyte each: just more than sockets hold, as the gateway waits five seconds for the
# client to take its close frame.
_FLOOD = 13


@failure()
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
