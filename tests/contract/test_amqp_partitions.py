"""How the routers' ends on one RabbitMQ share the partitions out, and lose or disorder nothing."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

import aiormq
import pytest
from aiormq.abc import DeliveredMessage

from notifier.adapters.memory.roster import MemoryRoster
from notifier.adapters.rabbitmq import partition
from notifier.adapters.rabbitmq.queue import AmqpEventQueue
from notifier.adapters.rabbitmq.source import AmqpEventSource
from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.ports import Batch, Roster
from notifier.telemetry.metrics import Metrics
from tests.support.eventually import eventually

pytestmark = pytest.mark.services

PARTITIONS = 6
USERS = range(60)


class FickleRoster(MemoryRoster):
    """A roster that is away whenever a test says so."""

    away = False

    async def announce(self, router: str) -> frozenset[str]:
        if self.away:
            raise Unavailable("redis", "away")
        return await super().announce(router)

    async def withdraw(self, router: str) -> None:
        if self.away:
            raise Unavailable("redis", "away")
        await super().withdraw(router)


def source_on(url: str, roster: Roster) -> AmqpEventSource:
    return AmqpEventSource(url, partitions=PARTITIONS, roster=roster, metrics=Metrics())


def queue_on(url: str) -> AmqpEventQueue:
    return AmqpEventQueue(url, partitions=PARTITIONS, metrics=Metrics())


def owned(source: AmqpEventSource) -> list[str]:
    return [name for name in source.partitions if "events" in name]


async def evenly(*sources: AmqpEventSource) -> None:
    """Wait until each partition is taken from by one of them, and by each as many."""
    share = PARTITIONS // len(sources)

    def is_even() -> bool:
        all_owned = [name for source in sources for name in owned(source)]
        counts = {len(owned(source)) for source in sources}
        return counts == {share} and len(set(all_owned)) == PARTITIONS

    # Where connecting took long, a standby was there before the owner, and has its turn of 30 s.
    await eventually(is_even, seconds=90)


async def put_for_all(queue: AmqpEventQueue, numbers: Sequence[int]) -> None:
    """Put an entry of each number for each user, those of one user one after another."""

    async def put_for(user: int) -> None:
        for number in numbers:
            await queue.put(Entry(str(number).encode(), f"user.{user}"))

    await eventually(lambda: queue.trouble is None)
    await asyncio.gather(*(put_for(user) for user in USERS))


class Taking:
    """The entries that sources with one queue have acked, by routing key, as they took them."""

    def __init__(self) -> None:
        self.acked: dict[str, list[int]] = defaultdict(list)

    async def from_(self, source: AmqpEventSource) -> None:
        async for batch in source.batches():
            await asyncio.sleep(0)
            await self.settle(batch)

    async def settle(self, batch: Batch) -> None:
        with suppress(Unavailable):
            await batch.ack()
            for delivery in batch.deliveries:
                self.acked[delivery.entry.routing_key].append(int(delivery.entry.body))

    def has_any_of(self, keys: Iterable[str]) -> bool:
        return any(key in self.acked for key in keys)

    @property
    def count(self) -> int:
        return sum(map(len, self.acked.values()))


async def batches_of_all_partitions(batches: AsyncIterator[Batch]) -> list[Batch]:
    return [await asyncio.wait_for(anext(batches), 20) for _ in range(PARTITIONS)]


async def test_sources_share_the_partitions_evenly_as_they_come_and_go(amqp_url: str) -> None:
    roster = MemoryRoster()
    async with source_on(amqp_url, roster) as first, source_on(amqp_url, roster) as second:
        await evenly(first, second)

        async with source_on(amqp_url, roster) as third:
            await evenly(first, second, third)

        await evenly(first, second)


async def test_a_partition_moves_only_after_its_open_batch_and_the_rest_comes_in_order(
    amqp_url: str,
) -> None:
    roster, taking = MemoryRoster(), Taking()
    async with queue_on(amqp_url) as queue, source_on(amqp_url, roster) as first:
        await put_for_all(queue, range(60))  # 600 a partition, so the prefetch is used up
        open_batches = await batches_of_all_partitions(first.batches())
        async with source_on(amqp_url, roster) as second, asyncio.TaskGroup() as tasks:
            await eventually(lambda: len(owned(first)) == PARTITIONS // 2)
            tasks.create_task(taking.from_(second))
            await eventually(lambda: len(owned(second)) == PARTITIONS // 2)
            assert not taking.acked
            for batch in open_batches:
                await taking.settle(batch)
            assert taking.count == sum(len(batch.deliveries) for batch in open_batches)

            tasks.create_task(taking.from_(first))
            await eventually(lambda: taking.count >= 60 * len(USERS))
            first.stop()
            second.stop()

    assert taking.acked == {f"user.{user}": list(range(60)) for user in USERS}


async def test_while_sources_start_and_shut_down_entries_come_once_and_in_order(
    amqp_url: str,
) -> None:
    roster, taking = MemoryRoster(), Taking()
    async with (
        queue_on(amqp_url) as queue,
        source_on(amqp_url, roster) as constant,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(taking.from_(constant))
        putting = tasks.create_task(put_for_all(queue, range(100)))
        while not putting.done():
            async with source_on(amqp_url, roster) as passing:
                taker = tasks.create_task(taking.from_(passing))
                await evenly(constant, passing)
                passing.stop()
                await taker  # finishes what it has begun
        await eventually(lambda: taking.count >= 100 * len(USERS))
        constant.stop()

    assert taking.acked == {f"user.{user}": list(range(100)) for user in USERS}


async def test_a_source_that_is_stopped_gives_up_each_partition_as_its_batch_is_settled(
    amqp_url: str,
) -> None:
    roster, taking = MemoryRoster(), Taking()
    async with (
        queue_on(amqp_url) as queue,
        source_on(amqp_url, roster) as first,
        AsyncExitStack() as joining,
    ):
        # The first is there before: else RabbitMQ may give one of its partitions to the standby.
        await eventually(lambda: len(owned(first)) == PARTITIONS)
        second = await joining.enter_async_context(source_on(amqp_url, roster))
        await evenly(first, second)
        await put_for_all(queue, range(20))  # 200 a partition, of which a batch leaves some
        batches = first.batches()
        held = [await asyncio.wait_for(anext(batches), 20) for _ in owned(first)]

        first.stop()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(taking.from_(second))
            for batch in held:
                keys = {delivery.entry.routing_key for delivery in batch.deliveries}
                assert not taking.has_any_of(keys)
                await batch.ack()
                await eventually(partial(taking.has_any_of, keys))
            second.stop()


async def test_while_the_roster_is_away_others_take_over_the_partitions_of_a_lost_source(
    amqp_url: str,
) -> None:
    roster, taking = FickleRoster(), Taking()
    async with queue_on(amqp_url) as queue, AsyncExitStack() as leaving:
        staying = await leaving.enter_async_context(source_on(amqp_url, roster))
        async with source_on(amqp_url, roster) as lost:
            await evenly(staying, lost)
            roster.away = True
        await put_for_all(queue, [0])

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(taking.from_(staying))
            await eventually(lambda: taking.count == len(USERS))
            staying.stop()


async def test_a_standby_that_has_a_partition_for_long_offers_it_to_others(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "_TURN", 0.5)
    roster = MemoryRoster(lifetime_seconds=60)
    await roster.announce("one that is there, and does not consume yet")
    waiting: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
    async with (
        queue_on(amqp_url) as queue,
        source_on(amqp_url, roster) as standby,
        aiormq.connect(amqp_url) as connection,
        asyncio.TaskGroup() as tasks,
    ):
        await eventually(lambda: bool(owned(standby)))
        mine = owned(standby)
        tasks.create_task(Taking().from_(standby))
        await put_for_all(queue, [0])
        await eventually(lambda: len(owned(standby)) == PARTITIONS)
        channel = await connection.channel()
        for name in {f"notifier.events.{number}" for number in range(PARTITIONS)} - {*mine}:
            await channel.basic_consume(name, waiting.put)

        putting = tasks.create_task(put_for_all(queue, range(10_000)))
        message = await asyncio.wait_for(waiting.get(), 20)
        putting.cancel()
        standby.stop()

    assert message.body


async def test_without_any_roster_a_source_takes_from_all_partitions(amqp_url: str) -> None:
    roster = FickleRoster()
    roster.away = True

    async with source_on(amqp_url, roster) as source:
        await eventually(lambda: len(owned(source)) == PARTITIONS and source.trouble is None)
