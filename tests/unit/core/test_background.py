import asyncio

import pytest

from notifier.core.background import Background


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise LookupError("broken")


async def test_what_still_runs_is_cancelled_when_the_body_ends() -> None:
    async with Background() as background:
        task = background.start(for_ever(), "for ever")

    assert task.cancelled()


async def test_a_task_has_its_name() -> None:
    async with Background() as background:
        assert background.start(for_ever(), "for ever").get_name() == "for ever"


async def test_a_task_that_fails_ends_the_body() -> None:
    others = []

    async def body() -> None:
        async with Background() as background:
            others.append(background.start(for_ever(), "other"))
            background.start(fail(), "failing")
            await for_ever()

    with pytest.raises(ExceptionGroup) as caught:
        await body()
    assert caught.group_contains(LookupError, match="broken")
    assert others[0].cancelled()


async def test_what_the_body_raises_goes_on_as_it_is() -> None:
    tasks = []

    async def body() -> None:
        async with Background() as background:
            tasks.append(background.start(for_ever(), "for ever"))
            await fail()

    with pytest.raises(LookupError):
        await body()
    assert tasks[0].cancelled()


async def test_whoever_cancels_the_body_cancels_the_tasks() -> None:
    started = asyncio.Event()

    async def body() -> None:
        async with Background() as background:
            background.start(for_ever(), "for ever")
            started.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(body())
    await started.wait()
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
