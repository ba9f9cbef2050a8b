"""The WebSocket transport: an asyncio protocol whose connections are no tasks.

HTTP hands it the upgrade request (`notifier.http`). It speaks ASGI to the endpoint only until the
connection is handed over (`Handover`): the endpoint then returns, its task and scope are freed,
and the connection calls its session back on a message and on the end.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from notifier.core import frames
from notifier.core.errors import CloseCode
from notifier.core.ports import Listener
from notifier.core.publications import Publication
from notifier.gateway.deflate import SMALLEST, WINDOW, deflated
from notifier.gateway.framing import TEXT, Opcode, close_frame, framed, websocket_frame
from notifier.gateway.handshake import HandshakeRequest
from notifier.gateway.incoming import Incoming
from notifier.gateway.opening import Opening
from notifier.http.port import MOST_EARLY, Header, Port, address_of


def encode(publication: Publication) -> bytes:
    """Make the frame of a publication, the same bytes for every WebSocket without compression."""
    return framed(TEXT, frames.event_frame(publication))


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


_PING = websocket_frame(Opcode.PING, b"")


class WebSocketConnection(Incoming):
    """One client's WebSocket. Fulfils Connection, once it has been handed over."""

    __slots__ = ("_early", "_opening", "encode")

    transport = "websocket"

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._opening: Opening | None = Opening(self, port)
        self.encode: Callable[[Publication], bytes] = encode
        self._early = b""

    @property
    def client(self) -> str:
        """The address of the other end."""
        return address_of(self._transport)

    # Called by asyncio, and by HTTP: `begin_handshake`.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment] # a stream's
        self._port.state.connections.add(self)

    def begin_handshake(self, path: bytes, query: bytes, headers: list[Header]) -> None:
        """See WebSocketProtocol."""
        if self._opening is not None:
            self._opening.begin(HandshakeRequest(path, query, headers), self._transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._listener is None:
            self._early += data
            if len(self._early) > MOST_EARLY:
                self._transport.abort()
        else:
            self._feed(data)

    def _lost(self) -> None:
        self._port.state.connections.discard(self)
        if self._opening is not None:
            self._opening.lost()
            self._opening = None
        super()._lost()

    def shutdown(self) -> None:
        """Close at once; the server calls this for open connections when it stops."""
        if self._opening is None or self._opening.accepted:
            self.close_with(1012, "restarting")
        self._transport.close()

    # Called by the session.

    def agree_on(self, window: int) -> None:
        """Compress with this window, in bits; 0 for not at all."""
        self.window, self.encode = window, _ENCODINGS[window]

    def send(self, frame: frames.ServerFrame) -> None:
        """See Connection."""
        self.write(websocket_frame(Opcode.TEXT, frames.encode(frame)))

    def write_all(self, publications: Sequence[Publication]) -> None:
        """See Connection."""
        self.write(b"".join(map(self.encode, publications)))

    def ping(self) -> bool:
        """See Connection."""
        if not self._is_stuck():
            self.write(_PING)
        return True

    def close(self, code: CloseCode) -> None:
        """See Connection."""
        self.close_with(code, code.reason)

    def close_with(self, code: int, reason: str) -> None:
        """Flush, send a close frame, and wait a while for the client's own."""
        if self._timer is None and not self._transport.is_closing():
            self._transport.write(close_frame(code, reason))
            self._abort_later()

    # The client's messages.

    def hand_over(self, listener: Listener) -> None:
        """Call `listener` back from now on, first with the messages that came in meanwhile."""
        self._listener, self._opening = listener, None
        early, self._early = self._early, b""
        if early:
            self._feed(early)
        if self._transport.is_closing():  # lost before there was anyone to tell
            asyncio.get_running_loop().call_soon(self.connection_lost, None)

    def leave_alone(self) -> None:
        """Close a connection that was not handed over, and let the client answer that."""
        if self._listener is None and not self._transport.is_closing():
            self.close_with(1011, "internal error")
            self.hand_over(_Nobody())
