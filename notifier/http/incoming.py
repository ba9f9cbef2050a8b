"""The incoming side of a client's connection: requests, read a piece at a time.

httptools reads requests, those for WebSockets among them. Bytes that follow a request wait unread
until its response is complete, so there is one exchange at a time and no pipeline.
"""

import asyncio
import re
from abc import abstractmethod
from enum import Enum, auto

import httptools
import structlog

from notifier.http.exchange import Exchange
from notifier.http.outgoing import Outgoing
from notifier.http.port import MOST_EARLY, Header, Port

_log = structlog.get_logger("notifier.http")
_LARGEST_HEAD = 64 * 1024  # bytes: a cursor of a hundred topics fits
_MOST_HEADERS = 100  # tiny ones take thirty times their bytes of memory
_MOST_PIECES = 100  # that are read before other clients have their turn
# Seconds.
LONGEST_PAUSE = (
    75.0  # between requests; proxies keep a connection for 60, and would post into the end
)
_LONGEST_HEAD, _LONGEST_BODY = 10.0, 30.0
_BLANK_LINE = b"\r\n\r\n"
_FRAMING = (b"content-length", b"transfer-encoding")
# RFC 9110, section 7.2: it may be empty, as the name of a host may (RFC 3986, section 3.2.2).
_HOST = re.compile(rb"(\[[\w:.~%-]+\]|([\w.~!$&'()*+,;=-]|%[\dA-Fa-f]{2})*)(:\d*)?")

_PHRASES = {400: b"Bad Request", 503: b"Service Unavailable\r\nretry-after: 5"}
_REFUSAL = (
    b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"access-control-allow-origin: *\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
)


class Part(Enum):
    """The part of a request that is read next."""

    NOTHING = auto()  # the client may be silent
    HEAD = auto()
    BODY = auto()
    NEXT = auto()  # of the next request, once this one is answered


class _Unfit(ValueError):
    """The sentence that refuses a request; raised in a callback, so that httptools ends."""


class _BodyOf:
    """Callbacks of a parser that reads the body of a request, whose head was read by another."""

    def __init__(self, connection: "Incoming") -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_body_complete


class Incoming(Outgoing):
    """Reads the requests of a client, and refuses those that are none or too large."""

    __slots__ = (
        "_at",
        "_exchange",
        "_head_size",
        "_headers",
        "_is_held_back",
        "_is_lent",
        "_is_offered",
        "_is_surplus",
        "_left",
        "_parser",
        "_part",
        "_tail",
        "_target",
        "_unread",
        "_waits",
    )

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._parser: httptools.HttpRequestParser | None = None
        self._exchange: Exchange | None = None
        self._unread, self._at, self._tail = b"", 0, b""
        self._left = 0
        self._waits = self._is_held_back = self._is_lent = self._is_surplus = False
        self._part = Part.HEAD
        self._expect_request()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
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

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._go_on()

    def _limit(self) -> None:
        """Give the client its time for the next step."""
        if self.is_closing:
            return  # its time has begun
        if self._is_paused:
            self._limit_answer()
        elif self._part is Part.NOTHING:
            self._start_clock(LONGEST_PAUSE, self.close)
        elif self._part is Part.HEAD:
            self._start_clock(_LONGEST_HEAD, self.close)
        elif self._part is Part.BODY:
            self._start_clock(_LONGEST_BODY, self.close)
        else:
            self._stop_clock()  # it is the application's turn

    # Reading, a piece at a time.

    def _go_on(self) -> None:
        if self._at < len(self._unread) and self._may_read and not self._waits:
            self._waits = True
            if not self._port.turns.take(self._read):
                self._stop_clock()  # it is not the client any more that takes its time

    @property
    def _may_read(self) -> bool:
        if self._part is Part.BODY:
            return self._exchange is None or self._exchange.has_room
        return self._part is not Part.NEXT and not self._is_paused

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
        """Take unread bytes up to a possible end of the request, and none behind it."""
        start = self._at
        counted = self._part is Part.BODY and self._left
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
        if self._is_in_head and self._head_size > _LARGEST_HEAD:
            self._refuse(400, f"A request's head has at most {_LARGEST_HEAD} bytes.")
            return
        try:
            self._parse(piece)
        except httptools.HttpParserInvalidURLError:
            self._refuse(400, "This request's target is no URL; percent-encode all but ASCII.")
        except (httptools.HttpParserError, ValueError) as error:
            own = isinstance(error.__context__, _Unfit)
            self._refuse(400, str(error.__context__) if own else "This is no HTTP/1.1 request.")

    @property
    def _is_in_head(self) -> bool:
        return self._part in (Part.NOTHING, Part.HEAD)

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
        _log.warning("request_refused", client=self.client, status=status, reason=why)
        begun = self._exchange is not None and self._exchange.is_answering
        if self._is_in_head or (self._exchange is not None and not begun):
            self._transport.write(_REFUSAL % (status, _PHRASES[status], len(why), why.encode()))
        self.close()

    # Called by httptools.

    def on_message_begin(self) -> None:
        """See httptools."""
        if self._part not in (Part.NOTHING, Part.HEAD):
            raise ValueError("a request began where none could")  # so that it is never answered
        if self._part is Part.NOTHING:
            self._part = Part.HEAD
            self._limit()

    def on_url(self, target: bytes) -> None:
        """See httptools."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if self._part is not Part.HEAD:
            return  # a trailer, which nobody here asks for
        if len(self._headers) == _MOST_HEADERS:
            raise _Unfit(f"A request has at most {_MOST_HEADERS} headers.")
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """See httptools."""
        parser = self._parser
        assert parser is not None  # noqa: S101 - it calls
        self._check_host(parser.get_http_version())
        self._is_offered = parser.should_upgrade()
        if not self._is_offered:
            self._begin(parser)

    def _check_host(self, version: str) -> None:
        """Raise for a request that may be meant for another server (RFC 9112, section 3.2)."""
        hosts = self._values(b"host")
        if not hosts and version >= "1.1":
            raise _Unfit(f"A request of HTTP/{version} has a header Host.")
        if len(hosts) > 1:
            raise _Unfit("A request has the header Host once.")
        if hosts and not _HOST.fullmatch(hosts[0]):
            raise _Unfit("The header Host is a name or an address, and a port if need be.")

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._left = max(0, self._left - len(body))
        if self._exchange is not None:
            self._exchange.feed(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._is_offered:
            return  # not yet: httptools leaves the body to the protocol that was offered
        self._part = Part.NEXT
        self._limit()
        if self._exchange is not None:
            self._exchange.ended()
        else:
            self._finish()

    def on_body_complete(self) -> None:
        """Note the end of a request whose body a parser of its own has read."""
        self._parser = None
        self.on_message_complete()

    # Requests.

    def _expect_request(self) -> None:
        self._target = b""
        self._headers: list[Header] = []
        self._head_size = 0
        self._is_offered = False

    def _values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self._headers if each == name]

    @abstractmethod
    def _begin(self, parser: httptools.HttpRequestParser) -> None:
        """Have a request answered, whose head is whole."""

    @abstractmethod
    def _take_offer(self, parser: httptools.HttpRequestParser) -> None:
        """Answer a request to speak another protocol; its body, if any, is still unread."""

    def _read_body_anew(self) -> None:
        """Let another parser read the body: httptools reads none behind an offer."""
        framing = [(name, value) for name, value in self._headers if name in _FRAMING]
        lines = b"".join([b"%s: %s\r\n" % line for line in framing])
        self._parser = httptools.HttpRequestParser(_BodyOf(self))
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % lines)

    @abstractmethod
    def _finish(self) -> None:
        """Go on behind a request that is whole and answered."""
