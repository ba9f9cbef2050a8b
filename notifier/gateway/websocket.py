"""The WebSocket transport: an asyncio protocol whose connections are no tasks.

HTTP hands it the upgrade request (`notifier.http`). It speaks ASGI to the endpoint only until the
connection is handed over (`Handover`): the endpoint then returns, its task and scope are freed,
and the connection calls its session back on a message and on the end.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import ClassVar, cast
from urllib.parse import unquote

import structlog
from starlette import types
from websockets.datastructures import Headers
from websockets.http11 import Response

from notifier.core import frames
from notifier.core.errors import CloseCode
from notifier.core.pace import Pace
from notifier.core.ports import Listener
from notifier.core.publications import Publication
from notifier.gateway.deflate import SMALLEST, WINDOW, Inflater, deflated
from notifier.gateway.framing import (
    FrameReader,
    FramingError,
    Message,
    Opcode,
    close_code,
    close_frame,
    websocket_frame,
)
from notifier.gateway.handshake import Agreement, HandshakeRequest
from notifier.gateway.outgoing import Outgoing
from notifier.http.port import HANDOVER, MOST_EARLY, Header, Port, address_of

_MOST_AT_ONCE = 100  # frames of one client, before others have their turn

_log = structlog.get_logger("notifier.gateway")


class _Flood(FramingError):
    def __init__(self, what: str, pace: Pace) -> None:
        super().__init__(CloseCode.PROTOCOL_ERROR, f"too many {what}")
        self.what, self.most = what, pace.rate


def encode(publication: Publication) -> bytes:
    """Make the frame of a publication, the same bytes for every WebSocket without compression."""
    return websocket_frame(Opcode.TEXT, frames.event_frame(publication))


def encode_compressed(window: int, publication: Publication) -> bytes:
    """Make the frame of a publication, the same bytes for every WebSocket of that window."""
    payload = frames.event_frame(publication)
    if len(payload) < SMALLEST:
        return websocket_frame(Opcode.TEXT, payload)
    return websocket_frame(Opcode.TEXT, deflated(payload, window), compressed=True)


# By the window that was agreed on: a kind of connection each.
_ENCODINGS: dict[int, Callable[[Publication], bytes]] = {
    0: encode,
    **{window: partial(encode_compressed, window) for window in range(9, WINDOW + 1)},
}


class _Nobody:
    """Listens to a connection that is refused, until its client has closed it too."""

    def received(self, text: bytes) -> None:
        pass

    def heard(self) -> None:
        pass

    def ready(self) -> None:
        pass

    def flooded(self, what: str, most: float) -> None:
        pass

    def closed(self, code: CloseCode | None = None) -> None:
        pass


class _Deaf(FrameReader):
    """Reads nothing more of a client that broke the protocol."""

    def feed(self, _data: bytes) -> Iterator[Message | None]:
        """See FrameReader."""
        return iter(())


_PING = websocket_frame(Opcode.PING, b"")
_DEAF = _Deaf(0)


class WebSocketConnection(Outgoing):
    """One client's WebSocket. Fulfils Connection, once it has been handed over."""

    __slots__ = (
        "_bytes_paid",
        "_connections",
        "_early",
        "_frames_paid",
        "_handshake",
        "_late",
        "_reader",
        "encode",
        "window",
    )

    transport = "websocket"
    # Bytes of a message of the client's, compressed or not.
    largest_message: ClassVar[int] = frames.LARGEST_FRAME
    # Seconds that half a message is held for.
    longest_message: ClassVar[float] = 30.0
    # What a client may send a second, and ten times of it at once.
    frame_pace: ClassVar[Pace] = Pace(rate=20, burst=10)
    byte_pace: ClassVar[Pace] = Pace(rate=16 * 1024, burst=10)

    def __init__(self, port: Port) -> None:
        super().__init__()
        self._connections = port.state.connections
        self._handshake: _Handshake | None = _Handshake(self, port)
        self._reader: FrameReader | None = None  # while there is half a message
        self._late: asyncio.TimerHandle | None = None  # as long
        self.agree_on(0)
        self._early = b""
        self._frames_paid = self._bytes_paid = 0.0

    @property
    def client(self) -> str:
        """The address of the other end."""
        return address_of(self._transport)

    # What asyncio calls, and HTTP: `begin_handshake`.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def begin_handshake(self, target: bytes, headers: list[Header]) -> None:
        """See WebSocketProtocol."""
        if self._handshake is not None:
            self._handshake.begin(HandshakeRequest(target, headers), self._transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._listener is None:
            self._early += data
            if len(self._early) > MOST_EARLY:
                self._transport.abort()
        else:
            self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._connections.discard(self)
        self._wait_no_longer()
        if self._handshake is not None:
            self._handshake.lost()
            self._handshake = None
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close at once; the server calls this for what is left when it stops."""
        if self._handshake is None or self._handshake.accepted:
            self.close_with(1012, "restarting")
        self._transport.close()

    # What the session calls.

    def agree_on(self, window: int) -> None:
        """Compress with this window, in bits; 0 for not at all."""
        self.window, self.encode = window, _ENCODINGS[window]

    def send(self, frame: frames.ServerFrame) -> None:
        """See Connection."""
        self.write(websocket_frame(Opcode.TEXT, frames.encode(frame)))

    def ping(self) -> bool:
        """See Connection."""
        if not self._is_stuck():
            self.write(_PING)
        return True

    def close(self, code: CloseCode) -> None:
        """See Connection."""
        self.close_with(code, code.reason)

    def close_with(self, code: int, reason: str) -> None:
        """Send what is left and a close frame, and wait a while for the client's own."""
        if self._timer is None and not self._transport.is_closing():
            self._transport.write(close_frame(code, reason))
            self._abort_later()

    # What the client sends.

    def hand_over(self, listener: Listener) -> None:
        """Call `listener` back from now on; what came in meanwhile is delivered to it first."""
        self._listener, self._handshake = listener, None
        early, self._early = self._early, b""
        if early:
            self._feed(early)
        if self._transport.is_closing():  # lost before there was anyone to tell
            asyncio.get_running_loop().call_soon(self.connection_lost, None)

    def leave_alone(self) -> None:
        """Close what the application did not hand over, and let the client answer that."""
        if self._listener is None and not self._transport.is_closing():
            self.close_with(1011, "internal error")
            self.hand_over(_Nobody())

    def _feed(self, data: bytes) -> None:
        reader = self._reader or FrameReader(
            self.largest_message, Inflater if self.window else None
        )
        try:
            self._pay_bytes(len(data))
            reader = self._read(reader, data)
        except FramingError as error:
            if isinstance(error, _Flood) and self._listener is not None:
                self._listener.flooded(error.what, error.most)
            self._fail(error)
            reader = _DEAF
        self._reader = reader if reader is _DEAF or not reader.idle else None
        self._wait_for_rest()

    def _read(self, reader: FrameReader, data: bytes) -> FrameReader:
        # Fragments cost a turn, and are paid for, as whole messages are.
        for count, message in enumerate(reader.feed(data), 1):
            self._pay_frame()
            if message is not None:
                self._take(message)
                if message.opcode is Opcode.CLOSE:  # what follows it does not count, section 5.5.1
                    return _DEAF
                if message.opcode < Opcode.CLOSE:
                    self._wait_no_longer()
            if count == _MOST_AT_ONCE:
                self._go_on_later()
                break
        return reader

    def _wait_for_rest(self) -> None:
        """Bound the time that half a message is held for, however it drips in."""
        if self._reader is None or self._reader is _DEAF:
            self._wait_no_longer()
        elif self._late is None:
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(self.longest_message, self._is_late)

    def _wait_no_longer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _is_late(self) -> None:
        self._late, self._reader = None, _DEAF
        reason = f"a message is not whole after {self.longest_message:g} s"
        self._fail(FramingError(1008, reason))

    def _pay_frame(self) -> None:
        paid = self.frame_pace.paid(self._frames_paid, time.monotonic())
        if paid is None:
            raise _Flood("frames", self.frame_pace)
        self._frames_paid = paid

    def _pay_bytes(self, count: int) -> None:
        # As they come from the client: a message may have been cut into thousands of frames.
        if self._reader is _DEAF:
            return
        paid = self.byte_pace.paid(self._bytes_paid, time.monotonic(), count)
        if paid is None:
            raise _Flood("bytes", self.byte_pace)
        self._bytes_paid = paid

    def _fail(self, error: FramingError) -> None:
        # Not closed before the client does: a system that closes with bytes unread resets the
        # connection, and the client would never see the code.
        self.close_with(error.code, str(error))
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def _go_on_later(self) -> None:
        # A quarter of a megabyte of empty frames would hold all other clients up.
        if not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._feed(b"")

    def _take(self, message: Message) -> None:
        listener = self._listener
        if listener is None:
            return
        if message.opcode is Opcode.TEXT:
            listener.received(message.payload)
        elif message.opcode is Opcode.BINARY:
            self.received_binary(message.payload)
        elif message.opcode is Opcode.CLOSE:
            self._closed_by_client(close_code(message.payload))
        else:
            listener.heard()
            if message.opcode is Opcode.PING:
                self.write(websocket_frame(Opcode.PONG, message.payload))

    def received_binary(self, _payload: bytes) -> None:
        """Refuse what the client protocol does not have; for a subclass that does to override."""
        raise FramingError(1003, "frames are text")

    def _closed_by_client(self, code: int) -> None:
        if self._timer is None:  # else this answers our own close frame
            self.close_with(1000 if code == 1005 else code, "")  # noqa: PLR2004 - section 7.1.5
        self._transport.close()


class _Handshake:
    """The time until the hand-over, in which the connection speaks ASGI to the application."""

    def __init__(self, connection: WebSocketConnection, port: Port) -> None:
        self.accepted = False
        self._answered = False
        self._connection = connection
        self._app = port.app
        self._tasks = port.state.tasks
        self._request: HandshakeRequest
        self._agreement: Agreement
        self._refusal: tuple[int, Headers] | None = None
        self._received = False
        self._gone = asyncio.get_running_loop().create_future()

    def begin(self, request: HandshakeRequest, transport: asyncio.Transport) -> None:
        """Answer the upgrade request, or run the application on it."""
        self._transport = transport
        self._request = request
        answer = request.answer()
        if not isinstance(answer, Agreement):
            self._respond(answer)
            return
        self._agreement = answer
        self._connection.agree_on(answer.window)
        task = asyncio.get_running_loop().create_task(
            self._run(self._scope(self._request)), name="websocket-handshake"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def lost(self) -> None:
        """Let an application that still waits know that the client is gone."""
        if not self._gone.done():
            self._gone.set_result(None)

    def _scope(self, request: HandshakeRequest) -> types.Scope:
        path, _, query = request.target.partition(b"?")
        offered = request.values(b"sec-websocket-protocol")
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": None,  # uvloop would keep the addresses for as long as the connection lives
            "client": None,
            "root_path": "",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "headers": request.headers,
            "subprotocols": [each.strip() for line in offered for each in line.split(",")],
            "state": {},
            "extensions": {"websocket.http.response": {}, HANDOVER: {"to": self._connection}},
        }

    async def _run(self, scope: types.Scope) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001 - whatever an endpoint raises ends this one connection, not the gateway
            _log.exception("endpoint_failed", path=scope["path"])
        if not self._answered:
            self._refuse(500, Headers(), b"Internal Server Error\n")
        elif self.accepted:
            self._connection.leave_alone()

    async def _receive(self) -> types.Message:
        if not self._received:
            self._received = True
            return {"type": "websocket.connect"}
        await self._gone
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: types.Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self._accept(message)
            case "websocket.send":
                self._connection.write(websocket_frame(Opcode.TEXT, message["text"].encode()))
            case "websocket.close" if self.accepted:
                self._connection.close_with(message.get("code", 1000), message.get("reason") or "")
            case "websocket.close":
                self._refuse(HTTPStatus.FORBIDDEN, Headers(), b"Forbidden\n")
            case "websocket.http.response.start":
                pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
                self._refusal = message["status"], Headers(pairs)
            case "websocket.http.response.body" if self._refusal:
                self._refuse(*self._refusal, message.get("body", b""))

    def _accept(self, message: types.Message) -> None:
        more = [*self._agreement.headers, *message.get("headers", ())]
        if subprotocol := message.get("subprotocol"):
            more.append((b"Sec-WebSocket-Protocol", subprotocol.encode()))
        self.accepted = self._answered = True
        if not self._transport.is_closing():  # uvloop raises when the client has gone meanwhile
            self._transport.write(self._request.acceptance(more))

    def _refuse(self, status: int, headers: Headers, body: bytes) -> None:
        headers["Connection"] = "close"
        headers.setdefault("Content-Length", str(len(body)))
        self._respond(Response(status, HTTPStatus(status).phrase, headers, body))

    def _respond(self, response: Response) -> None:
        self._answered = True
        if not self._transport.is_closing():
            self._transport.write(response.serialize())
            self._transport.close()
