"""Serving: uvicorn's server as an `async with`, and the signals that end a role.

All that leans on uvicorn stands here: it listens, tells the date, and waits for open requests
when it stops. HTTP itself is read in `notifier.http`.
"""

import asyncio
import contextlib
import errno
import ipaddress
import os
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from notifier.http.backlog import Backlog
from notifier.http.certificate import ServerCertificate
from notifier.http.connection import Connection
from notifier.http.port import Port, ServerState, WebSocketProtocol

_log = structlog.get_logger("notifier.serving")
# A host that is another machine's, or none: known by the system, or by its resolver.
_NOT_HERE = (errno.EADDRNOTAVAIL, socket.EAI_NONAME, socket.EAI_AGAIN)
_BACKLOG = 4096
_HANDSHAKE, _TLS_SHUTDOWN = 10.0, 5.0  # seconds that a client has
_OTHER_FILES = 256  # backends, logs, clients that are being refused


class ServingError(Exception):
    """A port cannot be listened on; the sentence names the setting."""


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handling: roles drain before they close sockets."""

    async def listen(self, on: socket.socket, port: Port, tls: ssl.SSLContext | None) -> None:
        """Accept clients. uvicorn's `startup` would give a handshake of TLS a minute."""
        listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(port),
            sock=on,
            backlog=_BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=_HANDSHAKE if tls else None,
            ssl_shutdown_timeout=_TLS_SHUTDOWN if tls else None,
        )
        self.servers, self.started = [listener], True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(  # noqa: PLR0913 - a port's parts
    app: ASGIApp,
    *,
    host: str,
    port: int,
    setting: str,
    is_shared: bool = False,
    websocket: type[WebSocketProtocol] | None = None,
    backlog: Backlog | None = None,
    most: int | None = None,
    certificate: ServerCertificate | None = None,
    grace: int = 5,
) -> AsyncIterator[int]:
    """Serve `app` while inside, and yield the port, which the system chooses for 0.

    `websocket` is a protocol class for upgraded connections; `setting` is named when the port
    cannot be had. With `is_shared`, processes of this user listen on it together, and the system
    gives each client to one of them. `backlog` counts the bytes that wait for slow clients;
    clients beyond `most` are refused with 503. With a `certificate` clients speak TLS. Leaving
    closes open connections; requests have `grace` seconds to be answered.
    """
    listening = _listen(host, port, setting, is_shared=is_shared)
    server = _server(app, grace)
    state = cast("ServerState", server.server_state)
    shared = Port(app, state, websocket, backlog or Backlog(), most, is_tls=certificate is not None)
    await server.listen(listening, shared, certificate.context if certificate else None)
    bound: int = listening.getsockname()[1]
    _log.info("listening", host=host, port=bound, setting=setting)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.main_loop(), name=f"serve-{bound}")
            yield bound
            server.should_exit = True
    finally:
        await server.shutdown(sockets=[listening])


def _server(app: ASGIApp, grace: int) -> _Server:
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )
    config.load()
    server = _Server(config)
    server.lifespan = config.lifespan_class(config)
    return server


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


def trouble_with_files(connections: int) -> str | None:
    """Return why so many connections do not fit, or why no client can be taken; else None."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if most != resource.RLIM_INFINITY and most < wanted:
        return (
            f"{most} open files are too few for {connections} connections: allow {wanted} or more "
            "(ulimit -n, LimitNOFILE), or lower NOTIFIER_MAX_CONNECTIONS"
        )
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return f"no client can be taken: {error.strerror} ({most} files are allowed)"
    return None


def _is_every_address(host: str) -> bool:
    """Whether a host is `::`, in any spelling: all addresses, of both versions of IP."""
    try:
        return ipaddress.IPv6Address(host).is_unspecified
    except ValueError:
        return False


def _listen(host: str, port: int, setting: str, *, is_shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = _is_every_address(host) and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (host, port),
            family=family,
            backlog=_BACKLOG,
            reuse_port=is_shared,
            dualstack_ipv6=both,
        )
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
def stop_signals(*more: signal.Signals) -> Iterator[asyncio.Event]:
    """Yield an event that SIGTERM, SIGINT or one of `more` sets; a second one ends the process."""
    numbers = (signal.SIGTERM, signal.SIGINT, *more)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        _log.info("stopping", signal=signal.Signals(number).name)
        stopping.set()

    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, more)  # see notifier.__main__
    try:
        yield stopping
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def loop_factory() -> asyncio.AbstractEventLoop:
    """Make the fastest event loop that there is."""
    try:
        import uvloop  # noqa: PLC0415 - not for every platform
    except ImportError:
        return asyncio.new_event_loop()
    return cast("asyncio.AbstractEventLoop", uvloop.new_event_loop())
