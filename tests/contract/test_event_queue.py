"""The promises of every event queue.

To add an adapter, write a class like MemoryHarness: how to open its two ends, how to read the dead
letters and how to fill it up. Then add a parameter to `harness`; one that needs a service gets it
by the name of its fixture and carries `marks=pytest.mark.services`.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import aiormq
import httpx
import pytest

from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.adapters.memory.roster import MemoryRoster
from notifier.adapters.rabbitmq.queue import AmqpEventQueue
from notifier.adapters.rabbitmq.source import AmqpEventSource
from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.ports import Batch, EventQueue, EventSource
from notifier.core.reports import DeliveryReport, Report
from notifier.core.undelivered import WAITED, HandedBack, Reason
from notifier.telemetry.metrics import Metrics
from tests.support.batches import make_dead
from tests.support.eventually import eventually
from tests.support.tls import NO_AUTHORITIES

LARGEST_BATCH = 64
NOW = 1_769_851_800.0


class Kept(NamedTuple):
    """A dead letter, as operators find it."""

    body: bytes
    routing_key: str
    code: str
    reason: str


class Back(NamedTuple):
    """An event that was handed back, as a consumer of producers gets it."""

    user: str
    reason: str
    event: bytes
    id: str


class Harness(Protocol):
    def queue(self) -> AbstractAsyncContextManager[EventQueue]: ...
    def source(self) -> AbstractAsyncContextManager[EventSource]: ...
    async def dead_letters(self) -> list[Kept]: ...
    async def handed_back(self) -> list[Back]: ...
    async def reports(self) -> list[DeliveryReport]: ...
    async def limit(self) -> None: ...


class MemoryHarness:
    def __init__(self) -> None:
        self._memory = MemoryEventQueue()

    def queue(self) -> AbstractAsyncContextManager[EventQueue]:
        return _Both(self._memory)

    def source(self) -> AbstractAsyncContextManager[EventSource]:
        return self._memory

    async def dead_letters(self) -> list[Kept]:
        return [
            Kept(letter.entry.body, letter.entry.routing_key, letter.code, letter.reason)
            for letter in self._memory.dead_letters
        ]

    async def handed_back(self) -> list[Back]:
        return [
            Back(each.user, each.reason, each.event, each.id) for each in self._memory.handed_back
        ]

    async def reports(self) -> list[DeliveryReport]:
        return list(self._memory.reports)

    async def limit(self) -> None:
        """It has a limit by itself."""


class _Both(AbstractAsyncContextManager[EventQueue]):
    """The producers' end of what the routers' end opens and closes."""

    def __init__(self, memory: MemoryEventQueue) -> None:
        self._memory = memory

    async def __aenter__(self) -> EventQueue:
        return self._memory

    async def __aexit__(self, *_: object) -> None:
        """Nothing to end."""


class AmqpHarness:
    def __init__(self, url: str, management_url: str, partitions: int) -> None:
        self._url = url
        self._management_url = management_url
        self._partitions = partitions
        self._roster = MemoryRoster()

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[EventQueue]:
        """Wait for the connection: a put would, but only for a second."""
        url, partitions = self._url, self._partitions
        async with AmqpEventQueue(url, partitions=partitions, metrics=Metrics()) as queue:
            await eventually(lambda: queue.trouble is None, seconds=20)
            yield queue

    def source(self) -> AbstractAsyncContextManager[EventSource]:
        return AmqpEventSource(
            self._url, partitions=self._partitions, roster=self._roster, metrics=Metrics()
        )

    async def dead_letters(self) -> list[Kept]:
        return [_kept(message) for message in await self._taken_from("notifier.dead")]

    async def handed_back(self) -> list[Back]:
        """Take them from where they are while no consumer has bound a queue."""
        return [_back(message) for message in await self._taken_from("notifier.unclaimed")]

    async def reports(self) -> list[DeliveryReport]:
        """Take them from there too."""
        return [_report(message) for message in await self._taken_from("notifier.unclaimed")]

    async def _taken_from(self, queue: str) -> list[aiormq.abc.DeliveredMessage]:
        async with aiormq.connect(self._url) as connection:
            channel = await connection.channel()
            found = [await channel.basic_get(queue, no_ack=True)]
            while found[-1].message_count:
                found.append(await channel.basic_get(queue, no_ack=True))
        return [message for message in found if message.delivery_tag]

    async def limit(self) -> None:
        policy = {"pattern": ".*", "apply-to": "queues", "definition": {"max-length": 1}}
        vhost = urlsplit(self._url).path[1:]
        async with httpx.AsyncClient(
            base_url=self._management_url, timeout=30, verify=NO_AUTHORITIES
        ) as management:
            answer = await management.put(f"/api/policies/{vhost}/limit", json=policy)
        answer.raise_for_status()


def _kept(message: aiormq.abc.DeliveredMessage) -> Kept:
    headers: dict[str, Any] = message.header.properties.headers or {}
    return Kept(
        message.body,
        headers["notifier-routing-key"],
        headers["notifier-reason"],
        headers["notifier-error"],
    )


def _report(message: aiormq.abc.DeliveredMessage) -> DeliveryReport:
    own, headers = message.header.properties, message.header.properties.headers or {}
    kind, user = Report(str(headers["notifier-report"])), str(headers["notifier-user"])
    assert message.routing_key == f"{kind}.user.{user}"
    assert own.content_type == "application/cloudevents+json"
    return DeliveryReport(kind, user, message.body, own.message_id or "")


def _back(message: aiormq.abc.DeliveredMessage) -> Back:
    headers: dict[str, Any] = message.header.properties.headers or {}
    assert message.routing_key == f"user.{headers['notifier-user']}"
    assert message.header.properties.content_type == "application/cloudevents+json"
    return Back(
        headers["notifier-user"],
        headers["notifier-reason"],
        message.body,
        message.header.properties.message_id or "",
    )


@pytest.fixture(
    params=[
        "memory",
        pytest.param(1, id="rabbitmq-1-partition", marks=pytest.mark.services),
        pytest.param(3, id="rabbitmq-3-partitions", marks=pytest.mark.services),
    ]
)
def harness(request: pytest.FixtureRequest) -> Harness:
    if request.param == "memory":
        return MemoryHarness()
    url = request.getfixturevalue("amqp_url")
    return AmqpHarness(url, request.getfixturevalue("amqp_management_url"), request.param)


@pytest.fixture
async def queue(harness: Harness) -> AsyncIterator[EventQueue]:
    async with harness.queue() as queue:
        yield queue


@pytest.fixture
async def source(harness: Harness) -> AsyncIterator[EventSource]:
    async with harness.source() as source:
        yield source


async def next_batch(batches: AsyncIterator[Batch]) -> Batch:
    return await asyncio.wait_for(anext(batches), 10)


async def take(source: EventSource, count: int) -> list[Entry]:
    """Take and ack so many entries, or more when a batch has more."""
    taken: list[Entry] = []
    batches = source.batches()
    while len(taken) < count:
        batch = await next_batch(batches)
        taken += entries_of(batch)
        await batch.ack()
    return taken


def entries_of(batch: Batch) -> list[Entry]:
    return [delivery.entry for delivery in batch.deliveries]


def bodies_of(batch: Batch) -> list[bytes]:
    return [entry.body for entry in entries_of(batch)]


def numbered(count: int, routing_key: str) -> list[Entry]:
    return [Entry(str(number).encode(), routing_key) for number in range(count)]


async def test_an_entry_comes_out_with_its_headers_and_properties(
    queue: EventQueue, source: EventSource
) -> None:
    entry = Entry(
        body=b'{"type":"greeting"}',
        routing_key="user.42",
        content_type="application/json",
        headers={"cloudEvents:id": "7", "attempt": 3},
        app_id="shop",
        type="greeting",
        accepted=1_700_000_000.123,
    )

    await queue.put(entry)

    [taken] = await take(source, 1)
    assert taken.message_id
    assert taken == Entry(
        body=b'{"type":"greeting"}',
        routing_key="user.42",
        content_type="application/json",
        headers={"cloudEvents:id": "7", "attempt": 3},
        message_id=taken.message_id,
        app_id="shop",
        type="greeting",
        accepted=1_700_000_000.123,
    )


async def test_properties_that_nobody_gave_stay_unset(
    queue: EventQueue, source: EventSource
) -> None:
    await queue.put(Entry(b"{}"))

    [taken] = await take(source, 1)
    assert taken == Entry(b"{}", message_id=taken.message_id)


async def test_entries_of_one_key_come_out_in_order(queue: EventQueue, source: EventSource) -> None:
    keys = [f"user.{user}" for user in range(5)]
    for body, key in itertools.product(range(40), keys):
        await queue.put(Entry(str(body).encode(), key))

    taken = await take(source, 200)

    for key in keys:
        assert [int(e.body) for e in taken if e.routing_key == key] == list(range(40))


async def test_many_puts_at_once_all_arrive_once(queue: EventQueue, source: EventSource) -> None:
    await asyncio.gather(*(queue.put(entry) for entry in numbered(300, "everyone")))

    taken = await take(source, 300)

    assert sorted(int(entry.body) for entry in taken) == list(range(300))


async def test_entries_put_together_arrive_once_and_in_order(
    queue: EventQueue, source: EventSource
) -> None:
    assert await queue.put_each(numbered(300, "everyone")) == [None] * 300

    taken = await take(source, 300)

    assert [int(entry.body) for entry in taken] == list(range(300))


async def test_nothing_can_be_put_together(queue: EventQueue) -> None:
    assert await queue.put_each([]) == []


async def test_each_entry_of_those_put_together_gets_an_outcome_of_its_own(
    harness: Harness, queue: EventQueue, source: EventSource
) -> None:
    await harness.limit()

    outcomes = await queue.put_each(numbered(20_000, "user.42"))

    refused = [outcome for outcome in outcomes if outcome]
    assert len(outcomes) == 20_000
    assert refused
    assert all(isinstance(outcome, Unavailable) for outcome in refused)
    confirmed = {number for number, outcome in enumerate(outcomes) if outcome is None}
    taken: set[int] = set()
    while not confirmed <= taken:
        taken |= {int(entry.body) for entry in await take(source, 1)}


async def test_one_entry_put_twice_at_once_arrives_twice(
    queue: EventQueue, source: EventSource
) -> None:
    entry = Entry(b"{}", "everyone")

    await asyncio.gather(queue.put(entry), queue.put(entry))

    first, second = await take(source, 2)
    assert first.message_id != second.message_id


async def test_an_acked_entry_is_not_redelivered(harness: Harness, queue: EventQueue) -> None:
    await queue.put(Entry(b"acked", "user.42"))
    async with harness.source() as first:
        await take(first, 1)

    await queue.put(Entry(b"new", "user.42"))

    async with harness.source() as second:
        assert [entry.body for entry in await take(second, 1)] == [b"new"]


async def test_unacked_entries_are_redelivered_in_order_to_the_next_source(
    harness: Harness, queue: EventQueue
) -> None:
    for entry in numbered(150, "user.42"):
        await queue.put(entry)
    async with harness.source() as first:
        batches = first.batches()
        acked = await next_batch(batches)
        await acked.ack()
        await next_batch(batches)

    async with harness.source() as second:
        taken = await take(second, 150 - len(acked.deliveries))

    assert [int(entry.body) for entry in taken] == list(range(150))[len(acked.deliveries) :]


async def test_a_batch_of_a_source_that_is_closed_cannot_be_acked(
    harness: Harness, queue: EventQueue
) -> None:
    await queue.put(Entry(b"{}", "user.42"))
    async with harness.source() as source:
        batch = await next_batch(source.batches())

    with pytest.raises(Unavailable):
        await batch.ack()


async def test_batches_have_a_bound(queue: EventQueue, source: EventSource) -> None:
    for entry in numbered(LARGEST_BATCH + 1, "user.42"):
        await queue.put(entry)
    batches = source.batches()
    sizes: list[int] = []

    while sum(sizes) < LARGEST_BATCH + 1:
        batch = await next_batch(batches)
        sizes.append(len(batch.deliveries))
        await batch.ack()

    assert max(sizes) <= LARGEST_BATCH


async def test_the_next_batch_comes_only_after_this_one_is_settled(
    queue: EventQueue, source: EventSource
) -> None:
    for entry in numbered(LARGEST_BATCH + 1, "user.42"):
        await queue.put(entry)
    batches = source.batches()
    batch = await next_batch(batches)
    waiting = asyncio.ensure_future(next_batch(batches))

    # A round trip, and some turns of the loop, in which a batch would come too early.
    await queue.put(Entry(b"last", "user.42"))
    for _ in range(10):
        await asyncio.sleep(0)
    came_too_early = waiting.done()
    await batch.ack()

    assert not came_too_early
    assert bodies_of(await waiting)[0] == str(len(batch.deliveries)).encode()


async def test_the_next_batch_comes_when_this_one_allows_it(
    queue: EventQueue, source: EventSource
) -> None:
    await queue.put(Entry(b"1", "user.42"))
    batches = source.batches()
    first = await next_batch(batches)

    first.allow_next()
    await queue.put(Entry(b"2", "user.42"))
    second = await next_batch(batches)
    await second.ack()
    await first.ack()
    await queue.put(Entry(b"3", "user.42"))

    assert bodies_of(first) + bodies_of(second) == [b"1", b"2"]
    assert bodies_of(await next_batch(batches)) == [b"3"]


async def test_a_batch_that_allowed_the_next_is_redelivered_though_the_next_is_acked(
    harness: Harness, queue: EventQueue
) -> None:
    async with harness.source() as first:
        batches = first.batches()
        await queue.put(Entry(b"first", "user.42"))
        passed = await next_batch(batches)
        await queue.put_each(numbered(5, "user.42"))
        passed.allow_next()
        acked: list[bytes] = []
        while len(acked) < 5:
            batch = await next_batch(batches)
            acked += bodies_of(batch)
            await batch.ack()

    await queue.put(Entry(b"new", "user.42"))
    async with harness.source() as second:
        taken = await take(second, 2)

    assert [entry.body for entry in taken] == [b"first", b"new"]


async def test_after_stop_all_that_allowed_the_next_can_be_settled(
    harness: Harness, queue: EventQueue
) -> None:
    async with harness.source() as first:
        batches = first.batches()
        unsettled: list[Batch] = []
        for entry in numbered(3, "user.42"):
            await queue.put(entry)
            unsettled.append(await next_batch(batches))
            unsettled[-1].allow_next()

        first.stop()
        for batch in unsettled:
            await batch.ack()
            await queue.put(Entry(b"new", "user.42"))  # time enough to leave too early

    async with harness.source() as second:
        assert [entry.body for entry in await take(second, 1)][:1] == [b"new"]


async def test_dead_letters_are_kept_with_the_reason_and_the_original(
    harness: Harness, queue: EventQueue, source: EventSource
) -> None:
    await queue.put(Entry(b"not JSON", "user.42"))
    batch = await next_batch(source.batches())

    await make_dead(batch, batch.deliveries[0], "invalid", "data: must be JSON")
    await batch.ack()

    assert await harness.dead_letters() == [
        Kept(b"not JSON", "user.42", "invalid", "data: must be JSON")
    ]


async def test_stop_ends_batches_while_they_are_waited_for(source: EventSource) -> None:
    waiting = asyncio.ensure_future(next_batch(source.batches()))

    source.stop()

    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_no_batch_begins_after_stop_and_the_open_one_can_be_settled(
    harness: Harness, queue: EventQueue
) -> None:
    for entry in numbered(LARGEST_BATCH + 1, "user.42"):
        await queue.put(entry)
    async with harness.source() as source:
        batches = source.batches()
        batch = await next_batch(batches)

        source.stop()
        await batch.ack()

        with pytest.raises(StopAsyncIteration):
            await next_batch(batches)
    async with harness.source() as next_source:
        [first, *_] = await take(next_source, 1)
    assert first.body == str(len(batch.deliveries)).encode()


async def test_put_says_when_the_queue_takes_no_more(harness: Harness, queue: EventQueue) -> None:
    await harness.limit()

    async def fill() -> None:
        for entry in numbered(20_000, "user.42"):
            await queue.put(entry)

    with pytest.raises(Unavailable):
        await fill()


async def test_there_is_no_trouble_while_both_ends_work(
    queue: EventQueue, source: EventSource
) -> None:
    await queue.put(Entry(b"{}", "user.42"))
    await take(source, 1)

    await eventually(lambda: queue.trouble is None and source.trouble is None)


async def test_an_entry_that_waits_is_delivered_once_more_after_its_delay(harness: Harness) -> None:
    entries = [Entry(b"a", "user.42", WAITED, accepted=NOW), Entry(b"b", "users.ab", WAITED)]
    async with harness.source() as source:
        await eventually(lambda: source.trouble is None, seconds=30)
        before = asyncio.get_running_loop().time()
        await source.wait([(entry, 1) for entry in entries])

        taken: list[Entry] = []
        async with asyncio.timeout(30):
            async for batch in source.batches():
                taken += [delivery.entry for delivery in batch.deliveries]
                await batch.ack()
                if len(taken) == len(entries):
                    break

    assert asyncio.get_running_loop().time() - before > 0.9
    assert sorted((each.body, each.content_type) for each in taken) == [
        (b"a", WAITED),
        (b"b", WAITED),
    ]
    [first] = [each for each in taken if each.body == b"a"]
    assert first.accepted == NOW


async def test_events_are_handed_back_with_their_user_reason_and_id(harness: Harness) -> None:
    users = ("42", "ann@example.org")
    back = [HandedBack(user, Reason.OFFLINE, b"{}", user * 2) for user in users]
    async with harness.source() as source:
        await eventually(lambda: source.trouble is None, seconds=30)

        await source.hand_back(back)

        found = await harness.handed_back()
    assert found == [Back(user, "offline", b"{}", user * 2) for user in users]


async def test_reports_come_with_their_kind_user_and_id(harness: Harness) -> None:
    users = ("42", "ann@example.org")
    sent = [DeliveryReport(kind, user, b"{}", user * 2) for user in users for kind in Report]
    async with harness.source() as source:
        await eventually(lambda: source.trouble is None, seconds=30)

        await source.report(sent)

        assert await harness.reports() == sent
