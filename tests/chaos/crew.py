"""Tasks that run beside a campaign."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable
from typing import Any, Self

_MOST_CANCELLATIONS = 60  # of a task, a second apart


class Crew(ABC):
    """Does its work while it is entered, and raises the error that ended a part of it."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    @abstractmethod
    def work(self) -> Iterable[Coroutine[Any, Any, None]]:
        """Return the parts of the work, each to be run in a task."""

    async def __aenter__(self) -> Self:
        name = type(self).__name__.lower()
        self._tasks = [asyncio.create_task(each, name=name) for each in self.work()]
        return self

    async def __aexit__(self, *_: object) -> None:
        left = set(self._tasks)
        for __ in range(_MOST_CANCELLATIONS):
            for task in left:
                task.cancel()  # perhaps not for the first time: aiormq can swallow it
            left = (await asyncio.wait(left, timeout=1))[1] if left else left
        assert not left, f"{left} go on when they are cancelled"
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    def see_that_all_live(self) -> None:
        """Raise the error that ended a part."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise AssertionError(f"a {task.get_name()} task has ended")
