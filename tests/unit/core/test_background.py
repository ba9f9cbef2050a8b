import asyncio

import pytest

from notifier.core.background import Background, LongLived


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise LookupError("broken")


async def test_running_tasks_are_cancelled_when_the_body_ends() -> None:
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


async def test_an_error_of_the_body_is_raised_as_it_is() -> None:
    tasks = []

    async def body() -> None:
        async with Background() as background:
            tasks.append(background.start(for_ever(), "for ever"))
            await fail()

    with pytest.raises(LookupError):
        await body()
    assert tasks[0].cancelled()


async def test_cancelling_the_body_cancels_the_tasks() -> None:
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


class Ticking(LongLived):
    """Notes in which order its parts end."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.notes: list[str] = []

    def _start(self) -> None:
        self._background.start(self._tick(), "tick")

    async def _tick(self) -> None:
        if self.fails:
            raise ValueError("broken")
        try:
            await asyncio.Event().wait()
        finally:
            self.notes.append("ended")

    async def _close(self) -> None:
        self.notes.append("closed")


async def test_a_long_lived_object_closes_after_its_tasks_have_ended() -> None:
    async with Ticking() as ticking:
        await asyncio.sleep(0)

    assert ticking.notes == ["ended", "closed"]


async def test_a_long_lived_object_closes_though_a_task_of_it_failed() -> None:
    ticking = Ticking(fails=True)

    with pytest.raises(ExceptionGroup):
        async with ticking:
            await asyncio.Event().wait()

    assert ticking.notes == ["closed"]
