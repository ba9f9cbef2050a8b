"""Tasks that run beside something long-lived: each has an owner and a name."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


class Background:
    """Owns tasks for as long as the body of its `async with` lasts, then cancels the others.

    A task that fails cancels the body; its error is raised in a group. An error of the body itself
    is raised as it is.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` in a task of that name."""
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        if isinstance(error, asyncio.CancelledError):  # which may be the group's own doing
            await self._group.__aexit__(kind, error, trace)
        else:
            await self._group.__aexit__(None, None, None)


class LongLived:
    """The base of an object that is entered once and owns background tasks meanwhile.

    A subclass starts its tasks in `_start`. It closes connections in `_close`, which runs after
    the tasks have ended, even if one of them failed.
    """

    def __init__(self) -> None:
        self._background = Background()

    async def __aenter__(self) -> Self:
        await self._background.__aenter__()
        self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._finish(error)
        finally:
            try:
                await self._background.__aexit__(kind, error, trace)
            finally:
                await self._close()

    def _start(self) -> None:
        """Start the tasks that run from the beginning."""

    async def _finish(self, error: BaseException | None) -> None:
        """Hear that the block has ended, by `error` if there is one; the tasks still run."""

    async def _close(self) -> None:
        """Close connections and release resources; called once."""
