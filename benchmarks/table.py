"""One table of all rows, with ratios, for the terminal and for README.md."""

from collections.abc import Mapping
from string import ascii_uppercase

from benchmarks.contenders import ALL
from benchmarks.results import Result
from benchmarks.rows import NOTIFIER, ROWS, Bar, Row

_COLUMNS = [each.name for each in ALL]


def figure(value: float | None, row: Row) -> str:
    """Write a figure with as many digits as it deserves."""
    if value is None:
        return "–"
    if row.digits or value < 1_000:
        return f"{value:,.{row.digits}f}"
    return f"{value / 1000:,.1f}k" if value < 100_000 else f"{value / 1000:,.0f}k"


def medians(result: Result) -> dict[str, float | None]:
    """Return each contender's figure."""
    return {
        name: contender.get("median", {}).get("value")
        for name, contender in result["contenders"].items()
    }


class Table:
    """The cells, and the notes under them."""

    def __init__(self, results: Mapping[str, Result]) -> None:
        self.notes: list[str] = []
        self.groups: list[str] = []  # rows that were measured alike
        self.lines = [["work", "measured", "bar", *_COLUMNS]]
        for row in ROWS:
            if row.key in results:
                self.lines.append(self._line(row, results[row.key]))
        self._without_empty_columns()

    def _line(self, row: Row, result: Result) -> list[str]:
        values = medians(result)
        bars = "; ".join(_bar(row, bar, values) for bar in row.bars)
        others = [
            f"{name}: {figure(value, row)} ({ratio(row, values, name)})"
            for name, value in values.items()
            if name not in _COLUMNS
        ]
        title = f"{row.title} ({row.unit})" if row.unit not in {"1/s", "×"} else row.title
        cells = [self._cell(row, name, result, values) for name in _COLUMNS]
        return ["; ".join([title, *others]), self._group(result), bars, *cells]

    def _group(self, result: Result) -> str:
        measured = _measured(result)
        if measured not in self.groups:
            self.groups.append(measured)
        return ascii_uppercase[self.groups.index(measured)]

    def _cell(self, row: Row, name: str, result: Result, values: Mapping[str, float | None]) -> str:
        contender = result["contenders"].get(name)
        if contender is None:
            return ""
        if "median" not in contender:
            return "skipped" + self._note(f"{name}: {contender['skipped']}")
        text = figure(values[name], row)
        if "skipped" in contender:  # of other runs there are figures
            text += self._note(f"{name}: {contender['skipped']}")
        if name != NOTIFIER:
            text += f" ({ratio(row, values, name)})"
        lacks = next(each.lacks.get(row.key) for each in ALL if each.name == name)
        return text + (self._note(lacks) if lacks else "")

    def _note(self, text: str) -> str:
        if text not in self.notes:
            self.notes.append(text)
        return f" [{self.notes.index(text) + 1}]"

    def _without_empty_columns(self) -> None:
        filled = [
            index
            for index in range(len(self.lines[0]))
            if any(line[index] for line in self.lines[1:])
        ]
        self.lines = [[line[index] for index in filled] for line in self.lines]

    def text(self) -> str:
        """Return it for a terminal."""
        widths = [max(map(len, column)) for column in zip(*self.lines, strict=True)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in self.lines
        ]
        return "\n".join([*(line.rstrip() for line in lines), *self._notes()])

    def markdown(self) -> str:
        """Return it for README.md."""
        head, *body = [f"| {' | '.join(line)} |" for line in self.lines]
        rule = f"|{'---|' * len(self.lines[0])}"
        return "\n".join([head, rule, *body, "", *self._notes()])

    def _notes(self) -> list[str]:
        groups = [
            f"{each}: {said}  " for each, said in zip(ascii_uppercase, self.groups, strict=False)
        ]
        return groups + [f"[{number}] {note}  " for number, note in enumerate(self.notes, 1)]


def _measured(result: Result) -> str:
    """Say how often, where and with which programs a row was measured."""
    machine = result["machine"]
    runs = sorted({len(each["runs"]) for each in result["contenders"].values() if "runs" in each})
    often = " to ".join(str(each) for each in dict.fromkeys([*runs[:1], *runs[-1:]])) or "no"
    times = "one run" if often == "1" else f"medians of {often} runs"
    rabbitmq = f", RabbitMQ {machine['rabbitmq']}" if machine.get("rabbitmq") else ""
    return (
        f"{times} on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['kernel']}, Python {machine['python']}, Redis {machine['redis']}{rabbitmq}"
    )


def ratio(row: Row, values: Mapping[str, float | None], name: str) -> str:
    """Return how many times as good as somebody notifier is."""
    ours, theirs = values.get(NOTIFIER), values.get(name)
    if not ours or not theirs:
        return "–"
    return f"{theirs / ours if row.less_is_better else ours / theirs:.2f}×"


def _bar(row: Row, bar: Bar, values: Mapping[str, float | None]) -> str:
    sign = "≤" if row.less_is_better else "≥"
    wanted = f"{bar.factor:g} × {bar.peer}" if bar.peer else figure(bar.factor, row)
    verdict = {True: "met", False: "missed", None: "not measured"}[row.is_met(bar, values)]
    return f"{sign} {wanted}: {verdict}"
