import asyncio
import time

from notifier.adapters.rabbitmq.standstill import Standstill


async def test_a_loop_that_is_blocked_stood_still_whoever_looks_first() -> None:
    standstill = Standstill()
    watching = asyncio.create_task(standstill.watch())
    await asyncio.sleep(0)
    before = standstill.count()

    time.sleep(1.1)  # noqa: ASYNC251 - the loop is to be blocked
    await asyncio.sleep(0.3)  # so that the watch has looked

    watching.cancel()
    assert standstill.count() == before + 1
