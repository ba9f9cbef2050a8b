"""Turns benchmarks/results into benchmarks/README.md's table and docs/benchmarks.svg."""

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.chart import chart
from benchmarks.contenders import ALL
from benchmarks.machines import Machines, side_by_side
from benchmarks.results import Result, kept
from benchmarks.table import Table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "benchmarks" / "README.md"
BEGIN = "<!-- benchmarks: made by `make bench` -->\n"
END = "<!-- end of benchmarks -->"


def section(machines: Machines) -> str:
    """Return the text between the page's markers: the first machine's table, and all ratios."""
    if not machines:
        return "No run has been recorded yet.\n"
    results = next(iter(machines.values()))
    picture = (
        "![The same as bars, and how the cost grows with connections.](../docs/benchmarks.svg)"
    )
    parts = [Table(results).markdown(), _contenders(results), picture]
    if ratios := side_by_side(machines):
        parts += ["How many times as good notifier is, on each machine:", ratios]
    return "\n\n".join(parts) + "\n"


def _contenders(results: Mapping[str, Result]) -> str:
    versions: dict[str, list[str]] = {}
    for result in results.values():
        for name, contender in result["contenders"].items():
            known = versions.setdefault(name, [])
            if (version := contender.get("version", "")) and version not in known:
                known.append(version)
    said = "; ".join(" or ".join(each) for each in versions.values() if each)
    follows = "; ".join(f"{each.name}: {each.follows}" for each in ALL if versions.get(each.name))
    return (
        f"In brackets: how many times as good notifier is. Versions: {said}. "
        f"A connection follows: {follows}."
    )


def main() -> None:
    """Write both files anew."""
    machines = kept()
    block = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    text = f"{BEGIN}{section(machines)}{END}"
    PAGE.write_text(block.sub(lambda _: text, PAGE.read_text(), count=1))
    if machines:
        (ROOT / "docs" / "benchmarks.svg").write_text(chart(next(iter(machines.values()))))


if __name__ == "__main__":
    main()
