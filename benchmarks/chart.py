"""A picture of the results, as SVG: it reads on white and on black.

Therefore solid fills and a middle grey.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import log
from xml.sax.saxutils import escape

from benchmarks.results import Result
from benchmarks.rows import BROADCAST, CONNECTS, GROWTH, MEMORY, NOTIFIER, UNICAST, Row
from benchmarks.table import figure, medians

_GREY = "#737d8a"
_OURS = "#0d9488"
_COLOURS = ("#d97706", "#8b5cf6", "#db2777", "#3b82f6", "#737d8a", "#65a30d")
_WIDTH, _PANEL, _LINE, _HEAD = 1064, 532, 24, 34
_LABEL, _BAR = 140, 300
_GROWTH_HEIGHT = 300
_CAPTIONS = {
    BROADCAST: "broadcast: deliveries per CPU second",
    UNICAST: "Redis → one socket: deliveries per CPU second",
    MEMORY: "KiB per idle connection (less is better)",
    CONNECTS: "connects per CPU second",
}
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
Point = tuple[float, float]


def chart(results: Mapping[str, Result]) -> str:
    """Draw bars for four rows, and lines for the growth with connections."""
    bars = [row for row in _CAPTIONS if row.key in results]
    depth = max((len(medians(results[row.key])) for row in bars), default=0) * _LINE + _HEAD + 16
    parts = [
        f'<g transform="translate({index % 2 * _PANEL} {index // 2 * depth})">{panel}</g>'
        for index, panel in enumerate(_bars(row, medians(results[row.key])) for row in bars)
    ]
    height = -(-len(bars) // 2) * depth
    if GROWTH.key in results:
        lines = "".join(_growth(results[GROWTH.key]))
        parts.append(f'<g transform="translate(0 {height})">{lines}</g>')
        height += _GROWTH_HEIGHT
    return _picture(parts, height)


def _picture(parts: Sequence[str], height: int) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-labelledby="t" font-size="13" fill="#737d8a" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif">'
    )
    title = '<title id="t">notifier and its peers: what the table says, drawn</title>'
    return "\n".join([head, title, *parts, "</svg>", ""])


def _text(at: Point, text: str, anchor: str = "start", *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    x, y = at
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _bars(row: Row, values: Mapping[str, float | None]) -> str:
    known = {name: value for name, value in values.items() if value is not None}
    largest = max(known.values(), default=1)
    parts = [_text((16, 22), _CAPTIONS[row], bold=True)]
    for index, (name, value) in enumerate(known.items()):
        y = _HEAD + index * _LINE
        width = max(2, value / largest * _BAR)
        fill = _OURS if name == NOTIFIER else _GREY
        size = f'width="{width:.0f}" height="16" rx="3" fill="{fill}"'
        parts += [
            _text((_LABEL, y + 13), name, "end", bold=name == NOTIFIER),
            f'<rect x="{_LABEL + 8}" y="{y}" {size}/>',
            _text((_LABEL + 14 + width, y + 13), figure(value, row)),
        ]
    return "".join(parts)


def _costs(result: Result) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for name, contender in result["contenders"].items():
        figures = contender.get("median", {})
        points = [(float(k.split("_")[1]), v) for k, v in figures.items() if "microseconds_" in k]
        if points:
            found[name] = points
    return found


def _growth(result: Result) -> Iterator[str]:
    costs = _costs(result)
    sizes = sorted({x for points in costs.values() for x, _ in points})
    figures = [y for points in costs.values() for _, y in points]
    ticks = [tick for tick in _TICKS if min(figures) / 2 < tick < max(figures)]
    least, most = log(min(*figures, *ticks)), log(max(figures))
    left, right, top, bottom = 60.0, 850.0, 44.0, _GROWTH_HEIGHT - 36.0

    def place(point: Point) -> Point:
        x, y = point
        share = (log(y) - least) / (most - least)
        return left + x / sizes[-1] * (right - left), bottom - share * (bottom - top)

    yield _text((16, 22), "µs of CPU per delivery, by connections (less is better)", bold=True)
    yield f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="{_GREY}"/>'
    for size in sizes:
        yield _text((place((size, figures[0]))[0], bottom + 18), f"{size:,.0f}", "middle")
    for tick in ticks:
        yield _text((left - 8, place((0, tick))[1] + 4), f"{tick}", "end")
    yield from _lines(costs, place)


def _lines(costs: Mapping[str, list[Point]], place: Callable[[Point], Point]) -> Iterator[str]:
    colours = {name: _OURS for name in costs if name == NOTIFIER}
    colours |= dict(zip((name for name in costs if name != NOTIFIER), _COLOURS, strict=False))
    ends = {name: place(points[-1])[1] for name, points in costs.items()}
    heights = dict(
        zip(sorted(ends, key=ends.__getitem__), _apart(sorted(ends.values())), strict=True)
    )
    for name, points in costs.items():
        placed = [place(point) for point in points]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in placed)
        style = f'fill="none" stroke="{colours[name]}" stroke-width="2"'
        yield f'<polyline points="{path}" {style}/>'
        at = (placed[-1][0] + 10, heights[name] + 4)
        yield f'<g fill="{colours[name]}">{_text(at, name, bold=name == NOTIFIER)}</g>'


def _apart(heights: Iterable[float], least: float = 16) -> list[float]:
    """Move labels, given from the top, so far apart that they can be read."""
    placed = list(heights)
    for upper, lower in pairwise(range(len(placed) - 1, -1, -1)):
        placed[lower] = min(placed[lower], placed[upper] - least)
    return placed
