"""`notifier dev`: all roles in one process, on memory, with the page."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.exceptions import HTTPException

from notifier.adapters.memory.broker import MemoryBroker
from notifier.adapters.memory.control import MemoryControl
from notifier.adapters.memory.marks import MemoryMarks
from notifier.adapters.memory.members import MemoryMembers
from notifier.adapters.memory.presence import MemoryWitnesses
from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.adapters.memory.roster import MemoryRoster
from notifier.adapters.memory.seats import MemorySeats
from notifier.adapters.tokens.verifier import JwtVerifier
from notifier.api import app as api_app
from notifier.api.fate import Streams
from notifier.api.keys import ApiKeys
from notifier.backends import Backends
from notifier.core.grants import Grant, Scope
from notifier.core.origins import Origins
from notifier.core.ports import (
    Broker,
    Control,
    EventQueue,
    EventSource,
    Marks,
    Members,
    Seats,
    Witnesses,
)
from notifier.credentials import minted
from notifier.credentials import verifier as verifier_of
from notifier.gateway import app as gateway_app
from notifier.gateway.gateway import Gateway
from notifier.page import PublicApi, create_page
from notifier.page.guard import LOOPBACK_ORIGINS, Guard
from notifier.problems import no_route
from notifier.router.undelivered import Knowledge
from notifier.serving import serve
from notifier.settings import Settings, SettingsError, variable
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.traces import Traces
from notifier.wiring import parts

_DEV_TOKEN_SECONDS = 12 * 3600


@dataclass(frozen=True, slots=True)
class DevHouse:
    """All roles in one process, at work: on which ports, and what they are made of."""

    host: str
    gateway_port: int
    api_port: int
    kind: str
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
    """Run until `stopping`; `announce` is given what there is to say to who started it."""
    async with dev_house(settings, metrics, traces) as house:
        announce(_welcome(house, settings))
        await stopping.wait()
        await house.gateway.drain()


@asynccontextmanager
async def dev_house(
    settings: Settings, metrics: Metrics, traces: Traces
) -> AsyncIterator[DevHouse]:
    """Run all roles while inside; raises SettingsError, ServingError."""
    host = settings.host if settings.is_given("host") else "127.0.0.1"
    dev_tokens = DevTokens(settings)
    async with (
        _dev_backends(settings, metrics, traces) as backends,
        dev_tokens.verifier() as verifier,
        _dev_seats(settings, metrics) as seats,
        parts.gateway(
            settings,
            parts.Ports(
                backends.broker,
                verifier,
                backends.marks,
                backends.members,
                seats,
                backends.control,
                backends.witnesses,
            ),
            metrics,
        ) as gateway,
        parts.routing(
            backends.source,
            Knowledge(backends.broker, backends.marks, backends.witnesses),
            metrics,
        ) as router,
        _serve_dev(settings, host, gateway, backends, dev_tokens) as ports,
        parts.private(settings, host, metrics, lambda: {**gateway.trouble(), **router.trouble()}),
    ):
        yield DevHouse(host, *ports, backends.kind, gateway, dev_tokens, backends.memory)


@dataclass(frozen=True, slots=True)
class _Backends:
    kind: str
    queue: EventQueue
    source: EventSource
    broker: Broker
    marks: Marks
    members: Members
    control: Control
    witnesses: Witnesses
    memory: MemoryEventQueue


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
        members: Members = MemoryMembers(broker)
        control: Control = MemoryControl(broker)
        witnesses: Witnesses = MemoryWitnesses(broker)
        backends = Backends(settings)
        if settings.is_given("amqp_url"):
            queue = await stack.enter_async_context(
                parts.amqp_queue(settings, backends.amqp, metrics)
            )
            amqp_source = parts.amqp_source(settings, backends.amqp, MemoryRoster(), metrics)
            source = await stack.enter_async_context(amqp_source)
        if settings.is_given("redis_url"):
            broker = await stack.enter_async_context(parts.redis(settings, backends.redis, metrics))
            marks = await stack.enter_async_context(parts.marks(settings, backends.redis, metrics))
            members = await stack.enter_async_context(parts.members(backends.redis, metrics))
            control = await stack.enter_async_context(
                parts.control(settings, backends.redis, metrics)
            )
            witnesses = await stack.enter_async_context(parts.witnesses(backends.redis, metrics))
        real = (settings.is_given("amqp_url"), settings.is_given("redis_url"))
        names = ("RabbitMQ" if real[0] else "memory", "Redis" if real[1] else "memory")
        yield _Backends(
            " and ".join(dict.fromkeys(names)),
            traces.queue(queue),
            traces.source(source),
            traces.broker(broker),
            marks,
            members,
            control,
            witnesses,
            memory,
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
        return minted(
            self._settings, user, every, _DEV_TOKEN_SECONDS, publish=every, presence=every
        )

    def verifier(self) -> JwtVerifier:
        """Make the verifier of these tokens."""
        return verifier_of(self._settings)


@asynccontextmanager
async def _serve_dev(
    settings: Settings, host: str, gateway: Gateway, backends: _Backends, dev_tokens: DevTokens
) -> AsyncIterator[tuple[int, int]]:
    """Serve clients, with the page, and producers; yield both ports."""
    anybody = None if settings.api_keys else Grant("dev", tuple(Scope))
    keys = ApiKeys(settings.api_keys, open_to=anybody)
    api = api_app.create_app(
        backends.queue,
        gateway.metrics,
        keys,
        parts.proxies(settings),
        control=backends.control,
        witnesses=backends.witnesses,
        streams=Streams(backends.broker, backends.marks),
        docs=settings.docs,
    )
    page_api = api_app.create_app(
        backends.queue, gateway.metrics, ApiKeys((), open_to=Grant("page"))
    )
    allowed = (*settings.allowed_origins, *LOOPBACK_ORIGINS)
    app = gateway_app.create_app(gateway, allowed, parts.proxies(settings), docs=settings.docs)
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
        page.add_exception_handler(HTTPException, no_route(f"the page at /, {gateway_app.OFFERS}"))
        app.mount("", page)
        async with parts.serve_gateway(settings, host, gateway, guarded) as public_port:
            yield public_port, api_port


def _welcome(house: DevHouse, settings: Settings) -> str:
    host, public_port, api_port = house.host, house.gateway_port, house.api_port
    key = ' -H "authorization: Bearer $NOTIFIER_API_KEY"' if settings.api_keys else ""
    keys = "those of NOTIFIER_API_KEYS" if settings.api_keys else "none needed, none checked"
    body = '{"users":["42"],"type":"greeting","data":{"text":"hello"}}'
    return f"""
notifier is running on {house.kind}. Stop it with Ctrl+C.

  The page       http://{host}:{public_port}/#user=42
  Send an event  curl http://{host}:{api_port}/v1/events -H "content-type: application/json"{key} \\
                   -d '{body}'
  Listen         notifier listen --user 42 --url ws://{host}:{public_port}
  A token of 42  {house.tokens.mint("42")}
  API keys       {keys}
"""
