"""The parts that roles are made of, each from the settings."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)

from starlette.types import ASGIApp

from notifier import credentials
from notifier.adapters.rabbitmq.queue import AmqpEventQueue
from notifier.adapters.rabbitmq.source import AmqpEventSource
from notifier.adapters.redis.broker import RedisBroker
from notifier.adapters.redis.control import RedisControl
from notifier.adapters.redis.marks import RedisMarks
from notifier.adapters.redis.members import RedisMembers
from notifier.adapters.redis.presence import RedisPresenceQueries
from notifier.adapters.redis.seats import RedisSeats
from notifier.adapters.tokens.verifier import JwtVerifier
from notifier.backends import Backends
from notifier.core.addresses import Address
from notifier.core.background import Background
from notifier.core.conversation import Terms
from notifier.core.ports import (
    EventSource,
    Roster,
    Seats,
    SharedPorts,
    TokenVerifier,
)
from notifier.core.rate_limit import RateLimit
from notifier.gateway.admission import Capacity
from notifier.gateway.gateway import Gateway
from notifier.gateway.outgoing import Outgoing
from notifier.gateway.websocket import WebSocketConnection
from notifier.http.backlog import Backlog
from notifier.http.certificate import ServerCertificate
from notifier.probes import Facts, Trouble, measured_loop
from notifier.probes import create_app as create_private_app
from notifier.reloading import Take
from notifier.router.router import Router
from notifier.serving import room_for, serve
from notifier.settings import Settings
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.traces import Traces

_ROUTER_GRACE = 10.0
_FEWEST_CONNECTIONS = 1_000  # of a gateway, unless its setting names fewer
_OTHER_CLIENTS = 128  # of a full gateway: they ask once, or are refused
_CONNECTS_AT_ONCE = 5.0  # seconds' worth: a gateway that dies sends its clients all at once
_INBOUND_AT_ONCE = 10.0  # seconds' worth: a reconnecting client may subscribe to a hundred topics


def reload_handler(
    backends: Backends, take: Callable[[Settings], Collection[str] | None] | None = None
) -> Take:
    """Return a function that takes the backends' passwords over and calls `take`, or neither.

    `take` may return the names of settings that wait for a restart.
    """

    def take_all(changed: Settings) -> list[str]:
        backends.check(changed)
        left = take(changed) if take else None
        return [*backends.take(changed), *(left or ())]

    return take_all


def take_credentials(
    verifier: JwtVerifier, certificate: ServerCertificate | None, changed: Settings
) -> Collection[str]:
    """Let a gateway use changed keys of tokens and a changed certificate, or neither.

    Returns the settings that wait for a restart: TLS begins and ends with the process.
    """
    offered = credentials.certificate(changed)
    verifier.take_keys(credentials.issuers(changed))
    if certificate and offered:
        certificate.become(offered)
        return ()
    return ("tls_certificate", "tls_key") if certificate or offered else ()


@asynccontextmanager
async def running_router(
    source: EventSource, shared: SharedPorts, metrics: Metrics
) -> AsyncIterator[Router]:
    """Run a router while inside; then let it finish its batches, for a while."""
    router = Router(source, shared, metrics)
    async with Background() as background:
        running = background.start(router.run(), "router")
        try:
            yield router
        finally:
            source.stop()
            await asyncio.wait({running}, timeout=_ROUTER_GRACE)


@asynccontextmanager
async def on_redis(
    settings: Settings, address: Address, metrics: Metrics, traces: Traces
) -> AsyncIterator[SharedPorts]:
    """Yield the ports on Redis; all but the broker connect when they are used."""
    as_long_as_heads = 2 * max(settings.inbox_seconds, settings.history_seconds)
    async with (
        RedisBroker(
            address,
            metrics=metrics,
            deduplication_seconds=settings.deduplication_seconds,
            history_size=settings.history_size,
            history_seconds=settings.history_seconds,
            inbox_size=settings.inbox_size,
            inbox_seconds=settings.inbox_seconds,
        ) as broker,
        RedisMarks(address, metrics=metrics, seconds=as_long_as_heads) as marks,
        RedisMembers(address, metrics=metrics) as members,
        RedisControl(address, settings.revocation_seconds, metrics=metrics) as control,
        RedisPresenceQueries(address, metrics=metrics) as presence_queries,
    ):
        yield SharedPorts(traces.broker(broker), marks, members, control, presence_queries)


def gateway(
    settings: Settings,
    shared: SharedPorts,
    verifier: TokenVerifier,
    seats: Seats | None,
    metrics: Metrics,
) -> Gateway:
    """Make a gateway."""
    capacity = Capacity(
        room_for(settings.max_connections),
        connects=RateLimit(settings.connect_rate, _CONNECTS_AT_ONCE),
        frames=RateLimit(settings.frame_rate, _INBOUND_AT_ONCE),
        frame_bytes=RateLimit(settings.byte_rate, _INBOUND_AT_ONCE),
    )
    terms = Terms(
        heartbeat=settings.heartbeat_seconds,
        most_topics=settings.topics_per_connection,
        max_age=settings.max_connection_age_seconds,
    )
    return Gateway(
        shared,
        verifier,
        metrics,
        terms=terms,
        capacity=capacity,
        seats=seats,
        revocation_seconds=settings.revocation_seconds,
        drain_rate=settings.drain_rate,
        drain_deadline=settings.drain_seconds,
    )


def least_connections(settings: Settings) -> int:
    """Return how many connections have to fit, or the gateway is not ready."""
    most = settings.max_connections
    return most if settings.is_given("max_connections") else min(most, _FEWEST_CONNECTIONS)


@asynccontextmanager
async def serve_gateway(
    settings: Settings,
    gateway: Gateway,
    app: ASGIApp,
    certificate: ServerCertificate | None = None,
) -> AsyncIterator[int]:
    """Serve clients on the public port, over TLS with a certificate; yield the port."""
    backlog = _backlog(settings, gateway.metrics)
    if certificate:
        expiry = gateway.metrics.certificate_expiry.labels("gateway")
        expiry.set_function(lambda: certificate.expires)
    with _connection_bounds(settings, gateway.admission.capacity):
        async with serve(
            app,
            host=settings.host,
            port=settings.gateway_port,
            setting="NOTIFIER_GATEWAY_PORT",
            is_shared=settings.gateway_port_shared,
            websocket=WebSocketConnection,
            backlog=backlog,
            most=gateway.admission.capacity.connections + _OTHER_CLIENTS,
            certificate=certificate,
        ) as port:
            yield port


@contextmanager
def _connection_bounds(settings: Settings, capacity: Capacity) -> Iterator[None]:
    """Set the bounds of all connections while inside: a test runs gateways in its own process."""
    before = Outgoing.send_buffer
    limits = WebSocketConnection.frame_limit, WebSocketConnection.byte_limit
    Outgoing.send_buffer = settings.send_buffer_bytes
    WebSocketConnection.frame_limit = capacity.frames
    WebSocketConnection.byte_limit = capacity.frame_bytes
    try:
        yield
    finally:
        Outgoing.send_buffer = before
        WebSocketConnection.frame_limit, WebSocketConnection.byte_limit = limits


def _backlog(settings: Settings, metrics: Metrics) -> Backlog:
    backlog = Backlog(settings.send_buffer_total_bytes, metrics.answers_cut_off.inc)
    metrics.send_buffers.set_function(lambda: backlog.total)
    metrics.send_buffers_limit.set(backlog.most)
    return backlog


@asynccontextmanager
async def serve_private(
    settings: Settings, metrics: Metrics, trouble: Trouble, facts: Facts = dict
) -> AsyncIterator[None]:
    """Serve probes and metrics on the private port while inside."""
    app = create_private_app(metrics, trouble, facts)
    async with (
        measured_loop(metrics),
        serve(app, host=settings.host, port=settings.private_port, setting="NOTIFIER_PRIVATE_PORT"),
    ):
        yield


def verifier(settings: Settings, metrics: Metrics) -> JwtVerifier:
    """Make the verifier of tokens."""
    return credentials.verifier(
        settings, lambda outcome: metrics.issuer_fetches.labels(outcome).inc()
    )


def seats(
    settings: Settings, address: Address, metrics: Metrics
) -> AbstractAsyncContextManager[Seats | None]:
    """Make the count of users' connections; None where none is wanted."""
    if settings.connections_per_user is None:
        return nullcontext()
    return RedisSeats(address, settings.connections_per_user, metrics=metrics)


def amqp_queue(settings: Settings, address: Address, metrics: Metrics) -> AmqpEventQueue:
    """Make the producers' end of the event queue."""
    return AmqpEventQueue(address, partitions=settings.partitions, metrics=metrics)


def amqp_source(
    settings: Settings, address: Address, roster: Roster, metrics: Metrics
) -> AmqpEventSource:
    """Make a router's end of the event queue."""
    return AmqpEventSource(address, partitions=settings.partitions, roster=roster, metrics=metrics)
