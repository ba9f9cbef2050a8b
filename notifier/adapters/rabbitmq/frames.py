"""Frames of AMQP 0-9-1 on the hot path: deliveries and publications, with their acks and confirms.

Layouts are those of the AMQP 0-9-1 specification, sections 2.3.5 and 4.2.
"""

from functools import lru_cache
from struct import Struct

METHOD, HEADER, BODY = 1, 2, 3
CONNECTION, BASIC = 10, 60
PUBLISH, RETURN, DELIVER, ACK, NACK = 40, 50, 60, 80, 120
TUNE, BLOCKED, UNBLOCKED = 30, 60, 61

LARGEST = 131_072  # bytes of a frame: RabbitMQ's default, and the most that is agreed to
HEAD = Struct(">BHI")  # type, channel, size of the payload
AROUND = HEAD.size + 1  # with the octet behind the payload
METHOD_OF = Struct(">HH")  # class and method, at the start of a method's payload
HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"

_END = b"\xce"
_ACK = Struct(">BHIHHQ?B")
_CONFIRM = Struct(">QB")
_CONTENT = Struct(">HHQ")  # class, weight, size of the body; properties follow
_CONTENT_HEAD = Struct(HEAD.format + _CONTENT.format[1:])  # how a header frame begins
_TAG = Struct(">Q")
_PUBLISH = Struct(">HHH")  # class, method, nothing
_MANDATORY = b"\x01"
_FRAME_MAX = Struct(">I")
_FRAME_MAX_AT = HEAD.size + METHOD_OF.size + 2  # in a frame, behind the most channels
_LONGEST_SHORT = 255


def tuned(tune: bytes) -> tuple[bytes, int]:
    """Return a proposed `connection.tune` with frames of at most LARGEST bytes, and that bound."""
    (proposed,) = _FRAME_MAX.unpack_from(tune, _FRAME_MAX_AT)
    most = min(proposed or LARGEST, LARGEST)  # 0: no bound
    behind = _FRAME_MAX_AT + _FRAME_MAX.size
    return tune[:_FRAME_MAX_AT] + _FRAME_MAX.pack(most) + tune[behind:], most


def ack(channel: int, tag: int, *, up_to: bool) -> bytes:
    """Write an ack of a delivery, or of all `up_to` it too."""
    return _ACK.pack(METHOD, channel, 13, BASIC, ACK, tag, up_to, 0xCE)


def confirmed(payload: bytes) -> tuple[int, bool]:
    """Read which publication an ack or nack of RabbitMQ's is about, or whether all up to it."""
    tag, bits = _CONFIRM.unpack_from(payload, METHOD_OF.size)
    return tag, bool(bits & 1)


def delivered(payload: bytes) -> tuple[int, bytes]:
    """Read a delivery's tag and routing key."""
    tag = 5 + payload[4]  # behind the consumer's name
    exchange = tag + 9  # behind the tag, and whether it comes again
    key = exchange + 1 + payload[exchange]
    (number,) = _TAG.unpack_from(payload, tag)
    return number, payload[key + 1 : key + 1 + payload[key]]


def content(payload: bytes) -> tuple[int, bytes]:
    """Read the size of a body, and the properties as they are."""
    return _CONTENT.unpack_from(payload)[2], payload[_CONTENT.size :]


def address(exchange: str, routing_key: str) -> bytes:
    """Write where to publish: the method of a publication that comes back if it has no queue."""
    return _to(exchange) + short(routing_key) + _MANDATORY


@lru_cache(100)  # notifier has few exchanges
def _to(exchange: str) -> bytes:
    return _PUBLISH.pack(BASIC, PUBLISH, 0) + short(exchange)


def publication(
    channel: int, method: bytes, properties: bytes, body: bytes, frame_max: int = LARGEST
) -> bytes:
    """Write the frames of one publication; `method` is an address."""
    size, most = len(body), frame_max - AROUND
    parts = [
        HEAD.pack(METHOD, channel, len(method)),
        method,
        _END,
        _CONTENT_HEAD.pack(HEADER, channel, _CONTENT.size + len(properties), BASIC, 0, size),
        properties,
        _END,
    ]
    for start in range(0, size, most):
        piece = body[start : start + most]
        parts += (HEAD.pack(BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


def short(text: str) -> bytes:
    """Write a short string; raises ValueError over 255 bytes."""
    data = text.encode()
    if len(data) > _LONGEST_SHORT:
        raise ValueError(f"longer than {_LONGEST_SHORT} bytes: {text[:50]}…")
    return bytes((len(data),)) + data
