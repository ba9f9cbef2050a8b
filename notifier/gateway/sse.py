"""Server-sent events (WHATWG HTML, section 9.2): the frames of the protocol as a stream of text.

`id:` is the cursor, so that browsers come back with it by themselves (`Last-Event-ID`), and `data:`
is the frame as a WebSocket would get it.
"""

import socket
from collections.abc import Callable, Iterable, Mapping
from random import uniform

from msgspec import UNSET

from notifier.core import frames
from notifier.core.errors import CloseCode
from notifier.core.frames import ServerFrame
from notifier.core.positions import Position
from notifier.core.publications import Publication
from notifier.gateway import description
from notifier.gateway.open_response import OpenResponse, Transport
from notifier.http.exchange import Exchange
from notifier.http.port import Header

MEDIA_TYPE = "text/event-stream"
HEADERS: tuple[Header, ...] = (
    (b"content-type", MEDIA_TYPE.encode()),
    # Proxies must neither keep nor compress the stream: they would hold events back.
    (b"cache-control", b"no-cache, no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    # A client must see whether a stream broke off or ended. Nothing follows it on the connection.
    (b"connection", b"close"),
)
# Clients such as Python's urllib3 hold bytes outside of chunks back until they have enough.
_CHUNKED = (b"transfer-encoding", b"chunked")
_LAST_CHUNK = b"0\r\n\r\n"
_COMMENT = b":\n\n"
_UNACKNOWLEDGED = 30_000  # milliseconds
# In browsers EventSource itself has an event `error`.
_NAMES = {"error": "failure"}


def encode(publication: Publication) -> bytes:
    """Make the event of a publication, the same bytes for every client, up to the `id`."""
    return b"event: event\ndata: " + frames.event_frame(publication)


def event(frame: ServerFrame, cursor: str = "") -> bytes:
    """Make the event of any other frame; without a cursor the client keeps the one it has."""
    kind = frames.type_of(frame)
    text = b"event: %s\ndata: %s\n" % (_NAMES.get(kind, kind).encode(), frames.encode(frame))
    if isinstance(frame, frames.Bye) and frame.reconnect_after_ms is not UNSET:
        text = b"retry: %d\n%s" % (frame.reconnect_after_ms, text)
    return text + (b"id: %s\n\n" % cursor.encode() if cursor else b"\n")


def farewell(code: CloseCode) -> bytes:
    """Make the whole stream of a client that has to come back in one to five seconds."""
    after = round(uniform(1000, 5000))  # noqa: S311 - spread
    return event(frames.Bye(code, code.reason, after))


class SseConnection(OpenResponse):
    """One client's stream of events. Fulfils Connection."""

    __slots__ = ("_is_chunked",)

    transport = "sse"

    def __init__(
        self,
        exchange: Exchange,
        cursor: Mapping[str, Position],
        headers: Iterable[Header] = (),
    ) -> None:
        super().__init__(exchange, cursor, headers)
        self._expect_acknowledgement()
        self._is_chunked = exchange.takes_chunks
        framing = (_CHUNKED,) if self._is_chunked else ()
        head = exchange.head((*HEADERS, *framing, *self._headers))
        retry = b"retry: %d\n\n" % uniform(500, 5000)  # noqa: S311 - spread
        self._transport.write(head + self._framed(retry))

    def _framed(self, text: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(text), text) if self._is_chunked else text

    def _expect_acknowledgement(self) -> None:
        # Nothing ever comes back on this transport, but TCP itself knows whether it arrives.
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED)

    @property
    def encode(self) -> Callable[[Publication], bytes]:
        """See Connection."""
        return encode

    def write(self, data: bytes, publication: Publication | None = None) -> None:
        """See Connection."""
        if publication is not None:
            self._positions[publication.topic] = publication.position
            data = b"%s\nid: %s\n\n" % (data, self.cursor.encode())
        super().write(self._framed(data))

    def send(self, frame: ServerFrame) -> None:
        """See Connection."""
        self._note(frame)
        moves = isinstance(frame, frames.Hello | frames.Gap)
        super().write(self._framed(event(frame, self.cursor if moves else "")))

    def ping(self) -> bool:
        """See Connection."""
        if not self._is_stuck():
            super().write(self._framed(_COMMENT))
        return False

    def _farewell(self, code: CloseCode) -> bytes:
        return self._framed(event(frames.Bye(code, code.reason)))

    def shutdown(self) -> None:
        """End the stream; the server calls this for open streams when it stops."""
        if self._is_chunked and not self._transport.is_closing():
            self._transport.write(_LAST_CHUNK)
        super().shutdown()


_SHOWN = "retry: 2711\n\nevent: hello\ndata: {…}\nid: user:42@k3x9q2ab.17,everyone@c81fz0cd.4\n\n"
_STREAM = {MEDIA_TYPE: {"examples": {"stream": {"value": _SHOWN}}}}
_DOES = "Follow topics as a stream of server-sent events."
SSE = Transport(
    "sse",
    lambda _: SseConnection,
    description.follows(_DOES, _STREAM, description.MARKED, description.PRESENCE),
)
