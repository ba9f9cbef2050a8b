"""Serving: uvicorn as an `async with`, and the signals that end a role."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import cast

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_log = structlog.get_logger("notifier.serving")
_BACKLOG = 4096
_GRACE = 5
_LARGEST_HEAD = 64 * 1024  # bytes: a cursor of a hundred topics fits
_LONGEST_HEAD = 10.0  # seconds


class ServingError(Exception):
    """A port cannot be listened on; the sentence names the setting."""


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handling: roles drain before they close sockets."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP, with bounds on the size of a request's head and on the time it may take."""

    _head = 0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waiting is not None:
            self._head += len(data)
            if self._head > _LARGEST_HEAD:
                self._has_head()
                self.send_400_response(f"A request's head has at most {_LARGEST_HEAD} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._has_head()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._has_head()
        self._head = 0
        self._waiting = self.loop.call_later(_LONGEST_HEAD, self.transport.close)

    def _has_head(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


@contextlib.asynccontextmanager
async def serve(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    setting: str,
    websocket: type[asyncio.Protocol] | None = None,
) -> AsyncIterator[int]:
    """Serve `app` while inside, and yield the port, which the system chooses for 0.

    `websocket` is a protocol class for upgraded connections; `setting` is named when the port
    cannot be had. Leaving closes what is still open and waits for it for 5 s at most.
    """
    listening = _listen(host, port, setting)
    config = uvicorn.Config(
        app,
        ws=websocket or "none",
        http=_BoundedHttp,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE,
    )
    config.load()
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


def _listen(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
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
