"""`notifier dev`: all roles in one process, on memory, with the page."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from notifier import credentials
from notifier.adapters.memory.broker import MemoryBroker
from notifier.adapters.memory.control import MemoryControl
from notifier.adapters.memory.marks import MemoryMarks
from notifier.adapters.memory.members import MemoryMembers
from notifier.adapters.memory.presence import MemoryPresenceQueries
from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.adapters.memory.roster import MemoryRoster
from notifier.adapters.memory.seats import MemorySeats
from notifier.adapters.tokens.verifier import JwtVerifier
from notifier.api import app as api_app
from notifier.api.keys import ApiKeys
from notifier.backends import Backends
from notifier.core.grants import Grant, Scope
from notifier.core.origins import Origins
from notifier.core.ports import EventQueue, EventSource, Seats, SharedPorts
from notifier.gateway import app as gateway_app
from notifier.gateway.gateway import Gateway
from notifier.page import create_page
from notifier.page.guard import LOOPBACK_ORIGINS, Guard
from notifier.problems import no_route
from notifier.serving import serve
from notifier.settings import Settings, SettingsError, variable
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.traces import Traces
from notifier.wiring import parts

_DEV_TOKEN_SECONDS = 12 * 3600


@dataclass(frozen=True, slots=True)
class DevHouse:
    """All roles in one process, at work: their ports and their parts."""

    host: str
    gateway_port: int
    api_port: int
    gateway: Gateway
    tokens: "DevTokens"
    memory: MemoryEventQueue


async def run_dev(
    settings: Settings,
    metrics: Metrics,
    traces: Traces,
    stopping: asyncio.Event,
    announce: Callable[[str], None],
) -> None:
    """Run until `stopping`; `announce` gets the lines for the person at the terminal."""
    async with dev_house(settings, metrics, traces) as house:
        announce(_welcome(house, settings))
        await stopping.wait()
        await house.gateway.drain()


@asynccontextmanager
async def dev_house(
    settings: Settings, metrics: Metrics, traces: Traces
) -> AsyncIterator[DevHouse]:
    """Run all roles while inside; raises SettingsError, ServingError."""
    if not settings.is_given("host"):
        settings = settings.model_copy(update={"host": "127.0.0.1"})
    dev_tokens, memory = DevTokens(settings), MemoryEventQueue()
    async with (
        _event_queue(settings, memory, metrics, traces) as (queue, source),
        _shared_ports(settings, metrics, traces) as shared,
        dev_tokens.verifier() as verifier,
        _dev_seats(settings, metrics) as seats,
        parts.gateway(settings, shared, verifier, seats, metrics) as gateway,
        parts.running_router(source, shared, metrics) as router,
        _serve_dev(
            settings, gateway, _api_apps(settings, queue, shared, metrics), dev_tokens
        ) as ports,
        parts.serve_private(settings, metrics, lambda: {**gateway.trouble(), **router.trouble()}),
    ):
        yield DevHouse(settings.host, *ports, gateway, dev_tokens, memory)


@asynccontextmanager
async def _event_queue(
    settings: Settings, memory: MemoryEventQueue, metrics: Metrics, traces: Traces
) -> AsyncIterator[tuple[EventQueue, EventSource]]:
    """Yield both ends of RabbitMQ where its address is given, else those in memory."""
    if not settings.is_given("amqp_url"):
        yield traces.queue(memory), traces.source(memory)
        return
    address = Backends(settings).amqp
    async with (
        parts.amqp_queue(settings, address, metrics) as queue,
        parts.amqp_source(settings, address, MemoryRoster(), metrics) as source,
    ):
        yield traces.queue(queue), traces.source(source)


@asynccontextmanager
async def _shared_ports(
    settings: Settings, metrics: Metrics, traces: Traces
) -> AsyncIterator[SharedPorts]:
    """Yield the ports on Redis where its address is given, else those in memory."""
    if settings.is_given("redis_url"):
        address = Backends(settings).redis
        async with parts.on_redis(settings, address, metrics, traces) as shared:
            yield shared
        return
    broker = MemoryBroker(
        deduplication_seconds=settings.deduplication_seconds,
        history_size=settings.history_size,
        inbox_size=settings.inbox_size,
    )
    yield SharedPorts(
        traces.broker(broker),
        MemoryMarks(broker),
        MemoryMembers(broker),
        MemoryControl(broker),
        MemoryPresenceQueries(broker),
    )


def _dev_seats(settings: Settings, metrics: Metrics) -> AbstractAsyncContextManager[Seats | None]:
    if settings.is_given("redis_url") or settings.connections_per_user is None:
        return parts.seats(settings, Backends(settings).redis, metrics)
    return MemorySeats(settings.connections_per_user)


class DevTokens:
    """Tokens that `dev` makes for any caller: it is its own issuer."""

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
        every = ["*"]
        return credentials.minted(
            self._settings, user, every, _DEV_TOKEN_SECONDS, publish=every, presence=every
        )

    def verifier(self) -> JwtVerifier:
        """Make the verifier of these tokens."""
        return credentials.verifier(self._settings)


def _api_apps(
    settings: Settings, queue: EventQueue, shared: SharedPorts, metrics: Metrics
) -> tuple[FastAPI, FastAPI]:
    """Make the application for producers, and the one by which the page sends its own events."""
    anybody = None if settings.api_keys else Grant("dev", tuple(Scope))
    public = api_app.create_app(
        queue,
        metrics,
        ApiKeys(settings.api_keys, open_to=anybody),
        settings.trusted_proxies,
        shared=shared,
        docs=settings.docs,
    )
    return public, api_app.create_app(queue, metrics, ApiKeys((), open_to=Grant("page")))


@asynccontextmanager
async def _serve_dev(
    settings: Settings,
    gateway: Gateway,
    apis: tuple[FastAPI, FastAPI],
    dev_tokens: DevTokens,
) -> AsyncIterator[tuple[int, int]]:
    """Serve clients, with the page, and producers; yield both ports."""
    api, page_api = apis
    allowed = (*settings.allowed_origins, *LOOPBACK_ORIGINS)
    app = gateway_app.create_app(gateway, allowed, settings.trusted_proxies, docs=settings.docs)
    guarded, guarded_api = (Guard(each, settings.host, Origins(allowed)) for each in (app, api))
    async with serve(
        guarded_api, host=settings.host, port=settings.api_port, setting="NOTIFIER_API_PORT"
    ) as api_port:
        page = create_page(
            mint=dev_tokens.mint,
            is_followed=gateway.hub.is_followed,
            api=page_api,
            public_api={"port": api_port, "needs_key": bool(settings.api_keys)},
        )
        page.add_exception_handler(HTTPException, no_route(f"the page at /, {gateway_app.OFFERS}"))
        app.mount("", page)
        async with parts.serve_gateway(settings, gateway, guarded) as public_port:
            yield public_port, api_port


def _welcome(house: DevHouse, settings: Settings) -> str:
    host, public_port, api_port = house.host, house.gateway_port, house.api_port
    key = ' -H "authorization: Bearer $NOTIFIER_API_KEY"' if settings.api_keys else ""
    keys = "those of NOTIFIER_API_KEYS" if settings.api_keys else "none needed, none checked"
    body = '{"users":["42"],"type":"greeting","data":{"text":"hello"}}'
    real = {"amqp_url": "RabbitMQ", "redis_url": "Redis"}
    backends = [name if settings.is_given(url) else "memory" for url, name in real.items()]
    return f"""
notifier is running on {" and ".join(dict.fromkeys(backends))}. Stop it with Ctrl+C.

  The page       http://{host}:{public_port}/#user=42
  Send an event  curl http://{host}:{api_port}/v1/events -H "content-type: application/json"{key} \\
                   -d '{body}'
  Listen         notifier listen --user 42 --url ws://{host}:{public_port}
  A token of 42  {house.tokens.mint("42")}
  API keys       {keys}
"""
