"""Where the time goes: py-spy over a role's Python, perf over what the kernel does for it.

And where the memory goes, by tracemalloc in the server itself, which halves its speed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from benchmarks.delivering import Watch
from benchmarks.machine import CLIENT_CORE, on_core
from benchmarks.rows import MEMORY
from tests.support.process import wait_until

TRACING = Path(__file__).parent / "tracing"
MOST = 45
RATE = "200"  # samples a second


def profiled(rows: Sequence[str], say: Callable[[str], None]) -> Watch:
    """Return what looks on while these rows are measured, and then tells what it saw."""
    if MEMORY.key in rows:
        os.environ["BENCHMARK_TRACES"] = tempfile.mkdtemp()
        os.environ["PYTHONPATH"] += f":{TRACING}"

    def watch(row: str, pid: int) -> AbstractContextManager[None]:
        if row not in rows:
            return nullcontext()
        return _weighing(pid, say) if row == MEMORY.key else _watching(row, pid, say)

    return watch


@contextmanager
def _weighing(pid: int, say: Callable[[str], None]) -> Iterator[None]:
    _trace_of(pid)
    yield
    say(f"\n== memory: what has grown in process {pid}, in bytes\n{_trace_of(pid)}")


def _trace_of(pid: int) -> str:
    file = Path(os.environ["BENCHMARK_TRACES"], str(pid))
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    wait_until(file.exists, seconds=60, otherwise=lambda: "the server did not tell")
    return file.read_text()


@contextmanager
def _watching(row: str, pid: int, say: Callable[[str], None]) -> Iterator[None]:
    stacks, samples = Path(tempfile.mkdtemp(), "stacks"), Path(tempfile.mkdtemp(), "perf")
    watchers = [_start(command) for command in _commands(pid, stacks, samples)]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.send_signal(signal.SIGINT)
            watcher.wait(60)
    say(f"\n== {row}: the Python of process {pid}\n{_of_stacks(stacks)}")
    say(f"\n== {row}: perf over the same\n{_of_perf(samples)}")


def _commands(pid: int, stacks: Path, samples: Path) -> Iterator[list[str]]:
    spy = Path(sys.executable).with_name("py-spy")
    # It must not stop the process: some measurements do so themselves.
    options = ["--nonblocking", "--rate", RATE, "--format", "raw", "--output", str(stacks)]
    if spy.exists():
        yield [str(spy), "record", "--pid", str(pid), "--duration", "300", *options]
    if perf := shutil.which("perf"):
        yield [perf, "record", "-q", "-F", "999", "-g", "-p", str(pid), "-o", str(samples)]


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    with on_core(CLIENT_CORE):
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _of_stacks(file: Path) -> str:
    if not file.exists():
        return "py-spy has nothing to tell: pip install -r requirements/bench.txt"
    own, within = Counter[str](), Counter[str]()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not frames[-1] or frames[-1].startswith("Condition.wait "):  # nothing is done there
            continue
        own[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    total = sum(own.values())
    return f"of itself:\n{_shares(own, total)}\nwith what it calls:\n{_shares(within, total)}"


def _shares(counts: "Counter[str]", total: int) -> str:
    return "\n".join(f"{n / total:7.1%}  {name}" for name, n in counts.most_common(MOST))


def _of_perf(file: Path) -> str:
    perf = shutil.which("perf")
    if not (perf and file.exists()):
        return "perf is not installed: apt-get install linux-perf"
    report = [perf, "report", "-i", str(file), "--no-children", "-g", "none", "--stdio"]
    parts = (["--sort", "dso"], ["--sort", "dso,symbol"])
    texts = (
        subprocess.run([*report, *p], capture_output=True, text=True, check=False) for p in parts
    )
    return "\n\n".join("\n".join(_told(text.stdout.splitlines())) for text in texts)


def _told(lines: Iterable[str]) -> list[str]:
    return [line.rstrip() for line in lines if re.match(r"\s+\d", line)][:MOST]
