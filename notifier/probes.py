"""The private port of each role: /livez, /readyz and /metrics. Never to be exposed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from notifier.core.background import Background
from notifier.openapi import Application, answer, members
from notifier.problems import no_route
from notifier.telemetry.metrics import Metrics

_READY = members(
    ready={"type": "boolean"},
    parts={
        "type": "object",
        "description": "Each part's trouble, or `ok`.",
        "additionalProperties": {"type": "string"},
    },
)
_WELL = {"ready": True, "parts": {"broker": "ok"}}
_ILL = {"ready": False, "parts": {"broker": "no answer for 5 s"}}
_READINESS: dict[int | str, dict[str, Any]] = {
    200: answer("The process can do its work", _READY, ready=_WELL),
    503: answer("A part has trouble", _READY, trouble=_ILL),
}

Trouble = Callable[[], Mapping[str, str | None]]
"""Each part that a role needs to deliver, with why it does not work, or None."""

Facts = Callable[[], Mapping[str, object]]
"""Further facts about a process that works."""


def create_app(metrics: Metrics, trouble: Trouble, facts: Facts = dict) -> FastAPI:
    """Make the application of a process's private port."""
    _tell_trouble(metrics, trouble)

    async def livez() -> PlainTextResponse:
        """Say that the process runs. Restarting brings no dependency back, so this asks none."""
        return PlainTextResponse("alive\n")

    async def readyz() -> JSONResponse:
        """Say whether the process can do its work, and name the trouble of each part."""
        parts = {part: why or "ok" for part, why in trouble().items()}
        ready = all(why == "ok" for why in parts.values())
        return JSONResponse({"ready": ready, "parts": parts, **facts()}, 200 if ready else 503)

    async def metricsz() -> Response:
        """Expose the metrics to Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app = Application("notifier private port", "Probes and metrics. Never expose this port.", {})
    app.add_api_route("/livez", livez, response_class=PlainTextResponse)
    app.add_api_route("/readyz", readyz, responses=_READINESS)
    app.add_api_route("/metrics", metricsz, response_class=PlainTextResponse)
    app.add_exception_handler(HTTPException, no_route("/livez, /readyz and /metrics"))
    return app


def _tell_trouble(metrics: Metrics, trouble: Trouble) -> None:
    """Let the metrics show the same trouble as readiness, each time that they are read."""

    def has_trouble(part: str) -> float:
        return trouble()[part] is not None

    for part in trouble():
        metrics.trouble.labels(part).set_function(partial(has_trouble, part))


@contextlib.asynccontextmanager
async def measured_loop(metrics: Metrics) -> AsyncIterator[None]:
    """Measure how late the event loop is, once a second, while inside."""

    async def measure() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 1
            await asyncio.sleep(1)
            metrics.loop_lag.observe(max(0.0, loop.time() - due))

    async with Background() as background:
        background.start(measure(), "loop lag")
        yield
