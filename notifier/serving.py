"""Serving: uvicorn as an `async with`, and the signals that end a role."""

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, Protocol, cast

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

_log = structlog.get_logger("notifier.serving")
# A host that is another machine's, or none: known by the system, or by its resolver.
_NOT_HERE = (errno.EADDRNOTAVAIL, socket.EAI_NONAME, socket.EAI_AGAIN)
_BACKLOG = 4096
_LARGEST_HEAD = 64 * 1024  # bytes: a cursor of a hundred topics fits
_OTHER_FILES = 256  # backends, logs, clients that are being refused
_TURN = 0.001  # seconds
_LONGEST_HEAD, _LONGEST_BODY = 10.0, 30.0  # seconds


class ServingError(Exception):
    """A port cannot be listened on; the sentence names the setting."""


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handling: roles drain before they close sockets."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebSocketProtocol(Protocol):
    """An asyncio.Protocol that goes on where HTTP has read an upgrade request."""

    def __init__(
        self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        """Take what uvicorn gives to each of its protocols."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""

    def upgrade(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer the request; names of headers are in lower case."""


class _Turns:
    """Time for what clients ask for: a little in each turn of the event loop, the rest in the next.

    When thousands come back at once, all their requests are there at once, and the loop would serve
    nobody else until it had taken the last of them.
    """

    def __init__(self) -> None:
        self._ends: float | None = None
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, work: Callable[[], None], *, behind: bool) -> bool:
        """Do the work now, or in a later turn if this one's time is over, or if it is `behind`.

        Return whether it is done.
        """
        if behind or not self._has_time():
            self._waiting.append(work)
            return False
        work()
        return True

    def _has_time(self) -> bool:
        loop = asyncio.get_running_loop()
        if self._ends is not None:
            return loop.time() < self._ends
        self._ends = loop.time() + _TURN
        loop.call_soon(self._next)
        return True

    def _next(self) -> None:
        self._ends = None
        while self._waiting and self._has_time():
            self._waiting.popleft()()


class _BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP, with bounds on the size of a request's head and on a request's time.

    An endpoint may take the connection over, by the ASGI extension `notifier.handover`, and return:
    its task and scope are then freed, while another protocol goes on with the response.
    """

    turns: ClassVar[_Turns]

    _in_head = True
    _head = 0
    _chunks = 0  # that wait for their turn
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # As uvicorn's own, without the addresses of both ends: nobody here asks for them, and
        # uvloop keeps what was asked once, 360 bytes, for as long as the connection lives.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._limit(_LONGEST_HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit(None)
        super().connection_lost(exc)
        self._untie()

    def _untie(self) -> None:
        # These refer back: what is in a cycle stays for very long, see ADR 16.
        self.parser = self.cycle = self.scope = cast("Any", None)
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        self._chunks += 1
        if not self.turns.take(partial(self._receive, data), behind=self._chunks > 1):
            self._limit(None)  # it is not the client any more that takes its time

    def _receive(self, data: bytes) -> None:
        self._chunks -= 1
        protocol = cast("asyncio.Protocol", self.transport.get_protocol())
        if protocol is not self:  # upgraded by an earlier chunk
            protocol.data_received(data)
        elif not self.transport.is_closing():
            if self._in_head and self._deadline is None:
                self._limit(_LONGEST_HEAD)
            self._read(data)

    def _read(self, data: bytes) -> None:
        super().data_received(data)
        self._head += len(data)
        if self._in_head and self._head > _LARGEST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"A request's head has at most {_LARGEST_HEAD} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head = True, 0
        self._limit(_LONGEST_HEAD)

    def on_headers_complete(self) -> None:
        self._in_head = False
        upgrades = self.parser.should_upgrade() and self._should_upgrade()
        self._limit(None if upgrades else _LONGEST_BODY)
        if not upgrades:  # what else is to be known of the request is for whom it is handed to
            self.scope["extensions"] = {"notifier.handover": {"from": self}}
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._limit(None)
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        # As uvicorn's own, which writes the request anew for the other protocol to read it again.
        self.connections.discard(self)
        protocol = cast("type[WebSocketProtocol]", self.ws_protocol_class)(
            self.config, self.server_state, self.app_state
        )
        protocol.connection_made(self.transport)
        protocol.upgrade(self.url, self.headers)
        self.transport.set_protocol(cast("asyncio.Protocol", protocol))
        self._untie()

    def _limit(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.close)

    # The hand-over.

    @property
    def is_gone(self) -> bool:
        """Whether the client has gone."""
        return self.transport.is_closing()

    def take_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Let `protocol` have the connection; it calls `give_back` or `let_go` in the end."""
        self.cycle.disconnected = True  # so that uvicorn expects no response of the endpoint
        self.scope = self.cycle.scope = cast("Any", {})  # an idle client must not keep it in memory
        self.headers = []
        self._limit(None)
        self.connections.discard(self)
        self.connections.add(cast("Any", protocol))
        self.transport.set_protocol(protocol)
        return self.transport

    def let_go(self, protocol: asyncio.Protocol) -> None:
        """Hear that a connection which was taken over is gone."""
        self.connections.discard(cast("Any", protocol))
        self._untie()

    def give_back(self, protocol: asyncio.Protocol, early: bytes) -> None:
        """Go on with what may follow the response, of which `early` has come in already."""
        self.connections.discard(cast("Any", protocol))
        self.connections.add(self)
        self.transport.set_protocol(self)
        self.cycle.response_complete = True
        if not self.cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
        if early and not self.transport.is_closing():
            self.data_received(early)

    def head(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Make the head of a response with status 200."""
        lines = [*self.server_state.default_headers, *headers]
        if not self.cycle.keep_alive and (b"connection", b"close") not in lines:
            lines.append((b"connection", b"close"))
        text = b"".join(b"%s: %s\r\n" % line for line in lines)
        return b"HTTP/1.1 200 OK\r\n" + text + b"\r\n"


@contextlib.asynccontextmanager
async def serve(  # noqa: PLR0913 - what a port is
    app: ASGIApp,
    *,
    host: str,
    port: int,
    setting: str,
    websocket: type[WebSocketProtocol] | None = None,
    grace: int = 5,
) -> AsyncIterator[int]:
    """Serve `app` while inside, and yield the port, which the system chooses for 0.

    `websocket` is a protocol class for upgraded connections; `setting` is named when the port
    cannot be had. Leaving closes what is still open; requests have `grace` seconds to be answered.
    """
    listening = _listen(host, port, setting)
    config = _config(app, websocket, grace)
    server = _Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listening])
    bound: int = listening.getsockname()[1]
    _log.info("listening", host=host, port=bound, setting=setting)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.main_loop(), name=f"serve-{bound}")
            yield bound
            server.should_exit = True
    finally:
        await server.shutdown(sockets=[listening])


def _config(app: ASGIApp, websocket: type[WebSocketProtocol] | None, grace: int) -> uvicorn.Config:
    class Http(_BoundedHttp):
        turns = _Turns()

    config = uvicorn.Config(
        app,
        ws=cast("type[asyncio.Protocol]", websocket) if websocket else "none",
        http=Http,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks where a client is
        backlog=_BACKLOG,
        timeout_graceful_shutdown=grace,
    )
    config.load()
    return config


def room_for(connections: int) -> int:
    """Raise the process's bound on open files where it may, and return how many connections fit.

    Past that bound nobody is refused: the system takes clients, and no one ever answers them.
    """
    wanted = connections + _OTHER_FILES
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != resource.RLIM_INFINITY and now < wanted:
        raised = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        with contextlib.suppress(ValueError, OSError):  # some systems have a bound beside it
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, most))
            now = raised
    if now == resource.RLIM_INFINITY or now >= wanted:
        return connections
    room = max(1, now - _OTHER_FILES)
    _log.info("open_files_bound_connections", open_files=now, connections=room)
    return room


def _listen(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno in _NOT_HERE:
            raise ServingError(
                f"cannot listen on {host}: no address of this machine; correct NOTIFIER_HOST"
            ) from error
        reason = os.strerror(error.errno or 0)
        raise ServingError(
            f"cannot listen on {host} port {port}: {reason}; set {setting} to another port"
        ) from error


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Yield an event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        _log.info("stopping", signal=signal.Signals(number).name)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stopping
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def loop_factory() -> asyncio.AbstractEventLoop:
    """Make the fastest event loop that there is."""
    try:
        import uvloop  # noqa: PLC0415 - not for every platform
    except ImportError:
        return asyncio.new_event_loop()
    return cast("asyncio.AbstractEventLoop", uvloop.new_event_loop())
