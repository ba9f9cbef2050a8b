import asyncio

from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.core.entries import Entry


async def test_it_is_idle_once_all_that_was_put_is_acked() -> None:
    async with MemoryEventQueue() as queue:
        await queue.idle()
        await queue.put(Entry(b"{}"))
        idle = asyncio.ensure_future(queue.idle())

        batch = await anext(aiter(queue.batches()))
        await asyncio.sleep(0)
        assert not idle.done()
        await batch.ack()
        await asyncio.wait_for(idle, 30)
