"""WebSocket framing (RFC 6455, sections 5 to 7), the server's side, without I/O.

A server's frames are not masked, so a frame is the same bytes for every client: it is made once
and written to all.
"""

from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from enum import IntEnum
from struct import Struct
from typing import NamedTuple, Protocol


class Opcode(IntEnum):
    """RFC 6455, section 11.8."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Message(NamedTuple):
    """A whole message or control frame of the client's, unmasked, joined and decompressed.

    A text message is UTF-8.
    """

    opcode: Opcode
    payload: bytes


class FramingError(Exception):
    """The client broke the protocol; `code` is the close code to answer with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


# RFC 6455, section 7.4: those that may stand in a close frame.
_CLOSE_CODES = frozenset({*range(1000, 1015), *range(3000, 5000)} - {1004, 1005, 1006})
_OPCODES = {opcode.value: opcode for opcode in Opcode}
_SHORT, _LONG, _LONGEST = (Struct(form).pack for form in ("!BB", "!BBH", "!BBQ"))
_FIN, _RESERVED, _COMPRESSED, _MASKED, _LONGEST_CONTROL = 0x80, 0x70, 0x40, 0x80, 125


def websocket_frame(opcode: Opcode, payload: bytes, *, compressed: bool = False) -> bytes:
    """Make a whole, unfragmented server's frame."""
    return framed(_FIN | opcode | (_COMPRESSED if compressed else 0), payload)


TEXT = _FIN | Opcode.TEXT
"""The first byte of a whole text frame: to compute it costs a quarter of an event's frame."""


def framed(first: int, payload: bytes) -> bytes:
    """Make a server's frame that begins with this byte."""
    length = len(payload)
    if length <= _LONGEST_CONTROL:
        return _SHORT(first, length) + payload
    if length < 1 << 16:
        return _LONG(first, 126, length) + payload
    return _LONGEST(first, 127, length) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Make a close frame; the reason is cut to fit (section 5.5)."""
    return websocket_frame(Opcode.CLOSE, code.to_bytes(2) + _cut(reason))


def _cut(reason: str) -> bytes:
    return reason.encode()[: _LONGEST_CONTROL - 2].decode(errors="ignore").encode()


def close_code(payload: bytes) -> int:
    """Return the code of a client's close frame, 1005 for none; raises FramingError."""
    if not payload:
        return 1005
    text_of(payload[2:])
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or code not in _CLOSE_CODES:
        raise FramingError(1002, "malformed close frame")
    return code


def text_of(payload: bytes) -> str:
    """Decode a text message; raises FramingError with 1007."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise FramingError(1007, "text is not UTF-8") from error


def _unmasked(payload: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    # One XOR of two long integers: quick enough for clients' messages, without C.
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(length)


class Inflating(Protocol):
    """Decompresses one message, fragment by fragment."""

    def add(self, fragment: bytes, room: int, *, last: bool) -> bytes:
        """Return a fragment's bytes; raises FramingError, with 1009 above `room` bytes."""


class _Unfinished:
    """A message of which further fragments are to come."""

    __slots__ = ("_decoder", "_inflating", "came", "fragments", "held", "number", "opcode")

    def __init__(self, opcode: Opcode, inflating: Inflating | None) -> None:
        self.opcode = opcode
        self.fragments: list[bytes] = []
        self.number = self.came = self.held = 0  # of fragments; of bytes as sent, and as held
        self._inflating = inflating
        self._decoder = getincrementaldecoder("utf-8")() if opcode is Opcode.TEXT else None

    def add(self, fragment: bytes, limit: int, *, last: bool) -> None:
        """Take one more; raises FramingError as soon as the message cannot be good any more."""
        self.number += 1
        self.came += len(fragment)
        if self._inflating is not None:
            fragment = self._inflating.add(fragment, limit - self.held, last=last)
        self.fragments.append(fragment)
        self.held += len(fragment)
        if self._decoder is not None:
            try:
                self._decoder.decode(fragment, final=last)
            except UnicodeDecodeError as error:
                raise FramingError(1007, "text is not UTF-8") from error


class FrameReader:
    """Turns a client's bytes into messages. Holds at most one message of `limit` bytes.

    `inflating` is given where compression was agreed on.
    """

    __slots__ = ("_at", "_buffer", "_inflating", "_limit", "_unfinished")

    def __init__(self, limit: int, inflating: Callable[[], Inflating] | None = None) -> None:
        self._limit = limit
        self._inflating = inflating
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._unfinished: _Unfinished | None = None

    @property
    def idle(self) -> bool:
        """Whether it holds nothing: a new one would do as well."""
        return not self._buffer and self._unfinished is None

    def feed(self, data: bytes) -> Iterator[Message | None]:
        """Yield for each frame the message that it completes, None where more is to come.

        Raises FramingError. A caller that stops half-way gets the others with the next call.
        """
        if isinstance(self._buffer, bytearray):
            self._buffer += data
        else:
            self._buffer = data
        try:
            while found := self._next_frame():
                yield self._joined(*found)
        finally:
            self._keep_rest()

    def _keep_rest(self) -> None:
        # A bytearray grows in place: a message that drips in is not copied with each drop.
        if isinstance(self._buffer, bytearray):
            del self._buffer[: self._at]
        elif rest := self._buffer[self._at :]:
            self._buffer = bytearray(rest)
        else:
            self._buffer = b""
        self._at = 0

    def _next_frame(self) -> tuple[int, Opcode, bytes] | None:
        buffer, at = self._buffer, self._at + 2
        if len(buffer) < at:
            return None
        first, second = buffer[at - 2], buffer[at - 1]
        opcode = self._checked(first, second)
        length = second & 0x7F
        if length > _LONGEST_CONTROL:
            size = 2 if length == 126 else 8  # noqa: PLR2004 - section 5.2
            length, at = int.from_bytes(buffer[at : at + size]), at + size
            if len(buffer) < at:
                return None
        if opcode < Opcode.CLOSE:
            self._check_size(length)
        end = at + 4 + length
        if len(buffer) < end:
            return None
        self._at = end
        return first, opcode, _unmasked(buffer[at + 4 : end], buffer[at : at + 4])

    def _check_size(self, length: int) -> None:
        if unfinished := self._unfinished:
            length += unfinished.came
            if unfinished.number >= self._limit:  # empty ones cost memory, too
                raise FramingError(1009, f"a message has at most {self._limit} fragments")
        if length > self._limit:
            raise FramingError(1009, f"a message has at most {self._limit} bytes")

    def _checked(self, first: int, second: int) -> Opcode:
        opcode = _OPCODES.get(first & 0x0F)
        # The first fragment of a message says that it is compressed (RFC 7692, section 6).
        begins = opcode is Opcode.TEXT or opcode is Opcode.BINARY
        allowed = _COMPRESSED if begins and self._inflating else 0
        if opcode is None or first & _RESERVED & ~allowed:
            raise FramingError(1002, "unknown opcode or reserved bit")
        if not second & _MASKED:
            raise FramingError(1002, "a client's frames are masked")
        if opcode >= Opcode.CLOSE:
            if not first & _FIN or second & 0x7F > _LONGEST_CONTROL:
                raise FramingError(1002, "a control frame is whole and short")
        elif begins is (self._unfinished is not None):
            raise FramingError(1002, "fragments out of order")
        return opcode

    def _joined(self, first: int, opcode: Opcode, payload: bytes) -> Message | None:
        if opcode >= Opcode.CLOSE:
            return Message(opcode, payload)
        unfinished, last = self._unfinished, bool(first & _FIN)
        if unfinished is None:
            inflating = self._inflating() if self._inflating and first & _COMPRESSED else None
            if last and inflating is None:
                return self._whole(opcode, payload)
            unfinished = self._unfinished = _Unfinished(opcode, inflating)
        unfinished.add(payload, self._limit, last=last)
        if not last:
            return None
        self._unfinished = None
        return Message(unfinished.opcode, b"".join(unfinished.fragments))

    def _whole(self, opcode: Opcode, payload: bytes) -> Message:
        if opcode is Opcode.TEXT:
            text_of(payload)
        return Message(opcode, payload)
