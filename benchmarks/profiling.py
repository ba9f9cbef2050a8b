"""Where the time goes: py-spy over a role's Python, perf over what the kernel does for it."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from benchmarks.delivering import Watch
from benchmarks.machine import CLIENT_CORE, on_core

MOST = 30
RATE = "200"  # samples a second


def profiled(rows: Sequence[str], say: Callable[[str], None]) -> Watch:
    """Return what looks on while these rows are measured, and then tells what it saw."""
    return lambda row, pid: _watching(row, pid, say) if row in rows else nullcontext()


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
        return "py-spy has nothing to tell: pip install -r requirements-bench.txt"
    own, within = Counter[str](), Counter[str]()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
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
