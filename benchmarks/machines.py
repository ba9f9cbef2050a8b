"""notifier's ratios on several machines, side by side: one machine alone proves little."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.results import Result
from benchmarks.rows import NOTIFIER, ROWS, Row
from benchmarks.table import figure, medians, ratio

Machines = Mapping[str, Mapping[str, Result]]  # results by row, by the machine's name


def side_by_side(machines: Machines) -> str:
    """Return a table of what several machines measured: empty where that is nothing."""
    lines = [line for row in ROWS for line in _lines(row, machines)]
    if not lines:
        return ""
    rules = ["---"] * (2 + len(machines))
    return "\n".join(
        f"| {' | '.join(line)} |" for line in (["work", "beside", *_heads(machines)], rules, *lines)
    )


def _heads(machines: Machines) -> Iterator[str]:
    for results in machines.values():
        of_rows = [result["machine"] for result in results.values()]
        pythons = " and ".join(sorted({machine["python"] for machine in of_rows}))
        yield f"{of_rows[0]['processor']}, {of_rows[0]['cores']} cores, Python {pythons}"


def _lines(row: Row, machines: Machines) -> Iterator[list[str]]:
    """Yield a line for each peer, one with notifier's own figures where there is none.

    A row of the first machine alone stands in its table, and not here again.
    """
    measured = [medians(each[row.key]) if row.key in each else {} for each in machines.values()]
    if not any(measured[1:]):
        return
    peers = dict.fromkeys(
        name for each in measured for name in each if each[name] and name != NOTIFIER
    )
    for name in peers:
        yield [row.title, name, *(ratio(row, each, name) for each in measured)]
    if not peers:
        yield [row.title, f"({row.unit})", *_figures(row, measured)]


def _figures(row: Row, measured: Sequence[Mapping[str, float | None]]) -> Iterator[str]:
    return (figure(each.get(NOTIFIER), row) for each in measured)
