"""The composition root: settings in, running roles out. The one module that knows all others."""

import asyncio
import gc
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass
from importlib.metadata import version

import structlog
from pydantic import SecretStr
from starlette.types import ASGIApp

from notifier.adapters.memory.broker import MemoryBroker
from notifier.adapters.memory.marks import MemoryMarks
from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.adapters.memory.roster import MemoryRoster
from notifier.adapters.memory.seats import MemorySeats
from notifier.adapters.rabbitmq.queue import AmqpEventQueue
from notifier.adapters.rabbitmq.source import AmqpEventSource
from notifier.adapters.redis.broker import RedisBroker
from notifier.adapters.redis.marks import RedisMarks
from notifier.adapters.redis.roster import RedisRoster
from notifier.adapters.redis.seats import RedisSeats
from notifier.adapters.tokens.verifier import JwtVerifier
from notifier.api import app as api_app
from notifier.api.keys import ApiKeys
from notifier.backends import Backends
from notifier.core.addresses import Address
from notifier.core.background import Background
from notifier.core.conversation import Terms
from notifier.core.origins import Origins
from notifier.core.pace import Pace
from notifier.core.ports import (
    Broker,
    EventQueue,
    EventSource,
    Marks,
    Roster,
    Seats,
    TokenVerifier,
)
from notifier.credentials import minted, take_keys
from notifier.credentials import verifier as verifier_of
from notifier.gateway import app as gateway_app
from notifier.gateway.gateway import Capacity, Gateway
from notifier.gateway.outgoing import Outgoing
from notifier.gateway.websocket import WebSocketConnection
from notifier.http.backlog import Backlog
from notifier.http.proxies import Proxies
from notifier.page import PublicApi, create_page
from notifier.page.guard import LOOPBACK_ORIGINS, Guard
from notifier.probes import Facts, Trouble, measured_loop
from notifier.probes import create_app as create_private_app
from notifier.reloading import Take, reloading
from notifier.router.router import Router
from notifier.serving import room_for, serve, stop_signals, trouble_with_files
from notifier.settings import Role, Settings, SettingsError, variable
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.traces import Traces, traces

_log = structlog.get_logger("notifier.wiring")
_ROUTER_GRACE = 10.0
_API_GRACE = 12  # longer than a put may take: each request in flight still gets its true answer
_FEWEST_CONNECTIONS = 1_000  # of a gateway, unless its setting names fewer
_OTHER_CLIENTS = 128  # of a gateway that is full of sessions: they read history, or are refused
_CONNECTS_AT_ONCE = 5.0  # seconds' worth: a gateway that dies sends its clients all at once
_INBOUND_AT_ONCE = 10.0  # seconds' worth: who comes back may subscribe to a hundred topics
_DEV_TOKEN_SECONDS = 12 * 3600


async def run(role: Role, settings: Settings, announce: Callable[[str], None]) -> None:
    """Run a role until a signal stops it. Raises whatever one of its background tasks died of.

    `announce` is given what `dev` has to say to the person who started it.
    """
    metrics = Metrics()
    metrics.build_info.labels(role, version("notifier")).set(1)
    _spare_the_collector()
    # Whoever closes the terminal of `dev` has it end; others read their settings anew.
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
                    await _run_dev(settings, metrics, traces, stopping, announce)
        _log.info("stopped", role=role)


def _spare_the_collector() -> None:
    """Let the garbage collector pass over what lives as long as its process or its client.

    By itself it looks at everything again and again while connections become more: a third of a
    second at a time with 10,000 of them, in which nobody is served.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 10_000)  # what is young is looked at as ever


async def _run_gateway(
    settings: Settings, metrics: Metrics, traces: Traces, stopping: asyncio.Event
) -> None:
    verifier, backends = _verifier(settings, metrics), Backends(settings)
    take = _taking(backends, lambda changed: take_keys(verifier, changed))
    async with (
        reloading("gateway", settings, take, metrics),
        _redis(settings, backends.redis, metrics) as broker,
        verifier,
        _marks(settings, backends.redis, metrics) as marks,
        _seats(settings, backends.redis, metrics) as seats,
        _gateway(
            settings, traces.broker(broker), verifier, metrics, marks=marks, seats=seats
        ) as gateway,
        _serve_gateway(
            settings,
            settings.host,
            gateway,
            gateway_app.create_app(gateway, settings.allowed_origins, _proxies(settings)),
        ),
        _private(
            settings,
            settings.host,
            metrics,
            lambda: {**gateway.trouble(), "files": trouble_with_files(_wanted(settings))},
        ),
    ):
        await stopping.wait()
        await gateway.drain()


async def _run_router(
    settings: Settings, metrics: Metrics, traces: Traces, stopping: asyncio.Event
) -> None:
    backends = Backends(settings)
    async with (
        reloading("router", settings, _taking(backends), metrics),
        _redis(settings, backends.redis, metrics) as broker,
        RedisRoster(backends.redis, metrics=metrics) as roster,
        _amqp_source(settings, backends.amqp, roster, metrics) as source,
        _routing(traces.source(source), traces.broker(broker), metrics) as router,
        _private(
            settings,
            settings.host,
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
    take = _taking(backends, lambda changed: keys.replace(changed.api_keys))
    async with (
        reloading("api", settings, take, metrics),
        _amqp_queue(settings, backends.amqp, metrics) as queue,
    ):
        app = api_app.create_app(traces.queue(queue), metrics, keys, _proxies(settings))
        async with (
            serve(
                app,
                host=settings.host,
                port=settings.api_port,
                setting="NOTIFIER_API_PORT",
                grace=_API_GRACE,
            ),
            _private(settings, settings.host, metrics, lambda: {"queue": queue.trouble}),
        ):
            await stopping.wait()


async def _run_dev(
    settings: Settings,
    metrics: Metrics,
    traces: Traces,
    stopping: asyncio.Event,
    announce: Callable[[str], None],
) -> None:
    host = settings.host if settings.is_given("host") else "127.0.0.1"
    dev_tokens = DevTokens(settings)
    async with (
        _dev_backends(settings, metrics, traces) as backends,
        dev_tokens.verifier() as verifier,
        _dev_seats(settings, metrics) as seats,
        _gateway(
            settings, backends.broker, verifier, metrics, marks=backends.marks, seats=seats
        ) as gateway,
        _routing(backends.source, backends.broker, metrics) as router,
        _serve_dev(settings, host, gateway, backends.queue, dev_tokens) as ports,
        _private(settings, host, metrics, lambda: {**gateway.trouble(), **router.trouble()}),
    ):
        announce(_welcome(host, ports, dev_tokens.mint("42"), backends.kind, settings))
        await stopping.wait()
        await gateway.drain()


# The parts.


def _taking(backends: Backends, take: Callable[[Settings], None] | None = None) -> Take:
    """Return what takes over the backends' passwords, and what `take` does: both or neither."""

    def take_all(changed: Settings) -> list[str]:
        backends.check(changed)
        if take:
            take(changed)
        return backends.take(changed)

    return take_all


@asynccontextmanager
async def _routing(source: EventSource, broker: Broker, metrics: Metrics) -> AsyncIterator[Router]:
    """Run a router while inside; then let it finish its batches, for a while."""
    router = Router(source, broker, metrics)
    async with Background() as background:
        running = background.start(router.run(), "router")
        try:
            yield router
        finally:
            source.stop()
            await asyncio.wait({running}, timeout=_ROUTER_GRACE)


def _gateway(  # noqa: PLR0913 - the parts of a gateway
    settings: Settings,
    broker: Broker,
    verifier: TokenVerifier,
    metrics: Metrics,
    *,
    marks: Marks,
    seats: Seats | None,
) -> Gateway:
    connects = Pace(settings.connect_rate, _CONNECTS_AT_ONCE)
    return Gateway(
        broker,
        verifier,
        metrics,
        marks,
        terms=_terms(settings),
        capacity=Capacity(room_for(settings.max_connections), connects),
        seats=seats,
        drain_rate=settings.drain_rate,
        drain_deadline=settings.drain_seconds,
    )


def _wanted(settings: Settings) -> int:
    """Return how many connections have to fit, or the gateway is not ready."""
    most = settings.max_connections
    return most if settings.is_given("max_connections") else min(most, _FEWEST_CONNECTIONS)


def _terms(settings: Settings) -> Terms:
    return Terms(
        heartbeat=settings.heartbeat_seconds,
        most_topics=settings.topics_per_connection,
        max_age=settings.max_connection_age_seconds,
    )


def _serve_gateway(
    settings: Settings, host: str, gateway: Gateway, app: ASGIApp
) -> AbstractAsyncContextManager[int]:
    Outgoing.send_buffer = settings.send_buffer_bytes
    Outgoing.backlog = backlog = _backlog(settings, gateway.metrics)
    WebSocketConnection.frame_pace = Pace(settings.frame_rate, _INBOUND_AT_ONCE)
    WebSocketConnection.byte_pace = Pace(settings.byte_rate, _INBOUND_AT_ONCE)
    return serve(
        app,
        host=host,
        port=settings.gateway_port,
        setting="NOTIFIER_GATEWAY_PORT",
        websocket=WebSocketConnection,
        backlog=backlog,
        most=gateway.capacity.connections + _OTHER_CLIENTS,
    )


def _proxies(settings: Settings) -> Proxies:
    return Proxies(settings.trusted_proxies)


def _backlog(settings: Settings, metrics: Metrics) -> Backlog:
    backlog = Backlog(settings.send_buffer_total_bytes, metrics.answers_cut_off.inc)
    metrics.send_buffers.set_function(lambda: backlog.total)
    metrics.send_buffers_limit.set(backlog.most)
    return backlog


@asynccontextmanager
async def _private(
    settings: Settings, host: str, metrics: Metrics, trouble: Trouble, facts: Facts = dict
) -> AsyncIterator[int]:
    app = create_private_app(metrics, trouble, facts)
    async with (
        measured_loop(metrics),
        serve(app, host=host, port=settings.private_port, setting="NOTIFIER_PRIVATE_PORT") as port,
    ):
        yield port


def _traces(role: Role, settings: Settings) -> AbstractAsyncContextManager[Traces]:
    try:
        return traces(role, wanted=settings.traces)
    except ImportError as error:
        raise SettingsError(
            [f"NOTIFIER_TRACES: needs OpenTelemetry ({error}): pip install 'notifier[otel]'"]
        ) from error


def _verifier(settings: Settings, metrics: Metrics) -> JwtVerifier:
    return verifier_of(settings, lambda outcome: metrics.issuer_fetches.labels(outcome).inc())


def _redis(settings: Settings, address: Address, metrics: Metrics) -> RedisBroker:
    return RedisBroker(
        address,
        metrics=metrics,
        deduplication_seconds=settings.deduplication_seconds,
        history_size=settings.history_size,
        history_seconds=settings.history_seconds,
        inbox_size=settings.inbox_size,
        inbox_seconds=settings.inbox_seconds,
    )


def _marks(settings: Settings, address: Address, metrics: Metrics) -> RedisMarks:
    seconds = 2 * max(settings.inbox_seconds, settings.history_seconds)  # as long as heads
    return RedisMarks(address, metrics=metrics, seconds=seconds)


def _seats(
    settings: Settings, address: Address, metrics: Metrics
) -> AbstractAsyncContextManager[Seats | None]:
    if settings.connections_per_user is None:
        return nullcontext()
    return RedisSeats(address, settings.connections_per_user, metrics=metrics)


def _amqp_queue(settings: Settings, address: Address, metrics: Metrics) -> AmqpEventQueue:
    return AmqpEventQueue(address, partitions=settings.partitions, metrics=metrics)


def _amqp_source(
    settings: Settings, address: Address, roster: Roster, metrics: Metrics
) -> AmqpEventSource:
    return AmqpEventSource(address, partitions=settings.partitions, roster=roster, metrics=metrics)


# What only `dev` needs.


@dataclass(frozen=True, slots=True)
class _Backends:
    kind: str
    queue: EventQueue
    source: EventSource
    broker: Broker
    marks: Marks


@asynccontextmanager
async def _dev_backends(
    settings: Settings, metrics: Metrics, traces: Traces
) -> AsyncIterator[_Backends]:
    """Yield the in-memory adapters, and the real ones in place of those whose address is given."""
    async with AsyncExitStack() as stack:
        memory = MemoryEventQueue()
        queue: EventQueue = memory
        source: EventSource = memory
        broker: Broker = MemoryBroker(
            deduplication_seconds=settings.deduplication_seconds,
            history_size=settings.history_size,
            inbox_size=settings.inbox_size,
        )
        marks: Marks = MemoryMarks(broker)
        backends = Backends(settings)
        if settings.is_given("amqp_url"):
            queue = await stack.enter_async_context(_amqp_queue(settings, backends.amqp, metrics))
            amqp_source = _amqp_source(settings, backends.amqp, MemoryRoster(), metrics)
            source = await stack.enter_async_context(amqp_source)
        if settings.is_given("redis_url"):
            broker = await stack.enter_async_context(_redis(settings, backends.redis, metrics))
            marks = await stack.enter_async_context(_marks(settings, backends.redis, metrics))
        real = (settings.is_given("amqp_url"), settings.is_given("redis_url"))
        names = ("RabbitMQ" if real[0] else "memory", "Redis" if real[1] else "memory")
        yield _Backends(
            " and ".join(dict.fromkeys(names)),
            traces.queue(queue),
            traces.source(source),
            traces.broker(broker),
            marks,
        )


def _dev_seats(settings: Settings, metrics: Metrics) -> AbstractAsyncContextManager[Seats | None]:
    if settings.is_given("redis_url") or settings.connections_per_user is None:
        return _seats(settings, Backends(settings).redis, metrics)
    return MemorySeats(settings.connections_per_user)


class DevTokens:
    """Tokens that `dev` makes for whoever asks: it is its own issuer."""

    def __init__(self, settings: Settings) -> None:
        if given := [name for name in settings.given_keys() if name != "jwt_secret"]:
            reason = "dev makes its own tokens, which needs a secret; leave this out, or run the "
            raise SettingsError([f"{', '.join(map(variable, given))}: {reason}gateway role"])
        self._settings = settings
        if settings.jwt_secret is None:
            made = SecretStr(secrets.token_urlsafe(48))
            self._settings = settings.model_copy(update={"jwt_secret": made})

    def mint(self, user: str) -> str:
        """Make a token for `user` that may follow every topic."""
        return minted(self._settings, user, ["*"], _DEV_TOKEN_SECONDS)

    def verifier(self) -> JwtVerifier:
        """Make the verifier of these tokens."""
        return verifier_of(self._settings)


@asynccontextmanager
async def _serve_dev(
    settings: Settings, host: str, gateway: Gateway, queue: EventQueue, dev_tokens: DevTokens
) -> AsyncIterator[tuple[int, int]]:
    """Serve clients, with the page, and producers; yield both ports."""
    keys = ApiKeys(settings.api_keys, open_to=None if settings.api_keys else "dev")
    api = api_app.create_app(queue, gateway.metrics, keys, _proxies(settings))
    page_api = api_app.create_app(queue, gateway.metrics, ApiKeys((), open_to="page"))
    allowed = (*settings.allowed_origins, *LOOPBACK_ORIGINS)
    app = gateway_app.create_app(gateway, allowed, _proxies(settings))
    guarded, guarded_api = (Guard(each, host, Origins(allowed)) for each in (app, api))
    async with serve(
        guarded_api, host=host, port=settings.api_port, setting="NOTIFIER_API_PORT"
    ) as api_port:
        page = create_page(
            mint=dev_tokens.mint,
            is_followed=gateway.hub.is_followed,
            api=page_api,
            public_api=PublicApi(port=api_port, needs_key=bool(settings.api_keys)),
        )
        app.mount("", page)
        async with _serve_gateway(settings, host, gateway, guarded) as public_port:
            yield public_port, api_port


def _welcome(host: str, ports: tuple[int, int], token: str, kind: str, settings: Settings) -> str:
    public_port, api_port = ports
    key = ' -H "authorization: Bearer $NOTIFIER_API_KEY"' if settings.api_keys else ""
    keys = "those of NOTIFIER_API_KEYS" if settings.api_keys else "none needed, none checked"
    body = '{"users":["42"],"type":"greeting","data":{"text":"hello"}}'
    return f"""
notifier is running on {kind}. Stop it with Ctrl+C.

  The page       http://{host}:{public_port}/#user=42
  Send an event  curl http://{host}:{api_port}/v1/events -H "content-type: application/json"{key} \\
                   -d '{body}'
  Listen         notifier listen --user 42 --url ws://{host}:{public_port}
  A token of 42  {token}
  API keys       {keys}
"""
