"""Runs what is asynchronous beside tests that are not, on a loop in a thread of its own."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = 30.0


@contextmanager
def running(make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Enter what `make` makes on another thread's loop, and leave it there in the end."""
    entered: Future[tuple[T, Callable[[], object]]] = Future()

    async def stay() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with make() as value:
            entered.set_result((value, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    with ThreadPoolExecutor(1, "beside the tests") as threads:
        left = threads.submit(lambda: asyncio.run(stay()))
        either: list[Future[Any]] = [entered, left]
        wait(either, _PATIENCE, FIRST_COMPLETED)
        if left.done():
            left.result()
        value, stop = entered.result(0)
        try:
            yield value
        finally:
            if not left.done():
                stop()
            left.result(_PATIENCE)
