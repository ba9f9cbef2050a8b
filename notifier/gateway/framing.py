"""WebSocket framing (RFC 6455, sections 5 to 7), the server's side, without I/O.

A server's frames are not masked, so a frame is the same bytes for every client: it is made once
and written to all.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple


class Opcode(IntEnum):
    """RFC 6455, section 11.8."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Message(NamedTuple):
    """A whole message or control frame of the client's, unmasked and joined."""

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
_FIN, _RESERVED, _MASKED, _LONGEST_CONTROL = 0x80, 0x70, 0x80, 125


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """Make a whole, unfragmented server's frame."""
    length = len(payload)
    if length <= _LONGEST_CONTROL:
        return bytes((_FIN | opcode, length)) + payload
    if length < 1 << 16:
        return bytes((_FIN | opcode, 126)) + length.to_bytes(2) + payload
    return bytes((_FIN | opcode, 127)) + length.to_bytes(8) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Make a close frame; the reason is cut to what fits (section 5.5)."""
    return frame(Opcode.CLOSE, code.to_bytes(2) + _cut(reason))


def _cut(reason: str) -> bytes:
    return reason.encode()[: _LONGEST_CONTROL - 2].decode(errors="ignore").encode()


def close_code(payload: bytes) -> int:
    """Return the code of a client's close frame, 1005 for none; raises FramingError."""
    if not payload:
        return 1005
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or code not in _CLOSE_CODES:
        raise FramingError(1002, "malformed close frame")
    text_of(payload[2:])
    return code


def text_of(payload: bytes) -> str:
    """Decode a text message; raises FramingError with 1007."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise FramingError(1007, "text is not UTF-8") from error


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    # One XOR of two long integers: quick enough for what clients send, and no C needed.
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(length)


class FrameReader:
    """Turns a client's bytes into messages. Holds at most one message of `limit` bytes."""

    __slots__ = ("_at", "_buffer", "_fragments", "_held", "_limit", "_opcode")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = b""
        self._at = 0
        self._fragments: list[bytes] | None = None
        self._held = 0
        self._opcode = Opcode.TEXT

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that `data` completes; raises FramingError.

        Whoever stops half-way gets the others with the next call.
        """
        self._buffer = self._buffer + data if self._buffer else data
        try:
            while found := self._next_frame():
                fin, opcode, payload = found
                if message := self._joined(opcode, payload, fin=fin):
                    yield message
        finally:
            self._buffer, self._at = self._buffer[self._at :], 0

    def _next_frame(self) -> tuple[bool, Opcode, bytes] | None:
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
        if length + (self._held if opcode < Opcode.CLOSE else 0) > self._limit:
            raise FramingError(1009, f"a message has at most {self._limit} bytes")
        end = at + 4 + length
        if len(buffer) < end:
            return None
        self._at = end
        return bool(first & _FIN), opcode, _unmasked(buffer[at + 4 : end], buffer[at : at + 4])

    def _checked(self, first: int, second: int) -> Opcode:
        opcode = _OPCODES.get(first & 0x0F)
        if opcode is None or first & _RESERVED:
            raise FramingError(1002, "unknown opcode or reserved bit")
        if not second & _MASKED:
            raise FramingError(1002, "a client's frames are masked")
        if opcode >= Opcode.CLOSE and (not first & _FIN or second & 0x7F > _LONGEST_CONTROL):
            raise FramingError(1002, "a control frame is whole and short")
        return opcode

    def _joined(self, opcode: Opcode, payload: bytes, *, fin: bool) -> Message | None:
        if opcode >= Opcode.CLOSE:
            return Message(opcode, payload)
        if (opcode is Opcode.CONTINUATION) is (self._fragments is None):
            raise FramingError(1002, "fragments out of order")
        if self._fragments is None:
            if fin:
                return Message(opcode, payload)
            self._opcode, self._fragments = opcode, []
        self._fragments.append(payload)
        self._held += max(1, len(payload))  # empty ones cost memory, too
        if not fin:
            return None
        whole = b"".join(self._fragments)
        self._fragments, self._held = None, 0
        return Message(self._opcode, whole)
