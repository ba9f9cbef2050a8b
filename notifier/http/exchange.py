"""One request and its response, as an ASGI application sees them (ASGI HTTP, version 2.3)."""

import asyncio
import re
from collections.abc import Iterable
from enum import Enum, auto
from http import HTTPStatus
from typing import NamedTuple, Protocol

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Scope

from notifier.http.port import Header, Port

_log = structlog.get_logger("notifier.http")
_MOST_BODY = 64 * 1024  # bytes of a request that are kept until the application takes them
_UNSAFE = re.compile(rb"[\0\r\n]")  # would end a header, RFC 9110, section 5.5
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = (b"connection", b"close")
_FAILED = b"Internal Server Error"


class Carrier(Protocol):
    """The connection that an exchange happens on."""

    @property
    def default_headers(self) -> list[Header]:
        """Headers of every response."""

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""

    @property
    def client(self) -> str:
        """The address of the other end."""

    @property
    def port(self) -> Port:
        """The port that the client came to."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def close(self) -> None:
        """Close, once all is sent."""

    async def drained(self) -> None:
        """Wait until the client has read the sent bytes."""

    def read_on(self) -> None:
        """Go on with a request's body that was held back."""

    def answered(self) -> None:
        """Hear that the response is complete."""

    def lend(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Let another protocol have the transport."""

    def take_back(self, protocol: asyncio.Protocol, *, is_paused: bool) -> None:
        """Have the transport again; `is_paused` while the client does not read."""

    def let_go(self, protocol: asyncio.Protocol) -> None:
        """Hear that the client of another protocol is gone."""

    def keep_early(self, data: bytes) -> None:
        """Keep bytes that the client sent to another protocol."""


class Manner(NamedTuple):
    """How a request is to be answered."""

    keeps_alive: bool = True
    is_head: bool = False
    is_old: bool = False  # HTTP/1.0, which knows no chunks
    expects_continue: bool = False


class _Framing(Enum):
    """How a client knows where the body of a response ends (RFC 9112, section 6)."""

    NO_BODY = auto()
    LENGTH = auto()
    CHUNKS = auto()
    CLOSE = auto()


class Exchange:
    """A request under way, whose response may be handed over: it is the extension `HANDOVER`.

    An endpoint that hands over returns without a response: its task and scope are then freed, while
    another protocol has the transport. Only this one response is handed over: the client's next
    request is not read until it is complete.
    """

    __slots__ = (
        "_body",
        "_carrier",
        "_framing",
        "_head",
        "_is_over",
        "_is_read",
        "_is_taken",
        "_left",
        "_manner",
        "_news",
        "expects_continue",
        "keeps_alive",
    )

    def __init__(self, carrier: Carrier, manner: Manner) -> None:
        self.keeps_alive = manner.keeps_alive
        self.expects_continue = manner.expects_continue
        self._carrier = carrier
        self._manner = manner
        self._news = asyncio.Event()
        self._body = bytearray()
        self._head = b""  # of the response, kept back to be sent with the first of the body
        self._framing: _Framing | None = None  # once the response has begun
        self._left = 0  # bytes that a response of a known length still owes
        self._is_read = self._is_over = self._is_taken = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Let the application answer. An error of it ends this exchange alone."""
        try:
            await app(scope, self.receive, self.send)
        except ClientDisconnect:
            _log.debug("client_left", path=scope["path"])  # in the middle of its request
        except Exception:  # noqa: BLE001 - an endpoint may raise anything
            _log.exception("endpoint_failed", path=scope["path"])
        finally:
            if not (self._is_over or self._is_taken or self._carrier.is_closing):
                self._fail()

    def _fail(self) -> None:
        if self.is_answering:  # the client must not take half for the whole
            self._carrier.close()
            return
        length = str(len(_FAILED)).encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", length), _CLOSE]
        self._start(HTTPStatus.INTERNAL_SERVER_ERROR, headers)
        self._send_body(_FAILED, more=False)

    # The request.

    @property
    def client(self) -> str:
        """The address that the request came from: a proxy's, where there is one."""
        return self._carrier.client

    @property
    def has_room(self) -> bool:
        """Whether more of the request's body may come."""
        return len(self._body) <= _MOST_BODY

    def feed(self, body: bytes) -> None:
        """Take more of the request's body."""
        self._body += body
        self._news.set()

    def ended(self) -> None:
        """Note that the request is complete."""
        self._is_read = True
        self._news.set()

    def lost(self) -> None:
        """Note that the client is gone."""
        self._is_over = True
        self._news.set()

    async def receive(self) -> Message:
        """See ASGI."""
        if self.expects_continue and not self._is_over:
            self.expects_continue = False
            self._carrier.write(_CONTINUE)
        if not self._is_over:
            self._carrier.read_on()
            await self._news.wait()
            self._news.clear()
        if self._is_over:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": not self._is_read}

    # The response.

    @property
    def is_answering(self) -> bool:
        """Whether the client may have some of the response already."""
        return self._is_taken or (self._framing is not None and not self._head)

    async def send(self, message: Message) -> None:
        """See ASGI."""
        await self._carrier.drained()
        if self._carrier.is_closing:
            return
        match message["type"]:
            case "http.response.start" if self._framing is None:
                self._start(message["status"], message.get("headers", ()))
            case "http.response.body" if self._framing is not None and not self._is_over:
                self._send_body(message.get("body", b""), more=message.get("more_body", False))
            case kind:
                raise RuntimeError(f"{kind} does not belong here")

    def _start(self, status: int, headers: Iterable[Header]) -> None:
        lines = [*self._carrier.default_headers, *headers]
        length = next((value for name, value in lines if name.lower() == b"content-length"), None)
        framing = self._framing_of(status, length)
        if framing is _Framing.CHUNKS:
            lines.append((b"transfer-encoding", b"chunked"))
        self.keeps_alive = self.keeps_alive and framing is not _Framing.CLOSE
        self._head = self._head_of(status, lines)
        self._left = int(length or 0)
        self._framing = framing

    def _framing_of(self, status: int, length: bytes | None) -> _Framing:
        if self._manner.is_head or status in _BODILESS:
            return _Framing.NO_BODY
        if length is not None:
            return _Framing.LENGTH
        return _Framing.CLOSE if self._manner.is_old else _Framing.CHUNKS

    def head(self, headers: Iterable[Header]) -> bytes:
        """Make the head of a response with status 200, for a response that was handed over."""
        return self._head_of(HTTPStatus.OK, [*self._carrier.default_headers, *headers])

    def _head_of(self, status: int, lines: list[Header]) -> bytes:
        if any(_UNSAFE.search(name) or _UNSAFE.search(value) for name, value in lines):
            raise ValueError("a header of the response has a line break in it")
        closes = any(name.lower() == b"connection" and value == b"close" for name, value in lines)
        # A client that was not told to continue may send the body or not: its end is not known.
        self.keeps_alive = self.keeps_alive and not closes and not self.expects_continue
        if not (self.keeps_alive or closes):
            lines.append(_CLOSE)
        text = b"".join([b"%s: %s\r\n" % line for line in lines])
        return b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, HTTPStatus(status).phrase.encode(), text)

    def _send_body(self, body: bytes, *, more: bool) -> None:
        framed = self._framed(body, more=more)
        head, self._head = self._head, b""
        self._carrier.write(head + framed)
        if not more:
            self._complete()

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self._framing is _Framing.NO_BODY:
            return b""
        if self._framing is _Framing.CHUNKS:
            chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._framing is _Framing.LENGTH:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body is not as long as its Content-Length")
        return body

    def _complete(self) -> None:
        self._is_over = True
        self._news.set()
        self._carrier.answered()

    # The hand-over.

    @property
    def is_gone(self) -> bool:
        """Whether the client has gone."""
        return self._carrier.is_closing

    @property
    def port(self) -> Port:
        """The port that the client came to."""
        return self._carrier.port

    @property
    def takes_chunks(self) -> bool:
        """Whether the client knows chunks (RFC 9112, section 7.1)."""
        return not self._manner.is_old

    def take_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Let `protocol` answer; it calls `give_back` or `let_go` in the end."""
        self._is_taken = True
        return self._carrier.lend(protocol)

    def keep_early(self, data: bytes) -> None:
        """Keep bytes that came behind the request until its response is complete."""
        self._carrier.keep_early(data)

    def give_back(self, protocol: asyncio.Protocol, *, is_paused: bool) -> None:
        """Go on with the connection: the response is complete, if not yet read by the client."""
        self._carrier.take_back(protocol, is_paused=is_paused)
        self._complete()

    def let_go(self, protocol: asyncio.Protocol) -> None:
        """Hear that the client is gone."""
        self._carrier.let_go(protocol)
