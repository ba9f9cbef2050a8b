"""AMQP 1.0 messages, as RabbitMQ delivers them to a consumer that speaks AMQP 0-9-1.

RabbitMQ 4 turns application properties into headers. Its plugin before that leaves them encoded in
one header. Both leave a body that is no data section encoded, and say so in the message's type.
Types: AMQP 1.0, section 1.6.
"""

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from notifier.adapters.rabbitmq import header_tables
from notifier.adapters.rabbitmq.header_tables import UNDECODABLE
from notifier.core.errors import Unsupported

PROPERTIES = "x-amqp-1.0-app-properties"
ENCODED = "amqp-1.0"
TYPES = frozenset({ENCODED, "binary"})  # the plugin's own word for any data section
_VALUE, _DATA, _MAPPING = b"\x00Sw", b"\x00Su", b"\x00St"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CONSTANTS: Mapping[int, object] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0}
_FIXED = {
    0x50: "B",
    0x51: "b",
    0x52: "B",
    0x53: "B",
    0x54: "b",
    0x55: "b",
    0x56: "?",
    0x60: "H",
    0x61: "h",
    0x70: "I",
    0x71: "i",
    0x72: "f",
    0x80: "Q",
    0x81: "q",
    0x82: "d",
    0x83: "q",
    0x98: "16s",
}
_OF_LENGTH = frozenset((0xA0, 0xA1, 0xA3, 0xB0, 0xB1, 0xB3))
# By the upper half of a type's code: the bytes of its content, or those that have their number.
_SIZES = {4: 0, 5: 1, 6: 2, 7: 4, 8: 8, 9: 16}
_LENGTHS = {**dict.fromkeys((0xA, 0xC, 0xE), ">B"), **dict.fromkeys((0xB, 0xD, 0xF), ">I")}
_COUNTS = {0xC1: ">BB", 0xD1: ">II"}


def unwrapped(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers with the application properties among them; raises UNDECODABLE.

    Headers that stand there by themselves come first. A value of a type that no attribute has, such
    as a decimal number or a list, stays unread.
    """
    encoded = headers.get(PROPERTIES)
    if not isinstance(encoded, bytes | bytearray) or not encoded.startswith(_MAPPING):
        return dict(headers)
    own = {name: value for name, value in headers.items() if name != PROPERTIES}
    return _mapping(bytes(encoded), len(_MAPPING)) | own


def type_of(stated: str, headers: Mapping[str, object]) -> str:
    """Return the type that a producer gave: none of `TYPES`, unless it stands there by itself."""
    is_the_plugins = any(name.startswith("x-amqp-1.0-") for name in headers)
    return "" if stated == ENCODED or is_the_plugins else stated


def body_of(encoded: bytes) -> bytes:
    """Return the bytes of an encoded body; raises Unsupported for anything but text and bytes."""
    try:
        if encoded.startswith((_VALUE, _DATA)):
            value, end = _read(encoded, len(_VALUE))
            if end == len(encoded) and isinstance(value, str | bytes):
                return value.encode() if isinstance(value, str) else value
    except UNDECODABLE:
        pass
    raise Unsupported(
        "body", "is neither text nor bytes of AMQP 1.0, but another value; send one data section"
    )


def _mapping(encoded: bytes, at: int) -> dict[str, Any]:
    counts = _COUNTS.get(encoded[at])
    if counts is None:
        raise ValueError("application properties of AMQP 1.0 that are no map")
    _, count = struct.unpack_from(counts, encoded, at + 1)
    at += 1 + struct.calcsize(counts)
    found: dict[str, Any] = {}
    for _ in range(count // 2):
        name, at = _read(encoded, at)
        found[str(name)], at = _read(encoded, at)
    return found


def _read(encoded: bytes, at: int) -> tuple[object, int]:
    """Return the value at a place, and the place behind it."""
    code, at = encoded[at], at + 1
    if code in _CONSTANTS:
        return _CONSTANTS[code], at
    if form := _FIXED.get(code):
        [value] = struct.unpack_from(f">{form}", encoded, at)
        return _named(code, value), at + struct.calcsize(f">{form}")
    start, at = _content(encoded, code, at)
    if code not in _OF_LENGTH:
        return header_tables.UNREAD, at
    content = encoded[start:at]
    return (content if code in (0xA0, 0xB0) else header_tables.text(content)), at


def _content(encoded: bytes, code: int, at: int) -> tuple[int, int]:
    """Return where a value's content begins and ends: its code says so (section 1.2)."""
    size = _SIZES.get(code >> 4)
    if size is None:
        form = _LENGTHS[code >> 4]
        [size] = struct.unpack_from(form, encoded, at)
        at += struct.calcsize(form)
    if at + size > len(encoded):
        raise ValueError("a value of AMQP 1.0 that is cut off")
    return at, at + size


def _named(code: int, value: Any) -> object:  # noqa: ANN401  # of struct
    if code == 0x83:  # noqa: PLR2004 - milliseconds
        try:
            return _EPOCH + timedelta(milliseconds=value)
        except OverflowError:  # no calendar has it
            return header_tables.UNREAD
    return str(UUID(bytes=value)) if code == 0x98 else value  # noqa: PLR2004 - of the type
