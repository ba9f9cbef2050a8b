"""Rounds of failures, and the table of what came of them."""

import asyncio
import statistics
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from subprocess import SubprocessError
from typing import get_args

from tests.chaos.failures import FAILURES, Failure
from tests.chaos.world import World, world
from tests.support.invariants import Kind

Say = Callable[[str], None]
_PATIENCE = 60.0  # seconds after which an event that has not come is lost
_SHOWN = 8  # of each row's complaints


@dataclass
class Row:
    """The outcome of one failure's rounds."""

    failure: Failure
    rounds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    servers: str = ""

    def cells(self) -> list[str]:
        """As the table shows it."""
        numbers = [self.rounds, *(self.counts[name] for name in COUNTED)]
        numbers += [*(self.faults[kind] for kind in FAULTS), self.counts["gaps told"]]
        times = [statistics.median(self.seconds), max(self.seconds)] if self.seconds else []
        shown = " / ".join(f"{each:.1f}" for each in times) or "-"
        return [self.failure.name, *map(str, numbers), shown]


COUNTED = ("events", "marks", "handed back", "reports", "orders")
FAULTS = get_args(Kind)
HEADER = ["failure", "rounds", *COUNTED, *FAULTS, "gaps told", "recovered (median / max s)"]


def table(rows: Iterable[Row], former: str = "") -> str:
    """The rows as a table in Markdown, with those of a former table that are not among them."""
    cells = _rows_of(former)
    cells |= {row.failure.name: row.cells() for row in rows}
    lines = [HEADER, *(cells[name] for name in FAILURES if name in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zipped)
        ]
        for zipped in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [padded[0], rule, *padded[1:]])


def _rows_of(former: str) -> dict[str, list[str]]:
    """The rows of a former table, with a dash in the columns that it did not have."""
    lines = [line for line in former.splitlines() if line.startswith("|")]
    header, *rows = map(_cells_of, lines) if lines else [HEADER]
    named = (dict(zip(header, row, strict=True)) for row in rows)
    return {row["failure"]: [row.get(name, "-") for name in HEADER] for row in named}


def _cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]


async def run(failures: Iterable[Failure], rounds: int, seed: int, say: Say) -> list[Row]:
    """Provoke each failure so many times: those of one ground on one service, until one broke."""
    rows = [Row(failure) for failure in failures]
    while left := [row for row in rows if row.rounds < rounds]:
        ground = left[0].failure.ground
        alike = [row for row in left if row.failure.ground == ground]
        say(f"the service starts for {', '.join(row.failure.name for row in alike)}")
        await _provoke_on_one_service(alike, rounds, seed, say)
        seed += 1
    return rows


async def _provoke_on_one_service(rows: list[Row], rounds: int, seed: int, say: Say) -> None:
    row = rows[0]
    try:
        async with world(seed, row.failure.ground, package=True) as this:
            for row in rows:
                row.servers = await this.servers()
                await provoke(this, row, rounds, say)
                if row.broken:
                    break
    except AssertionError as error:  # of the end: a role, a client or a producer had died
        row.broken.append(_told(error))
        say(f"  {row.broken[-1]}")


async def provoke(this: World, row: Row, rounds: int, say: Say) -> None:
    """Provoke a failure on a running service until there are so many rounds, or one is broken."""
    clock = asyncio.get_running_loop().time
    broken = len(row.broken)
    while row.rounds < rounds and len(row.broken) == broken:
        begin = clock()
        await _Round(this, row).run()
        name, done, *cells = row.cells()
        say(f"{name} {done}/{rounds} in {clock() - begin:.0f} s: {', '.join(cells)}")
        for each in row.broken[broken:]:
            say(f"  {each}")


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-2)).strip()


class _Round:
    """One provocation, with events flowing before, meanwhile and behind it."""

    def __init__(self, this: World, row: Row) -> None:
        self._world = this
        self._row = row
        self._clock = asyncio.get_running_loop().time
        self._counts = this.counts()
        self._complaints = Counter(this.complaints)
        self._begin = self._clock()

    async def run(self) -> None:
        """Provoke, wait until everybody has everything, mend, and add it all to the row."""
        this = self._world
        try:
            await asyncio.sleep(this.seconds(0.1, 0.6))
            async with aclosing(self._row.failure.provoke(this)) as failing:  # type: ignore[type-var]  # it is a generator
                await anext(failing)
                await self._recover(self._clock())
                assert not [True async for _ in failing], "a failure has one yield"
        except (AssertionError, TimeoutError, SubprocessError) as error:
            self._row.broken.append(_told(error))
            this.flow.resume()
        self._account()

    async def _recover(self, over: float) -> None:
        this = self._world
        await asyncio.sleep(this.seconds(0, self._row.failure.tail))
        # A lost event has to come without another event that shows the hole.
        await this.flow.pause()
        deadline = self._clock() + _PATIENCE
        while this.crowd.missing and self._clock() < deadline:
            this.crowd.see_that_all_live()
            await asyncio.sleep(0.05)
        for recipient in this.crowd.recipients:
            recipient.give_up()
        self._measure(over)
        await this.settle()
        this.flow.resume()

    def _measure(self, over: float) -> None:
        """How long the slowest event took: since it was posted, or since the failure was over."""
        posted = self._world.ledger.posted
        longest = 0.0
        for recipient in self._world.crowd.recipients:
            for (_, name), at in recipient.received.items():
                if at > over and posted[name] > self._begin:
                    longest = max(longest, at - max(over, posted[name]))
        self._row.seconds.append(longest)
        within = self._row.failure.within
        assert longest < within, f"took {longest:.1f} s, which is more than {within:g} s"

    def _account(self) -> None:
        row, this = self._row, self._world
        row.rounds += 1
        counts = this.counts() - self._counts
        row.counts += counts
        complaints = [*(Counter(this.complaints) - self._complaints).elements()]
        row.faults.update(each.kind for each in complaints)
        row.broken += [f"{each.kind}: {each.evidence[:300]}" for each in complaints[:_SHOWN]]
        if counts["gaps told"] and not row.failure.gaps:
            row.broken.append(f"gaps were told: {counts['gaps told']}")
