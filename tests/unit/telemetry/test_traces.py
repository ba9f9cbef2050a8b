import asyncio

import pytest

from notifier.adapters.memory.broker import MemoryBroker
from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.core.entries import Entry
from notifier.telemetry.traces import traces


async def test_without_traces_the_adapters_are_used_as_they_are() -> None:
    queue, broker = MemoryEventQueue(), MemoryBroker()

    async with traces("router", wanted=False) as untraced:
        assert untraced.queue(queue) is queue
        assert untraced.source(queue) is queue
        assert untraced.broker(broker) is broker


@pytest.mark.parametrize("body", [b'{"id":"\xff"}', b'{"x":' + b"[" * 10_000, b"\xff", b""])
async def test_an_unreadable_entry_is_taken_with_traces_as_without(body: bytes) -> None:
    async with MemoryEventQueue() as queue, traces("router", wanted=True) as traced:
        await queue.put(Entry(body))

        batch = await anext(traced.source(queue).batches())

        assert [delivery.entry.body for delivery in batch.deliveries] == [body]


async def test_with_traces_too_later_batches_may_pass_one() -> None:
    async with MemoryEventQueue() as queue, traces("router", wanted=True) as traced:
        await queue.put(Entry(b"1"))
        batches = traced.source(queue).batches()
        batch = await anext(batches)
        await queue.put(Entry(b"2"))

        batch.allow_next()

        behind = await asyncio.wait_for(anext(batches), 10)
        assert [delivery.entry.body for delivery in behind.deliveries] == [b"2"]
