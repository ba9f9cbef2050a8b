"""The private port of each role: /livez, /readyz and /metrics. Never to be exposed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from notifier.core.background import Background
from notifier.telemetry.metrics import Metrics

Trouble = Callable[[], Mapping[str, str | None]]
"""Each part that a role needs to deliver, with why it does not work, or None."""

Facts = Callable[[], Mapping[str, object]]
"""What else there is to tell about a process that works."""


def create_app(metrics: Metrics, trouble: Trouble, facts: Facts = dict) -> Starlette:
    """Make the application of a process's private port."""
    _tell_trouble(metrics, trouble)

    async def livez(_: Request) -> Response:
        # Restarting does not bring back a dependency, so this asks none.
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        parts = {part: why or "ok" for part, why in trouble().items()}
        ready = all(why == "ok" for why in parts.values())
        return JSONResponse({"ready": ready, "parts": parts, **facts()}, 200 if ready else 503)

    async def metricsz(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metricsz)]
    )


def _tell_trouble(metrics: Metrics, trouble: Trouble) -> None:
    """Have the metrics ask, whenever they are read, what readiness asks."""

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
