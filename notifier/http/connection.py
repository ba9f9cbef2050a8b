"""A client's connection: it reads one request, has it answered, and only then reads the next.

httptools reads requests, those for WebSockets among them. Bytes that follow a request wait unread
until its response is complete, so there is one exchange at a time and no pipeline.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, cast
from urllib.parse import unquote

import httptools
import structlog

from notifier.http.backlog import UNCOUNTED
from notifier.http.exchange import Exchange, Manner
from notifier.http.port import HANDOVER, MOST_EARLY, Header, Port, WebSocketProtocol, address_of

_log = structlog.get_logger("notifier.http")
_LARGEST_HEAD = 64 * 1024  # bytes: a cursor of a hundred topics fits
_MOST_HEADERS = 100  # tiny ones take thirty times their bytes of memory
_MOST_PIECES = 100  # that are read before other clients have their turn
# Seconds.
LONGEST_PAUSE = (
    75.0  # between requests; proxies keep a connection for 60, and would post into the end
)
_LONGEST_HEAD, _LONGEST_BODY = 10.0, 30.0
_LONGEST_ANSWER = 30.0  # for a client to read it
_BLANK_LINE = b"\r\n\r\n"
_FRAMING = (b"content-length", b"transfer-encoding")

_PHRASES = {400: b"Bad Request", 503: b"Service Unavailable\r\nretry-after: 5"}
_REFUSAL = (
    b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"access-control-allow-origin: *\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
)


class _Part(Enum):
    """The part of a request that is read next."""

    NOTHING = auto()  # the client may be silent
    HEAD = auto()
    BODY = auto()
    NEXT = auto()  # of the next request, once this one is answered


class _BodyOf:
    """Callbacks of a parser that reads the body of a request, whose head was read by another."""

    def __init__(self, connection: "Connection") -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_body_complete


class Connection(asyncio.Protocol):
    """One client's connection. Fulfils Carrier and Debtor."""

    __slots__ = (
        "_at",
        "_deadline",
        "_exchange",
        "_head_size",
        "_headers",
        "_is_held_back",
        "_is_lent",
        "_is_offered",
        "_is_paused",
        "_is_surplus",
        "_keeps_alive",
        "_left",
        "_parser",
        "_part",
        "_port",
        "_room",
        "_tail",
        "_target",
        "_transport",
        "_unread",
        "_waits",
    )

    def __init__(self, port: Port) -> None:
        self._port = port
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._parser: httptools.HttpRequestParser | None = None
        self._exchange: Exchange | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._unread, self._at, self._tail = b"", 0, b""
        self._left = 0
        self._waits = self._is_held_back = self._is_lent = self._is_paused = False
        self._is_surplus = False
        self._part = _Part.HEAD
        self._expect_request()

    # What asyncio calls, and the server: `shutdown`.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(UNCOUNTED, UNCOUNTED)
        self._port.state.connections.add(self)
        self._is_surplus = not self._port.has_place()
        self._limit()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._port.idle.pop(self, None)
        self._unread += data
        self._go_on()
        if len(self._unread) - self._at > MOST_EARLY and not self._is_held_back:
            self._is_held_back = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_paused = True
        self._limit()
        self._port.backlog.note(self)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_paused = False
        self._port.backlog.forget(self)
        self._limit()
        self._wake()
        self._go_on()

    def connection_lost(self, _exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._port.state.connections.discard(self)
        self._port.backlog.forget(self)
        self._wake()
        self._untie()

    def shutdown(self) -> None:
        """Close, after the response that is under way."""
        if self._exchange is None:
            self.close()
        else:
            self._exchange.keeps_alive = False

    def _untie(self) -> None:
        # These refer back: what is in a cycle stays for very long, see ADR 16.
        self._stop_clock()
        self._port.idle.pop(self, None)
        self._parser = None
        self._unread, self._at = b"", 0
        if self._exchange is not None:
            self._exchange.lost()
            self._exchange = None

    # The time that a client has.

    def _limit(self) -> None:
        """Give the client its time for what it has to do next."""
        if self.is_closing:
            return  # its time has begun
        if self._is_paused:
            self._start_clock(_LONGEST_ANSWER, self.cut_off)
        elif self._part is _Part.NOTHING:
            self._start_clock(LONGEST_PAUSE, self.close)
        elif self._part is _Part.HEAD:
            self._start_clock(_LONGEST_HEAD, self.close)
        elif self._part is _Part.BODY:
            self._start_clock(_LONGEST_BODY, self.close)
        else:
            self._stop_clock()  # it is the application's turn

    def _start_clock(self, seconds: float, end: Callable[[], None]) -> None:
        self._stop_clock()
        self._deadline = asyncio.get_running_loop().call_later(seconds, end)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @property
    def waiting(self) -> int:
        """See Debtor."""
        return self._transport.get_write_buffer_size()

    def cut_off(self) -> None:
        """See Debtor. At once: no close code could tell the client why."""
        if self.waiting:
            self._port.backlog.on_cut()
        self.drop()

    def drop(self) -> None:
        """See Debtor."""
        self._transport.abort()

    # Reading, a piece at a time.

    def _go_on(self) -> None:
        if self._at < len(self._unread) and self._may_read and not self._waits:
            self._waits = True
            if not self._port.turns.take(self._read):
                self._stop_clock()  # it is not the client any more that takes its time

    @property
    def _may_read(self) -> bool:
        if self._part is _Part.BODY:
            return self._exchange is None or self._exchange.has_room
        return self._part is not _Part.NEXT and not self._is_paused

    def _read(self) -> None:
        pieces = 0
        while self._at < len(self._unread) and self._may_read and not self.is_closing:
            if pieces == _MOST_PIECES:
                asyncio.get_running_loop().call_soon(self._read)
                break
            self._feed(self._next_piece())
            pieces += 1
        else:
            self._waits = False
        if self._at == len(self._unread) or self._at > MOST_EARLY:  # not each time: it is copied
            self._drop_what_is_read()
        if self._is_held_back and len(self._unread) - self._at <= MOST_EARLY:
            self._is_held_back = False
            self._transport.resume_reading()
        if self._deadline is None and not (self._is_lent or self.is_closing):
            self._limit()

    def _drop_what_is_read(self) -> None:
        self._unread, self._at = self._unread[self._at :], 0

    def _next_piece(self) -> bytes:
        """Take what is unread up to where a request may end, so that none is read behind it."""
        start = self._at
        counted = self._part is _Part.BODY and self._left
        self._at = min(start + self._left, len(self._unread)) if counted else self._blank_line()
        piece = self._unread[start : self._at]
        self._tail = (self._tail + piece[-3:])[-3:]
        return piece

    def _blank_line(self) -> int:
        """Return where the next blank line ends, which may have begun in the piece before."""
        seam = self._tail + self._unread[self._at : self._at + 3]
        if (found := seam.find(_BLANK_LINE)) >= 0:
            return self._at + found + len(_BLANK_LINE) - len(self._tail)
        found = self._unread.find(_BLANK_LINE, self._at)
        return found + len(_BLANK_LINE) if found >= 0 else len(self._unread)

    def _feed(self, piece: bytes) -> None:
        if self._is_surplus:
            self._refuse(503, "There are too many connections here; come back in a few seconds.")
            return
        self._head_size += len(piece)
        try:
            self._parse(piece)
        except (httptools.HttpParserError, ValueError):
            self._refuse(400, "This is no HTTP/1.1 request, or one with too many headers.")
        if self._part is _Part.HEAD and self._head_size > _LARGEST_HEAD:
            self._refuse(400, f"A request's head has at most {_LARGEST_HEAD} bytes.")

    def _parse(self, piece: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._take_offer(parser)

    def _refuse(self, status: int, why: str) -> None:
        if self.is_closing:
            return
        _log.warning("request_refused", status=status, reason=why)
        begun = self._exchange is not None and self._exchange.is_answering
        if self._part is _Part.HEAD or (self._exchange is not None and not begun):
            self._transport.write(_REFUSAL % (status, _PHRASES[status], len(why), why.encode()))
        self.close()

    # What httptools calls.

    def on_message_begin(self) -> None:
        """See httptools."""
        if self._part not in (_Part.NOTHING, _Part.HEAD):
            raise ValueError("a request began where none could")  # so that it is never answered
        self._part = _Part.HEAD
        self._limit()

    def on_url(self, target: bytes) -> None:
        """See httptools."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if self._part is not _Part.HEAD:
            return  # a trailer, which nobody here asks for
        if len(self._headers) == _MOST_HEADERS:
            raise ValueError("too many headers")  # so that httptools ends
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """See httptools."""
        parser = cast("httptools.HttpRequestParser", self._parser)
        self._is_offered = parser.should_upgrade()
        if not self._is_offered:
            self._begin(parser)

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._left = max(0, self._left - len(body))
        if self._exchange is not None:
            self._exchange.feed(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._is_offered:
            return  # not yet: httptools leaves the body to the protocol that was offered
        self._part = _Part.NEXT
        self._limit()
        if self._exchange is not None:
            self._exchange.ended()
        else:
            self._finish()

    def on_body_complete(self) -> None:
        """Take that the request is whole, whose body a parser of its own has read."""
        self._parser = None
        self.on_message_complete()

    # Requests.

    def _expect_request(self) -> None:
        self._target = b""
        self._headers: list[Header] = []
        self._head_size = 0
        self._is_offered = False
        self._keeps_alive = True

    def _values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self._headers if each == name]

    def _take_offer(self, parser: httptools.HttpRequestParser) -> None:
        """Become a WebSocket, or ignore the offer as RFC 9110, section 7.8, allows."""
        self._is_offered = False
        self._parser = None  # it reads no further
        length = self._values(b"content-length")
        has_body = any(map(int, length)) or bool(self._values(b"transfer-encoding"))
        if not has_body and self._wants_websocket(parser):
            self._become_websocket()
            return
        self._begin(parser)
        if not has_body:
            self.on_message_complete()
            return
        framing = [(name, value) for name, value in self._headers if name in _FRAMING]
        lines = b"".join([b"%s: %s\r\n" % line for line in framing])
        self._parser = httptools.HttpRequestParser(_BodyOf(self))
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % lines)

    def _wants_websocket(self, parser: httptools.HttpRequestParser) -> bool:
        offers = [offer.lower() for offer in self._values(b"upgrade")]
        is_get = parser.get_method() == b"GET" and parser.get_http_version() == "1.1"
        return self._port.websocket is not None and is_get and offers == [b"websocket"]

    def _begin(self, parser: httptools.HttpRequestParser) -> None:
        length = self._values(b"content-length")
        version, method = parser.get_http_version(), parser.get_method().decode("ascii")
        manner = Manner(
            keeps_alive=version != "1.0" and parser.should_keep_alive(),
            is_head=method == "HEAD",
            is_old=version == "1.0",
            expects_continue=version == "1.1"
            and b"100-continue" in map(bytes.lower, self._values(b"expect")),
        )
        scope = self._scope(method, version)
        self._exchange = exchange = Exchange(self, manner)
        scope["extensions"] = {HANDOVER: {"from": exchange}}
        self._left = int(length[0]) if length else 0
        self._part = _Part.BODY
        self._limit()
        task = asyncio.get_running_loop().create_task(
            exchange.run(self._port.app, scope), name="http-exchange"
        )
        self._port.state.tasks.add(task)
        task.add_done_callback(self._port.state.tasks.discard)

    def _scope(self, method: str, version: str) -> dict[str, Any]:
        target = httptools.parse_url(self._target)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": method,
            "scheme": "http",
            "root_path": "",
            "path": unquote(target.path.decode("ascii")),
            "raw_path": target.path,
            "query_string": target.query or b"",
            "headers": self._headers,
            # uvloop keeps addresses that were asked for once for as long as the connection lives.
            "server": None,
            "client": None,
            "state": {},
        }

    def _become_websocket(self) -> None:
        early, transport = self._unread[self._at :], self._transport
        target, headers = self._target, self._headers
        self._port.state.connections.discard(self)
        self._part = _Part.NEXT
        self._untie()
        websocket = cast("type[WebSocketProtocol]", self._port.websocket)(self._port)
        websocket.connection_made(transport)
        websocket.begin_handshake(target, headers)
        transport.set_protocol(cast("asyncio.Protocol", websocket))
        if early:
            websocket.data_received(early)

    def _finish(self) -> None:
        """Go on behind a request that is whole and answered."""
        if not self._keeps_alive:
            self.close()
            return
        self._part = _Part.NOTHING
        self._expect_request()
        self._limit()
        if self._at == len(self._unread):
            self._port.idle[self] = None
        self._go_on()

    # What its exchange calls.

    @property
    def default_headers(self) -> list[Header]:
        """See Carrier."""
        return self._port.state.default_headers

    @property
    def is_closing(self) -> bool:
        """See Carrier."""
        return self._transport.is_closing()

    @property
    def client(self) -> str:
        """See Carrier."""
        return address_of(self._transport)

    def write(self, data: bytes) -> None:
        """See Carrier."""
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._is_paused:
            self._port.backlog.note(self)

    def close(self) -> None:
        """See Carrier. What was sent has a while to go out."""
        self._port.idle.pop(self, None)
        self._transport.close()
        self._start_clock(_LONGEST_ANSWER, self.cut_off)

    async def drained(self) -> None:
        """See Carrier."""
        while self._is_paused and not self.is_closing:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def read_on(self) -> None:
        """See Carrier."""
        self._go_on()

    def answered(self) -> None:
        """See Carrier."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        self._keeps_alive = exchange.keeps_alive
        if exchange.expects_continue:
            self.close()  # the rest of the request may never come
        elif self._part is _Part.NEXT:
            self._finish()
        else:
            self._go_on()  # and drop the rest of the request

    # The hand-over.

    def lend(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """See Carrier."""
        self._is_lent = True
        self._headers = []  # an idle client must not keep them in memory
        self._stop_clock()
        self._drop_what_is_read()
        self._swap(self, protocol)
        if self._is_held_back:
            self._is_held_back = False
            self._transport.resume_reading()
        return self._transport

    def keep_early(self, data: bytes) -> None:
        """See Carrier."""
        self._unread += data
        if len(self._unread) > MOST_EARLY:
            self._transport.abort()

    def take_back(self, protocol: asyncio.Protocol, *, is_paused: bool) -> None:
        """See Carrier."""
        self._is_lent, self._is_paused = False, is_paused
        self._swap(protocol, self)
        if is_paused:
            self._port.backlog.note(self)
        self._limit()

    def _swap(self, one: asyncio.Protocol, other: asyncio.Protocol) -> None:
        self._port.state.connections.discard(one)
        self._port.state.connections.add(other)
        self._transport.set_protocol(other)

    def let_go(self, protocol: asyncio.Protocol) -> None:
        """See Carrier."""
        self._port.state.connections.discard(protocol)
        self._untie()
