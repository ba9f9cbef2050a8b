"""Results: a folder a machine, one JSON file a row, with versions; and the medians of the runs."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.delivering import Values
from benchmarks.rows import ROWS, Row
from benchmarks.sizes import Sizes

DIRECTORY = Path(__file__).parent / "results"
Result = dict[str, Any]  # as in the file: row, sizes, machine, contenders


def medians_of(runs: Iterable[Values]) -> Values:
    """Return the median of each figure; None where most runs had none."""
    listed = list(runs)
    return {key: _median([run.get(key) for run in listed]) for key in (listed or [{}])[0]}


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if 2 * len(known) > len(values) else None


def name_of(machine: Mapping[str, object]) -> str:
    """Return a machine's name, made of its processor and cores: it does not tell whose it is."""
    text = f"{machine['processor']} {machine['cores']} cores".lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", text)).strip("-")


class Record:
    """The measurements so far."""

    def __init__(self, sizes: Sizes, machine: Mapping[str, object]) -> None:
        self._head = {"machine": dict(machine), "sizes": asdict(sizes)}
        self._contenders: dict[str, dict[str, Result]] = {}

    def take(self, row: Row, name: str, version: str, values: Values) -> None:
        """Add a run."""
        contender = self._of(row, name)
        contender["version"] = version
        runs = contender.setdefault("runs", [])
        runs.append(values)
        contender["median"] = medians_of(runs)

    def skip(self, row: Row, name: str, reason: str) -> None:
        """Say why there are no figures of somebody."""
        self._of(row, name)["skipped"] = reason

    def _of(self, row: Row, name: str) -> Result:
        return self._contenders.setdefault(row.key, {}).setdefault(name, {})

    def results(self) -> dict[str, Result]:
        """Return each row as its file has it."""
        titles = {row.key: {"title": row.title, "unit": row.unit} for row in ROWS}
        return {
            key: {**titles[key], **self._head, "contenders": contenders}
            for key, contenders in self._contenders.items()
        }

    def write(self, directory: Path = DIRECTORY) -> None:
        """Write a file for each row that was measured, into this machine's folder."""
        folder = directory / name_of(self._head["machine"])
        folder.mkdir(parents=True, exist_ok=True)
        for key, result in self.results().items():
            text = json.dumps(_rounded(result), indent=1, ensure_ascii=False)
            (folder / f"{key}.json").write_text(text + "\n")


def _rounded(value: Any) -> Any:  # noqa: ANN401 - what JSON has
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def kept(directory: Path = DIRECTORY) -> dict[str, dict[str, Result]]:
    """Return the results that were written before: by machine, that of most rows first; by row."""
    found = {folder.name: _rows_in(folder) for folder in sorted(directory.iterdir())}
    return dict(sorted(found.items(), key=lambda each: len(each[1]), reverse=True))


def _rows_in(folder: Path) -> dict[str, Result]:
    return {
        row.key: json.loads(file.read_text())
        for row in ROWS
        if (file := folder / f"{row.key}.json").exists()
    }
