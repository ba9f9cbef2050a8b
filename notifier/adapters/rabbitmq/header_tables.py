"""Header tables of AMQP 0-9-1, read within bounds: large arrays and tables in them stay unread.

An array of 130,000 nulls takes a decoder seconds, and no event needs it. Layouts are those of the
specification, section 4.2.5.5, with the kinds that RabbitMQ has beside them.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from struct import Struct

import pamqp.decode
import pamqp.encode
from aiormq.abc import FieldTable
from pamqp.exceptions import PAMQPException

from notifier.core.errors import TooLarge

MOST_HEADERS = 1_000
_LARGEST_NESTED = 4096  # bytes, of all arrays and tables that are read of one table

_LENGTH = Struct(">I")
_SIZES = {
    **dict.fromkeys(b"V", 0),
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"su", 2),
    **dict.fromkeys(b"Iif", 4),
    **dict.fromkeys(b"D", 5),
    **dict.fromkeys(b"lLdT", 8),
}
_WITH_LENGTH = frozenset(b"SxAF")
_NESTED = frozenset(b"AF")
UNDECODABLE = (
    *(PAMQPException, ValueError, LookupError, ArithmeticError, OSError, RecursionError),
    *(TypeError, struct.error),
)


class Skipped:
    """A value that is no attribute of an event: too large an array, or not to be decoded."""


UNREAD = Skipped()


def size_of(properties: bytes, at: int) -> int:
    """Return how many bytes the table has that begins at `at`."""
    return _end(properties, at) - at


def read(properties: bytes, at: int) -> dict[str, object]:
    """Return the headers of the table that begins at `at`.

    Text is text where it is UTF-8, else bytes. Values that cannot be decoded stay unread. Raises
    TooLarge for too many headers, ValueError, and others of UNDECODABLE, for an unreadable table.
    """
    room = _LARGEST_NESTED
    found: dict[str, object] = {}
    for start, kind, end in _entries(properties, at):
        size = end - kind if properties[kind] in _NESTED else 0
        is_read = size <= room
        room -= size if is_read else 0
        name = properties[start:kind].decode()
        found[name] = _value(properties, kind, end) if is_read else UNREAD
    return found


def _end(data: bytes, at: int) -> int:
    end = at + _LENGTH.size + int(_LENGTH.unpack_from(data, at)[0])
    if end > len(data):
        raise ValueError("the headers are cut off")
    return end


def _entries(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Yield of each header where its name and its value's kind begin, and where it ends."""
    stop, at, count = _end(data, at), at + _LENGTH.size, 0
    while at < stop:
        count += 1
        if count > MOST_HEADERS:
            raise TooLarge("properties", f"at most {MOST_HEADERS} headers are taken here")
        kind = at + 1 + data[at]
        end = _end_of_value(data, kind)
        if end > stop:
            raise ValueError("a header is cut off")
        yield at + 1, kind, end
        at = end


def _end_of_value(data: bytes, kind: int) -> int:
    size = _SIZES.get(data[kind])
    if size is not None:
        return kind + 1 + size
    if data[kind] not in _WITH_LENGTH:
        raise ValueError(f"unknown kind of header: {data[kind : kind + 1]!r}")
    return _end(data, kind + 1)


def _value(data: bytes, kind: int, end: int) -> object:
    try:
        _, value = pamqp.decode.embedded_value(data[kind:end])
    except UNDECODABLE:  # such as a moment in nanoseconds: it is no reason to refuse the rest
        return UNREAD
    return text(value)


def text(value: object) -> object:
    """Return bytes that are UTF-8 as text, and anything else as it is."""
    if isinstance(value, bytes | bytearray):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value


def written(headers: FieldTable) -> bytes:
    """Write a table."""
    return pamqp.encode.field_table(headers)


def merged(properties: bytes, at: int, ours: FieldTable) -> bytes:
    """Write the table at `at` once more with `ours` in it, as every client can read it.

    Large arrays and tables, and unreadable headers, are left out. Raises as `read` does.
    """
    kept = [
        properties[start - 1 : end]
        for start, kind, end in _entries(properties, at)
        if _is_readable(properties, start, kind, end)
        and properties[start:kind].decode() not in ours
    ]
    entries = b"".join((*kept, written(ours)[_LENGTH.size :]))
    return _LENGTH.pack(len(entries)) + entries


def _is_readable(data: bytes, start: int, kind: int, end: int) -> bool:
    is_small = data[kind] not in _NESTED or end - kind <= _LARGEST_NESTED
    is_named = isinstance(text(data[start:kind]), str)
    return is_small and is_named and _value(data, kind, end) is not UNREAD
