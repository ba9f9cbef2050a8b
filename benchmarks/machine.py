"""The machine: which cores do what, what a process has cost, and what is told with the results."""

import os
import platform
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER_CORE = 0
CLIENT_CORE = 1  # with Redis, RabbitMQ and whoever publishes
# Where a server of several processes runs. Read before this process confines itself to one core.
SERVER_CORES = sorted(os.sched_getaffinity(0) - {CLIENT_CORE})
FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # as many as may be open


@contextmanager
def on_core(*cores: int) -> Iterator[None]:
    """Start processes on one core, or some, while inside: they inherit it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Stop a process while inside, so that afterwards all its work is there at once."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def cpu_seconds(pid: int) -> float:
    """Return what a process, its threads and its children have used, to the nanosecond."""
    tasks = (task for each in _family(pid) for task in Path(f"/proc/{each}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_bytes(pid: int) -> int:
    """Return the memory that a process and its children hold, shared pages counted once."""
    return sum(_proportional(each) for each in _family(pid))


def _proportional(pid: int) -> int:
    found = re.search(
        r"^Pss: +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
    )
    return int(found[1]) * 1024 if found else 0


def description() -> dict[str, str | int]:
    """Return what a reader needs to know of this machine, and nothing that tells whose it is."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(int(memory[1]) / 2**20) if memory else 0,
        "kernel": f"Linux {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
    }
