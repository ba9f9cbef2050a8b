"""Python imports this at its start where it is on the path: a server then minds its memory.

On SIGUSR2 it writes what has grown since the last time.
"""

# ruff: noqa: INP001 - a folder for PYTHONPATH, no package

import gc
import os
import signal
import tracemalloc
from pathlib import Path

_before: list[tracemalloc.Snapshot] = []


def tell(*_: object) -> None:
    """Write the growth by line; the first time, only remember what there is."""
    gc.collect()
    now = tracemalloc.take_snapshot()
    lines = now.compare_to(_before[-1], "lineno") if _before else []
    grown = sum(line.size_diff for line in lines)
    text = [f"{grown} bytes in all", *(f"{line.size_diff} {line.traceback}" for line in lines[:40])]
    _before[:] = [now]
    file = Path(os.environ["BENCHMARK_TRACES"], f"{os.getpid()}")
    file.with_suffix(".part").write_text("\n".join(text))
    file.with_suffix(".part").rename(file)


if "BENCHMARK_TRACES" in os.environ:
    tracemalloc.start()
    signal.signal(signal.SIGUSR2, tell)
