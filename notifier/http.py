"""HTTP as every port here speaks it: uvicorn's, with bounds, and a front for WebSockets.

When thousands of clients come back at once, reading their requests is a sixth of what they cost. A
plain upgrade request is therefore read here, by one regular expression; whatever is not plain, and
all other HTTP, is httptools' to read and to judge.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, Protocol, cast

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

HANDOVER = "notifier.handover"  # the ASGI extension by which an endpoint takes a connection over
Header = tuple[bytes, bytes]
_LARGEST_HEAD = 64 * 1024  # bytes: a cursor of a hundred topics fits
_MOST_HEADERS = 100  # tiny ones take thirty times their bytes of memory
MOST_EARLY = 64 * 1024  # bytes that a client may send while its request is being answered
_TURN = 0.001  # seconds
_LONGEST_HEAD, _LONGEST_BODY = 10.0, 30.0  # seconds
# RFC 9112, sections 3 and 5, without what is obsolete or rare.
_PLAIN = re.compile(
    rb"GET (/[!-~]*) HTTP/1\.1\r\n"
    rb"((?:[!#$%%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n){1,%d})\r\n" % _MOST_HEADERS
)


class WebSocketProtocol(Protocol):
    """An asyncio.Protocol that goes on where HTTP has read an upgrade request."""

    def __init__(
        self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        """Take what uvicorn gives to each of its protocols."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""

    def upgrade(self, target: bytes, headers: list[Header]) -> None:
        """Answer the request; names of headers are in lower case."""


def _upgrade(
    transport: asyncio.Transport,
    websocket: WebSocketProtocol,
    target: bytes,
    headers: list[Header],
) -> None:
    websocket.connection_made(transport)
    websocket.upgrade(target, headers)
    transport.set_protocol(cast("asyncio.Protocol", websocket))


class Turns:
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


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP, with bounds on the size of a request's head and on a request's time.

    An endpoint may take the connection over, by `HANDOVER`, and return:
    its task and scope are then freed, while another protocol goes on with the response.
    """

    turns: ClassVar[Turns]

    _in_head = True
    _head = 0
    _chunks = 0  # that wait for their turn
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See HttpToolsProtocol."""
        # As uvicorn's own, without the addresses of both ends: nobody here asks for them, and
        # uvloop keeps what was asked once, 360 bytes, for as long as the connection lives.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._limit(_LONGEST_HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """See HttpToolsProtocol."""
        self._limit(None)
        super().connection_lost(exc)
        self._untie()

    def _untie(self) -> None:
        # These refer back: what is in a cycle stays for very long, see ADR 16.
        self.parser = self.cycle = self.scope = cast("Any", None)
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """See HttpToolsProtocol."""
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
        """See HttpToolsProtocol."""
        super().on_message_begin()
        self._in_head, self._head = True, 0
        self._limit(_LONGEST_HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See HttpToolsProtocol."""
        if len(self.headers) == _MOST_HEADERS:
            raise ValueError("too many headers")  # so that httptools ends, and uvicorn answers 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._in_head = False
        upgrades = self.parser.should_upgrade() and self._should_upgrade()
        self._limit(None if upgrades else _LONGEST_BODY)
        if not upgrades:  # what else is to be known of the request is for whom it is handed to
            self.scope["extensions"] = {HANDOVER: {"from": self}}
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._limit(None)
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """See HttpToolsProtocol."""
        # As uvicorn's own, which writes the request anew for the other protocol to read it again.
        self.connections.discard(self)
        websocket = cast("type[WebSocketProtocol]", self.ws_protocol_class)(
            self.config, self.server_state, self.app_state
        )
        _upgrade(self.transport, websocket, self.url, self.headers)
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

    def head(self, headers: Iterable[Header]) -> bytes:
        """Make the head of a response with status 200."""
        lines = [*self.server_state.default_headers, *headers]
        if not self.cycle.keep_alive and (b"connection", b"close") not in lines:
            lines.append((b"connection", b"close"))
        text = b"".join(b"%s: %s\r\n" % line for line in lines)
        return b"HTTP/1.1 200 OK\r\n" + text + b"\r\n"


def plain_upgrade(data: bytes) -> tuple[bytes, list[Header], int] | None:
    """Return target, headers and length of a request for a WebSocket that came whole, else None.

    Names of headers are in lower case. A body, or a sign of one, is not plain.
    """
    if (plain := _PLAIN.match(data, 0, _LARGEST_HEAD)) is None:
        return None
    headers = []
    for line in plain[2][:-2].split(b"\r\n"):
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b" \t")))
    named = dict(headers)
    connection = named.get(b"connection", b"").lower().split(b", ")
    if b"upgrade" not in connection or named.get(b"upgrade", b"").lower() != b"websocket":
        return None
    if b"content-length" in named or b"transfer-encoding" in named:
        return None
    return plain[1], headers, plain.end()


class Front(asyncio.Protocol):
    """A connection until its first bytes tell whose it is: a WebSocket's, or HTTP's."""

    __slots__ = ("_deadline", "_early", "_given", "_transport")

    http: ClassVar[type[BoundedHttp]]
    websocket: ClassVar[type[WebSocketProtocol]]

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._given = config, server_state, app_state
        self._early: bytes | None = None  # while it waits for its turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._deadline = asyncio.get_running_loop().call_later(_LONGEST_HEAD, transport.close)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._deadline.cancel()
        if self._early is not None:
            self._early += data
            if len(self._early) > MOST_EARLY:
                self._transport.abort()
        elif data.startswith(b"GET "):
            self._early = data
            self.http.turns.take(self._read, behind=False)  # in which it is read too
        else:
            self._leave_to_http(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._deadline.cancel()
        self._connections.discard(self)

    def shutdown(self) -> None:
        """Close; uvicorn calls this when the server stops."""
        self._transport.close()

    @property
    def _connections(self) -> set[Any]:
        return cast("set[Any]", self._given[1].connections)

    def _read(self) -> None:
        if self._transport.is_closing():
            return
        data = self._early or b""
        if plain := plain_upgrade(data):
            target, headers, length = plain
            self._upgrade(target, headers, data[length:])
        else:
            self._leave_to_http(data)

    def _upgrade(self, target: bytes, headers: list[Header], early: bytes) -> None:
        self._connections.discard(self)
        websocket = self.websocket(*self._given)
        _upgrade(self._transport, websocket, target, headers)
        if early:
            cast("asyncio.Protocol", websocket).data_received(early)

    def _leave_to_http(self, data: bytes) -> None:
        self._connections.discard(self)
        http = self.http(*self._given)
        http.connection_made(self._transport)
        self._transport.set_protocol(http)
        http.data_received(data)
