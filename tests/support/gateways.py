"""A gateway on a loopback port of its own, and clients of it by the websockets library."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import httpx
import uvicorn.server
import websockets
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from notifier.adapters.memory.control import MemoryControl
from notifier.adapters.memory.presence import MemoryPresenceQueries
from notifier.core.access import Identity
from notifier.core.control import Order
from notifier.core.conversation import Conversation, Terms
from notifier.core.errors import NotifierError, Unauthorized, Unavailable
from notifier.core.names import personal_topic
from notifier.core.ports import Seats
from notifier.gateway.admission import Capacity
from notifier.gateway.app import create_app
from notifier.gateway.gateway import Gateway
from notifier.gateway.websocket import WebSocketConnection
from notifier.http.backlog import Backlog
from notifier.serving import serve
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import SteeredBroker, shared_ports_of
from tests.support.eventually import eventually
from tests.support.tls import NO_AUTHORITIES

_PATIENCE = 10.0
PROTOCOL = "notifier.v1"


def _in_haste() -> ModuleType:
    """Return asyncio for uvicorn, which sleeps 0.2 s at the end of a server; tests end hundreds."""
    module = ModuleType("asyncio")
    vars(module).update(vars(asyncio), sleep=lambda seconds: asyncio.sleep(seconds / 20))
    return module


uvicorn.server.asyncio = _in_haste()  # type: ignore[attr-defined]  # of the module, not of its users


class Tokens:
    """Fulfils TokenVerifier with a table; answers while it is `open`."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        later = time.time() + 3600
        self.table: dict[str, Identity | NotifierError] = {
            "ann": Identity("42", later, ("news",)),
            "bob": Identity("43", later),
        }

    async def verify(self, token: str) -> Identity:
        """See TokenVerifier."""
        self.asked.set()
        await self.open.wait()
        found = self.table.get(token, Unauthorized("the token is not known"))
        if isinstance(found, NotifierError):
            raise found
        return found


class SteeredControl(MemoryControl):
    """Fulfils Control. `away` fails all; a `mute` one does not tell gateways to look."""

    def __init__(self, broker: SteeredBroker) -> None:
        super().__init__(broker)
        self.away = False
        self.mute = False

    async def orders(self) -> list[Order]:
        """See Control."""
        if self.away:
            raise Unavailable("redis", "no answer")
        return await super().orders()

    async def _tell(self) -> None:
        if not self.mute:
            await super()._tell()


class Client:
    """A client of the gateway, by its verbs."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def next_frame(self) -> dict[str, Any]:
        """Return the next frame."""
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), _PATIENCE))
        return frame

    async def next_of(self, kind: str) -> dict[str, Any]:
        """Return the next frame, which must be of a type."""
        frame = await self.next_frame()
        assert frame["type"] == kind, frame
        return frame

    async def closed_with(self) -> int:
        """Wait for the end, and return its close code."""
        try:
            while True:
                await asyncio.wait_for(self.socket.recv(), _PATIENCE)
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else 1006

    async def say(self, **frame: object) -> None:
        """Send a frame."""
        await self.socket.send(json.dumps(frame))


class _Watched(Gateway):
    """A gateway of which one can await the end of sessions."""

    def __init__(self, *of: Any, **options: Any) -> None:  # noqa: ANN401  # passed on as they are
        super().__init__(*of, **options)
        self.one_ended = asyncio.Event()

    def ended(self, client: Conversation, reason: str) -> None:
        """See Host."""
        super().ended(client, reason)
        self.one_ended.set()


class House:
    """A gateway that is being served."""

    def __init__(  # noqa: PLR0913  # all that a test may want to touch
        self,
        port: int,
        app: FastAPI,
        gateway: _Watched,
        *,
        broker: SteeredBroker,
        tokens: Tokens,
        control: SteeredControl,
        presence_queries: MemoryPresenceQueries,
    ) -> None:
        self.port = port
        self.app = app
        self.gateway = gateway
        self.broker = broker
        self.tokens = tokens
        self.control = control
        self.presence_queries = presence_queries

    @asynccontextmanager
    async def http(self, token: str | None = "ann") -> AsyncIterator[httpx.AsyncClient]:  # noqa: S107  # as below
        """A client over plain HTTP, with the token in a header unless it is None."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        url = f"http://127.0.0.1:{self.port}"
        async with httpx.AsyncClient(
            base_url=url, headers=headers, timeout=_PATIENCE, verify=NO_AUTHORITIES
        ) as http:
            yield http

    @asynccontextmanager
    async def client(
        self,
        token: str | None = "ann",  # noqa: S107  # a name in the table
        *,
        query: str = "",
        headers: dict[str, str] | None = None,
        subprotocols: tuple[str, ...] = (PROTOCOL,),
        **options: Any,  # noqa: ANN401  # of the client library
    ) -> AsyncIterator[Client]:
        """Connect, with the token in a header unless it is None."""
        given = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with connect(
            f"ws://127.0.0.1:{self.port}/v1/ws{query}",
            additional_headers=given | (headers or {}),
            subprotocols=[websockets.Subprotocol(each) for each in subprotocols] or None,
            ping_interval=None,
            open_timeout=_PATIENCE,
            **options,
        ) as socket:
            yield Client(socket)

    @asynccontextmanager
    async def welcomed(
        self,
        token: str | None = "ann",  # noqa: S107  # as above
        *,
        max_queue: int = 16,
        compression: str | None = "deflate",
    ) -> AsyncIterator[Client]:
        """Connect, and take the hello; `max_queue` messages are read ahead of the test."""
        async with self.client(token, max_queue=max_queue, compression=compression) as client:
            await client.next_of("hello")
            yield client

    @asynccontextmanager
    async def plain(
        self, upgrade: bytes
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect without a library, and pass the hello over."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(upgrade)
            await asyncio.wait_for(reader.readuntil(b'"hello"'), _PATIENCE)
            await asyncio.wait_for(reader.readuntil(b"}}}"), _PATIENCE)
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()

    async def refused(self, *, query: str = "", origin: str | None = None) -> InvalidStatus:
        """Connect, and return the refusal of the upgrade."""
        headers = {} if origin is None else {"Origin": origin}
        try:
            async with self.client(query=query, headers=headers):
                raise AssertionError("was not refused")
        except InvalidStatus as refusal:
            return refusal

    async def gone(self, *, left: int = 0, transport: str = "websocket") -> None:
        """Wait until only so many connections are left."""
        async with asyncio.timeout(_PATIENCE):
            while self.count("notifier_connections", transport=transport) > left:
                self.gateway.one_ended.clear()
                await self.gateway.one_ended.wait()

    async def came(self, sessions: int, user: str = "42") -> None:
        """Wait until so many sessions of a user follow their topics."""
        topic = personal_topic(user)
        await eventually(lambda: len(list(self.gateway.hub.followers(topic))) == sessions)

    def count(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.gateway.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def served(  # noqa: PLR0913  # the options of a gateway
    *,
    origins: Iterable[str] = (),
    terms: Terms | None = None,
    connection: type[WebSocketConnection] = WebSocketConnection,
    drain_rate: float = 200.0,
    drain_deadline: float = 60.0,
    history_size: int = 100,
    capacity: Capacity | None = None,
    seats: Seats | None = None,
    backlog: Backlog | None = None,
) -> AsyncIterator[House]:
    """Run a gateway."""
    broker, tokens = SteeredBroker(history_size=history_size), Tokens()
    control, presence_queries = SteeredControl(broker), MemoryPresenceQueries(broker)
    gateway = _Watched(
        replace(shared_ports_of(broker), control=control, presence_queries=presence_queries),
        tokens,
        Metrics(),
        terms=terms or Terms(),
        capacity=capacity or Capacity(),
        seats=seats,
        revocation_seconds=86_400,
        drain_rate=drain_rate,
        drain_deadline=drain_deadline,
    )
    app = create_app(gateway, origins)
    failure: Exception | None = None
    async with (
        gateway,
        serve(
            app, host="127.0.0.1", port=0, setting="X", websocket=connection, backlog=backlog
        ) as port,
    ):
        try:
            await eventually(lambda: gateway.trouble()["control"] is None)
            yield House(
                port,
                app,
                gateway,
                broker=broker,
                tokens=tokens,
                control=control,
                presence_queries=presence_queries,
            )
        except Exception as error:  # noqa: BLE001  # raised again below, when all is closed
            failure = error
    if failure is not None:
        raise failure
