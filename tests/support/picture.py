"""Draws the dashboards, as SVG, from what a Prometheus saw of a local run: `make pictures`.

No Grafana takes part. Queries, titles, units and places are the dashboards' own; how it looks is
only near to Grafana. It starts RabbitMQ, Redis, an api, two routers, two gateways and a hundred
clients, posts events for two minutes, and meanwhile lets a few things go wrong.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from html import escape
from itertools import chain, count, cycle
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.clients import connected
from tests.support.process import free_port
from tests.support.producers import amqp_producer, http_producer
from tests.support.prometheus import Prometheus
from tests.support.promql import CHART, ROOT, filled_in
from tests.support.roles import KEY, TOKENS, Role, running, token
from tests.support.services import RabbitServer, RedisServer

PEOPLE = 100
SECONDS = 120
_INTERVAL = "10s"  # that rates are taken over; Grafana makes it of how often is scraped
_COLUMN, _ROW, _GAP = 50, 34, 6  # pixels; a row is one of Grafana's
_COLOURS = ("#3b82c4", "#d97706", "#0f9d58", "#c2410c", "#7c3aed", "#0891b2", "#be185d")
_GREY = "#737d8a"  # reads on white and on black
_SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_LONGEST_LEGEND = 6

Series = tuple[str, list[tuple[float, float]]]


# The run.


class Run:
    """Two minutes in the life of a small installation."""

    def __init__(self, home: Path, rabbitmq: RabbitServer, redis: RedisServer) -> None:
        self._home, self._rabbitmq, self._redis = home, rabbitmq, redis
        self._amqp = {"NOTIFIER_AMQP_URL": rabbitmq.url}
        self._broker = {"NOTIFIER_REDIS_URL": redis.url}
        pace = {"NOTIFIER_DRAIN_RATE": "5", "NOTIFIER_DRAIN_SECONDS": "30"}
        self.api = self._role("api", 1, **self._amqp, NOTIFIER_API_KEYS=KEY.entry)
        self.gateways = [self._role("gateway", n, **self._broker, **TOKENS, **pace) for n in (1, 2)]
        routers = [self._role("router", n, **self._amqp, **self._broker) for n in (1, 2)]
        self.roles = [self.api, *routers, *self.gateways]

    def _role(self, role: str, number: int, **settings: str) -> Role:
        # Of a port that stays the same when it is started again.
        port = {"NOTIFIER_PRIVATE_PORT": str(free_port())}
        return Role(role, self._home / f"{role}-{number}.log", **port, **settings)

    async def live(self) -> float:
        """Let clients and producers be at work, disturb them, and return when that was over."""
        async with asyncio.TaskGroup() as tasks:
            everybody = (*map(self._follow, range(PEOPLE)), self._post(), self._post_over_amqp())
            work = [tasks.create_task(each, name="work") for each in everybody]
            await self._disturb()
            end = time.time()
            for each in work:
                each.cancel()
        return end

    async def _disturb(self) -> None:
        step = SECONDS / 6
        await asyncio.sleep(2 * step)
        self._redis.pause()
        await asyncio.sleep(step / 2)
        self._redis.resume()
        await asyncio.sleep(1.5 * step)
        await asyncio.to_thread(self.gateways[0].stop, 60)
        self.gateways[0].start()
        await asyncio.sleep(step)

    async def _follow(self, number: int) -> None:
        while True:
            with suppress(ConnectionClosed, InvalidStatus, OSError, KeyError, AssertionError):
                url = random.choice(self.gateways).gateway_url  # no secret
                async with connected(url, token(f"u{number}", "news"), topics=["news"]) as client:
                    while True:
                        await client.next_frame()
            await asyncio.sleep(1)

    async def _post(self) -> None:
        async with http_producer(self.api.api_url) as producer:
            for n in count():
                await producer.post({"users": [f"u{n % (PEOPLE + 20)}"], "type": "t", "data": n})
                if n % 20 == 0:
                    await producer.post({"topic": "news", "type": "t", "id": f"news-{n // 40}"})
                if n % 200 == 0:
                    await producer.post({"users": []})
                await asyncio.sleep(0.02)

    async def _post_over_amqp(self) -> None:
        async with amqp_producer(self._rabbitmq.url) as producer:
            for n in count(1):
                body: object = {"type": "t", "data": n} if n % 100 else b"\xff"
                await producer.send(body, f"user.u{n % PEOPLE}")
                await asyncio.sleep(0.1)


@dataclass(frozen=True)
class Seen:
    """A Prometheus' view of a run."""

    prometheus: Prometheus
    begin: float
    end: float

    def last(self, expression: str) -> float | None:
        """The value of an expression in the end."""
        found = self.prometheus.query(filled_in(expression, _INTERVAL), self.end)
        return float(found[0]["value"][1]) if found else None

    def series(self, expression: str, legend: str) -> Iterator[Series]:
        """Yield what an expression amounted to over time, with a name by its legend."""
        filled = filled_in(expression, _INTERVAL)
        for each in self.prometheus.query_range(filled, self.begin, self.end, step=2):
            name = legend
            for label, value in each["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            points = [(moment, float(value)) for moment, value in each["values"]]
            yield re.sub(r"{{\w+}}", "", name).strip(), points


@asynccontextmanager
async def seen(home: Path) -> AsyncIterator[Seen]:
    """Run, and yield what was seen of it."""
    with RabbitServer() as rabbitmq, RedisServer() as redis:
        run = Run(home, rabbitmq, redis)
        with running(*run.roles):
            targets = {role.log.stem: role.private_url for role in run.roles}
            with Prometheus(home, targets) as prometheus:
                prometheus.wait_until_scraped()
                begin = time.time()
                yield Seen(prometheus, begin, await run.live())


# The drawing.


def drawn(board: dict[str, Any], what: Seen) -> str:
    """Return a dashboard as SVG."""
    rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"]) + 1
    title = escape(board["title"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * _COLUMN} {rows * _ROW}" ',
        f'role="img" font-family="system-ui, sans-serif" font-size="12" fill="{_GREY}">\n',
        f'<title>{title}</title><text x="6" y="22" font-size="17" font-weight="600">{title}</text>',
        *("\n".join(_panel(panel, what)) for panel in board["panels"]),
        "</svg>\n",
    ]
    return "".join(parts)


def _panel(panel: dict[str, Any], what: Seen) -> list[str]:
    place, unit = panel["gridPos"], panel["fieldConfig"]["defaults"]["unit"]
    width, height = place["w"] * _COLUMN - _GAP, place["h"] * _ROW - _GAP
    at = f"translate({place['x'] * _COLUMN + _GAP / 2:g} {(place['y'] + 1) * _ROW})"
    if panel["type"] == "stat":
        value = what.last(panel["targets"][0]["expr"])
        body = [
            f'<text x="{width / 2:g}" y="{height / 2 + 22:g}" text-anchor="middle" font-size="30" ',
            f'font-weight="600">{"none" if value is None else _written(value, unit)}</text>',
        ]
    else:
        asked = ((each["expr"], each["legendFormat"]) for each in panel["targets"])
        body = _chart([*chain(*(what.series(*each) for each in asked))], unit, what, width, height)
    return [
        f'<g transform="{at}"><rect width="{width}" height="{height}" rx="4" fill="none" ',
        f'stroke="{_GREY}" stroke-opacity=".4"/>',
        f'<text x="10" y="20" font-weight="600">{escape(panel["title"])}</text>',
        *body,
        "</g>",
    ]


def _chart(found: list[Series], unit: str, span: Seen, width: int, height: int) -> list[str]:
    across = max(1, width // 160)
    lines = -(-min(len(found), _LONGEST_LEGEND) // across) or 1
    left, top, right, bottom = 50, 34, width - 12, height - 12 - 16 * lines
    most = max((v for _, points in found for _, v in points if not isnan(v)), default=0) or 1

    def at(moment: float, value: float) -> str:
        x = left + (moment - span.begin) / (span.end - span.begin) * (right - left)
        return f"{x:.0f},{bottom - value / most * (bottom - top):.0f}"

    parts = [
        f'<path d="M{left} {y:.0f}H{right}" stroke="{_GREY}" stroke-opacity=".2"/>'
        f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end" font-size="10">{text}</text>'
        for share in (0, 0.5, 1)
        for y, text in ((bottom - share * (bottom - top), _written(most * share, unit)),)
    ]
    for number, ((name, points), colour) in enumerate(zip(found, cycle(_COLOURS), strict=False)):
        path = " ".join(at(*point) for point in points if not isnan(point[1]))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        if number < _LONGEST_LEGEND:
            x = left + number % across * (right - left) // across
            y = height - 10 - 16 * (lines - 1 - number // across)
            parts.append(f'<text x="{x}" y="{y}" fill="{colour}">{escape(name)}</text>')
    return parts


def _written(value: float, unit: str) -> str:
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:.3g} ms"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    scale, suffix = next(((s, x) for s, x in _SUFFIXES if value >= s), (1, ""))
    return f"{value / scale:.3g}{suffix}{ {'s': ' s', 'ops': '/s', 'bytes': 'B'}.get(unit, '') }"


async def main() -> None:
    """Draw all dashboards into docs/dashboards."""
    pictures = ROOT / "docs/dashboards"
    with TemporaryDirectory(prefix="notifier-pictures-") as home:
        async with seen(Path(home)) as what:
            for file in sorted(CHART.glob("dashboards/*.json")):
                picture = drawn(json.loads(file.read_text()), what)
                (pictures / f"{file.stem}.svg").write_text(picture)


if __name__ == "__main__":
    asyncio.run(main())
