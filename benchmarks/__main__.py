"""`make bench`: start each contender in turn, print one table with ratios, keep the results."""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import structlog

from benchmarks.contenders import ALL
from benchmarks.laboratory import Laboratory, laboratory
from benchmarks.machine import CLIENT_CORE, FILES, SERVER_CORE, description
from benchmarks.profiling import profiled
from benchmarks.results import Record
from benchmarks.rows import IN_BATCHES, NOTIFIER, ONE_BY_ONE, ROUND_TRIPS, ROWS, Row
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.sizes import FULL, LONG, SMALL, Sizes
from benchmarks.table import Table
from tests.support import commands

ROOT = Path(__file__).parent.parent
MISSING = {each.name: reason for each in ALL if (reason := each.missing())}


def _arguments() -> argparse.Namespace:
    keys = ",".join(row.key for row in ROWS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", default=keys, help=f"some of {keys}")
    parser.add_argument("--runs", type=int, default=5, help="runs, taken in turn; 5")
    parser.add_argument("--size", choices=["full", "small"], default="full")
    parser.add_argument(
        "--profile", action="store_true", help="notifier only, with where time goes"
    )
    arguments = parser.parse_args()
    arguments.rows = arguments.rows.split(",")
    if unknown := set(arguments.rows) - {row.key for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {keys}")
    return arguments


def _prepare() -> None:
    """Take the core of the clients, as many files as allowed, and clear what servers inherit."""
    if not {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0):
        sys.exit(f"The benchmarks need the cores {SERVER_CORE} and {CLIENT_CORE} of this machine.")
    if max(FULL.growth) + 1_000 > FILES:
        sys.exit(f"15,000 sockets need more than {FILES} open files: raise it with ulimit -Hn.")
    os.sched_setaffinity(0, {CLIENT_CORE})
    commands.forks = False  # a server starts as in production
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    for name in [name for name in os.environ if name.startswith("NOTIFIER_")]:
        del os.environ[name]
    os.environ["PYTHONPATH"] = str(ROOT)
    os.chdir(tempfile.gettempdir())  # where no .env is
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))


def _version(name: str) -> str:
    match name:
        case str() if name in (ONE_BY_ONE, IN_BATCHES):
            return f"aio-pika {version('aio-pika')}, redis {version('redis')}"
        case str() if name == ROUND_TRIPS:
            return f"aiormq {version('aiormq')}, redis {version('redis')}"
        case _:
            return next(each.version() for each in ALL if each.name == name)


class Session:
    """One call of the command: its scenarios, run by run."""

    def __init__(self, rows: Sequence[str], laboratory: Laboratory, record: Record) -> None:
        self._rows = rows
        self._laboratory = laboratory
        self._record = record
        self.failures = 0

    def run(self, scenarios: Sequence[Scenario], runs: int) -> None:
        """Measure everything so many times, the contenders in turn."""
        for number in range(1, runs + 1):
            for scenario in scenarios:
                for name in scenario.measures:
                    self._one(scenario, name, f"run {number} of {runs}")

    def _one(self, scenario: Scenario, name: str, label: str) -> None:
        rows = [row for row in scenario.rows if row.key in self._rows]
        if name in MISSING:
            self._skip(rows, name, f"not installed ({MISSING[name]})")
            return
        began = time.monotonic()
        try:
            with self._laboratory.bench(lambda *_: nullcontext()) as bench:
                values = scenario.measures[name](bench)
        except (RuntimeError, AssertionError, OSError) as error:
            self.failures += 1
            self._skip(rows, name, f"failed: {error}")
            return
        told = [
            f"{row.key} {values[row.key]['value'] or 0:,.6g}" for row in rows if row.key in values
        ]
        _say(f"{label}: {name}: {', '.join(told)} ({time.monotonic() - began:.0f} s)")
        for row in rows:
            if row.key in values:
                self._record.take(row, name, _version(name), values[row.key])

    def _skip(self, rows: Sequence[Row], name: str, reason: str) -> None:
        _say(f"{name}: {reason}")
        for row in rows:
            self._record.skip(row, name, reason)


def _say(text: str) -> None:
    print(text, flush=True)


def _chosen(rows: Sequence[str]) -> list[Scenario]:
    return [each for each in SCENARIOS if any(row.key in rows for row in each.rows)]


def _profile(rows: Sequence[str], laboratory: Laboratory) -> None:
    for scenario in _chosen(rows):
        with laboratory.bench(profiled(rows, _say)) as bench:
            scenario.measures[NOTIFIER](bench)


def _sizes(arguments: argparse.Namespace) -> Sizes:
    if arguments.size == "small":
        return SMALL
    return LONG if arguments.profile else FULL


def main() -> int:
    """Run the command; return the exit code."""
    arguments = _arguments()
    _prepare()
    sizes = _sizes(arguments)
    scenarios = _chosen(arguments.rows)
    needs_rabbitmq = any(scenario.needs_rabbitmq for scenario in scenarios)
    with laboratory(sizes, with_rabbitmq=needs_rabbitmq) as place:
        if arguments.profile:
            _profile(arguments.rows, place)
            return 0
        record = Record(sizes, {**description(), **place.versions()})
        session = Session(arguments.rows, place, record)
        try:
            session.run(scenarios, arguments.runs)
        finally:
            _say(Table(record.results()).text())
        if sizes is FULL:  # a tenth of the work is for trying out, not for the record
            record.write()
    return 1 if session.failures else 0


if __name__ == "__main__":
    sys.exit(main())
