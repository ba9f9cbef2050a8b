"""The composition root: settings in, running roles out. The one module that knows all others."""

import asyncio
import gc
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import structlog

from notifier import __version__, credentials
from notifier.adapters.redis.roster import RedisRoster
from notifier.api import app as api_app
from notifier.api.keys import ApiKeys
from notifier.backends import Backends
from notifier.gateway import app as gateway_app
from notifier.reloading import reloading
from notifier.serving import serve, stop_signals, trouble_with_files
from notifier.settings import Role, Settings, SettingsError
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.traces import Traces, traces
from notifier.wiring import parts
from notifier.wiring.dev import run_dev

_log = structlog.get_logger("notifier.wiring")
_API_GRACE = 12  # longer than a put may take: each request in flight still gets its true answer


async def run(role: Role, settings: Settings, announce: Callable[[str], None]) -> None:
    """Run a role until a signal stops it. Raises the error of a background task that died.

    `announce` gets the lines of `dev` for the person at the terminal.
    """
    metrics = Metrics()
    metrics.build_info.labels(role, __version__).set(1)
    _spare_the_collector()
    # With its terminal `dev` ends; other roles read their settings anew.
    hangup = (signal.SIGHUP,) if role == "dev" else ()
    with stop_signals(*hangup) as stopping:
        _log.info("starting", role=role)
        async with _traces(role, settings) as traces:
            match role:
                case "gateway":
                    await _run_gateway(settings, metrics, traces, stopping)
                case "router":
                    await _run_router(settings, metrics, traces, stopping)
                case "api":
                    await _run_api(settings, metrics, traces, stopping)
                case "dev":
                    await run_dev(settings, metrics, traces, stopping, announce)
        _log.info("stopped", role=role)


def _spare_the_collector() -> None:
    """Make full garbage collections rare, and leave out the objects that exist at start.

    By default they run each time the number of connections grows by 25 %, and take 0.3 s with
    10,000 of them, in which no client is served.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 10_000)  # young objects are collected as ever


async def _run_gateway(
    settings: Settings, metrics: Metrics, traces: Traces, stopping: asyncio.Event
) -> None:
    verifier, backends = parts.verifier(settings, metrics), Backends(settings)
    certificate = credentials.certificate(settings)
    take = parts.reload_handler(backends, partial(parts.take_credentials, verifier, certificate))
    async with (
        reloading("gateway", settings, take, metrics),
        parts.on_redis(settings, backends.redis, metrics, traces) as shared,
        verifier,
        parts.seats(settings, backends.redis, metrics) as seats,
        parts.gateway(settings, shared, verifier, seats, metrics) as gateway,
        parts.serve_gateway(
            settings,
            gateway,
            gateway_app.create_app(
                gateway, settings.allowed_origins, settings.trusted_proxies, docs=settings.docs
            ),
            certificate,
        ),
        parts.serve_private(
            settings,
            metrics,
            lambda: {
                **gateway.trouble(),
                "files": trouble_with_files(parts.least_connections(settings)),
            },
        ),
    ):
        await stopping.wait()
        await gateway.drain()


async def _run_router(
    settings: Settings, metrics: Metrics, traces: Traces, stopping: asyncio.Event
) -> None:
    backends = Backends(settings)
    async with (
        reloading("router", settings, parts.reload_handler(backends), metrics),
        parts.on_redis(settings, backends.redis, metrics, traces) as shared,
        RedisRoster(backends.redis, metrics=metrics) as roster,
        parts.amqp_source(settings, backends.amqp, roster, metrics) as source,
        parts.running_router(traces.source(source), shared, metrics) as router,
        parts.serve_private(
            settings,
            metrics,
            router.trouble,
            lambda: {"partitions": source.partitions},
        ),
    ):
        await stopping.wait()


async def _run_api(
    settings: Settings, metrics: Metrics, traces: Traces, stopping: asyncio.Event
) -> None:
    keys, backends = ApiKeys(settings.api_keys), Backends(settings)
    take = parts.reload_handler(backends, lambda changed: keys.replace(changed.api_keys))
    on_redis = parts.on_redis(settings, backends.redis, metrics, traces)
    async with (
        reloading("api", settings, take, metrics),
        parts.amqp_queue(settings, backends.amqp, metrics) as queue,
        on_redis if settings.is_given("redis_url") else nullcontext() as shared,
        serve(
            api_app.create_app(
                traces.queue(queue),
                metrics,
                keys,
                settings.trusted_proxies,
                shared=shared,
                docs=settings.docs,
            ),
            host=settings.host,
            port=settings.api_port,
            setting="NOTIFIER_API_PORT",
            grace=_API_GRACE,
        ),
        parts.serve_private(settings, metrics, lambda: {"queue": queue.trouble}),
    ):
        await stopping.wait()


def _traces(role: Role, settings: Settings) -> AbstractAsyncContextManager[Traces]:
    try:
        return traces(role, wanted=settings.traces)
    except ImportError as error:
        raise SettingsError(
            [f"NOTIFIER_TRACES: needs OpenTelemetry ({error}): pip install 'notifier-push[otel]'"]
        ) from error
