"""Python imports this at its start where it is on the path: a server then minds itself.

With BENCHMARK_TRACES it writes on SIGUSR2 what memory has grown since the last time; with
BENCHMARK_TURNS, how long the turns of its event loop were.
"""

# ruff: noqa: INP001 - a folder for PYTHONPATH, no package

import asyncio
import gc
import json
import os
import signal
import time
import tracemalloc
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

_before: list[tracemalloc.Snapshot] = []
_run = asyncio.Runner.run


def _write(directory: str, text: str) -> None:
    file = Path(directory, f"{os.getpid()}")
    file.with_suffix(".part").write_text(text)
    file.with_suffix(".part").rename(file)


def tell(*_: object) -> None:
    """Write the growth by line; the first time, only remember what there is."""
    gc.collect()
    now = tracemalloc.take_snapshot()
    lines = now.compare_to(_before[-1], "lineno") if _before else []
    grown = sum(line.size_diff for line in lines)
    text = [f"{grown} bytes in all", *(f"{line.size_diff} {line.traceback}" for line in lines[:40])]
    _before[:] = [now]
    _write(os.environ["BENCHMARK_TRACES"], "\n".join(text))


class Turns:
    """The turns of an event loop, each from one call of `_turn` to the next.

    It asks the loop to call it in every turn, so the loop never sleeps while it is being watched:
    whatever happens between two calls, in Python or below it, is in the time between them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watches = False
        self._count = self._cpu = self._wall = self._collector = 0
        self._last = (0, 0)
        self._began = 0
        gc.callbacks.append(self._collected)
        signal.signal(signal.SIGUSR2, lambda *_: loop.call_soon_threadsafe(self._begin_or_tell))

    def _begin_or_tell(self) -> None:
        if self._watches:
            figures = {"cpu_ms": self._cpu, "wall_ms": self._wall, "collector_ms": self._collector}
            _write(
                os.environ["BENCHMARK_TURNS"],
                json.dumps({"turns": self._count, **{k: v / 1e6 for k, v in figures.items()}}),
            )
        else:
            self._count = self._cpu = self._wall = self._collector = 0
            self._last = time.thread_time_ns(), time.monotonic_ns()
            self._loop.call_soon(self._turn)
        self._watches = not self._watches

    def _turn(self) -> None:
        now = time.thread_time_ns(), time.monotonic_ns()
        self._cpu = max(self._cpu, now[0] - self._last[0])
        self._wall = max(self._wall, now[1] - self._last[1])
        self._count += 1
        self._last = now
        if self._watches:
            self._loop.call_soon(self._turn)

    def _collected(self, phase: str, _: object) -> None:
        if not self._watches:
            return
        if phase == "start":
            self._began = time.thread_time_ns()
        else:
            self._collector = max(self._collector, time.thread_time_ns() - self._began)


def run(runner: asyncio.Runner, main: Coroutine[Any, Any, Any], **options: Any) -> Any:  # noqa: ANN401 - whatever it returns
    """Run a program in a loop that is watched; see asyncio.Runner.run."""
    Turns(runner.get_loop())
    return _run(runner, main, **options)


if "BENCHMARK_TRACES" in os.environ:
    tracemalloc.start()
    signal.signal(signal.SIGUSR2, tell)
if "BENCHMARK_TURNS" in os.environ:
    asyncio.Runner.run = run  # type: ignore[method-assign, assignment]
