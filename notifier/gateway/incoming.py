"""The incoming side of a WebSocket: messages, each bounded in bytes, in time and in number."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from notifier.core import frames
from notifier.core.errors import CloseCode
from notifier.core.rate_limit import RateLimit
from notifier.gateway.deflate import Inflater
from notifier.gateway.framing import (
    FrameReader,
    FramingError,
    Message,
    Opcode,
    close_code,
    websocket_frame,
)
from notifier.gateway.outgoing import Outgoing
from notifier.http.port import Port

_MOST_AT_ONCE = 100  # frames of one client, before others have their turn


class _Flood(FramingError):
    def __init__(self, what: str, limit: RateLimit) -> None:
        super().__init__(CloseCode.PROTOCOL_ERROR, f"too many {what}")
        self.what, self.most = what, limit.rate


class _Deaf(FrameReader):
    """Reads nothing more of a client that broke the protocol."""

    def feed(self, _data: bytes) -> Iterator[Message | None]:
        """See FrameReader."""
        return iter(())


_DEAF = _Deaf(0)


class Incoming(Outgoing):
    """Reads the messages of a client, and gives them to the connection's listener."""

    __slots__ = ("_bytes_paid", "_frames_paid", "_late", "_reader", "window")

    # Bytes of a message of the client's, compressed or not.
    largest_message: ClassVar[int] = frames.LARGEST_FRAME
    # Seconds that half a message is held for.
    longest_message: ClassVar[float] = 30.0
    # The rate limits of a client: so much a second, and ten times as much at once.
    frame_limit: ClassVar[RateLimit] = RateLimit(rate=20, burst=10)
    byte_limit: ClassVar[RateLimit] = RateLimit(rate=16 * 1024, burst=10)

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.window = 0
        self._reader: FrameReader | None = None  # while there is half a message
        self._late: asyncio.TimerHandle | None = None  # as long
        self._frames_paid = self._bytes_paid = 0.0

    @abstractmethod
    def close_with(self, code: int, reason: str) -> None:
        """Flush, send a close frame, and wait a while for the client's own."""

    def _lost(self) -> None:
        self._wait_no_longer()
        super()._lost()

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
                if message.opcode is Opcode.CLOSE:  # later frames do not count, section 5.5.1
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
        paid = self.frame_limit.paid(self._frames_paid, time.monotonic())
        if paid is None:
            raise _Flood("frames", self.frame_limit)
        self._frames_paid = paid

    def _pay_bytes(self, count: int) -> None:
        # As they come from the client: a message may have been cut into thousands of frames.
        if self._reader is _DEAF:
            return
        paid = self.byte_limit.paid(self._bytes_paid, time.monotonic(), count)
        if paid is None:
            raise _Flood("bytes", self.byte_limit)
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
        """Refuse a binary message; a subclass with binary messages overrides this."""
        raise FramingError(1003, "frames are text")

    def _closed_by_client(self, code: int) -> None:
        if self._timer is None:  # else this answers our own close frame
            self.close_with(1000 if code == 1005 else code, "")  # noqa: PLR2004 - section 7.1.5
        self._transport.close()
