"""Properties and headers of AMQP messages: written, and read leniently, from any producer.

A producer may set a timestamp in nanoseconds, or an id in Latin-1. RabbitMQ passes that on, and a
client that closes its connection over it would do so again on each redelivery, for ever.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from time import time
from typing import Any, NamedTuple

from aiormq.abc import FieldTable

from notifier.adapters.rabbitmq import amqp_1_0, header_tables
from notifier.adapters.rabbitmq.frames import short
from notifier.adapters.rabbitmq.header_tables import UNDECODABLE
from notifier.core.cloudevents import STRUCTURED
from notifier.core.entries import Entry
from notifier.core.errors import TooLarge, Unreadable

PERSISTENT = 2
LARGEST_PROPERTIES = 131_052  # bytes; with the size of the body they fill a frame of 131,072
LARGEST_HEADERS = 100_000  # bytes, of a dead letter: ours and other properties need room as well

# The bits of the flags, which is also the order in which properties follow.
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 7
_CONTENT_ENCODING = 1 << 14
_TIMESTAMP, _TYPE, _APP_ID = 1 << 6, 1 << 5, 1 << 3
_EXPIRATION, _USER_ID = 1 << 8, 1 << 4
_TEXTS = {
    _CONTENT_TYPE: "content_type",
    _CONTENT_ENCODING: "content_encoding",
    _MESSAGE_ID: "message_id",
    _TYPE: "type",
    _APP_ID: "app_id",
}
_OCTETS = _DELIVERY_MODE | 1 << 11
_NO_TEXTS = _HEADERS | _OCTETS | _TIMESTAMP
_IN_ORDER = tuple(1 << bit for bit in range(15, 1, -1))
_MORE_FLAGS = 1

_ACCEPTED = "notifier-accepted"  # the header with the moment of acceptance, in milliseconds
# The headers that our own entries have, as pamqp would write them: in a tenth of the time.
_TABLE = struct.Struct(">IB17scq")
_TABLE_START = struct.pack(">IB17sc", 27, 17, _ACCEPTED.encode(), b"l")
_FLAGS, _MOMENT = struct.Struct(">H"), struct.Struct(">Q")
_YEAR_2001 = 1_000_000_000
_YEAR_2106 = 1 << 32  # from which on clients differ in how they read a timestamp
_CLOCKS_DIFFER = 60
_PROPERTIES_RULE = "cannot be read: their texts must be UTF-8, and headers a table of AMQP 0-9-1"


class Death(NamedTuple):
    """Why RabbitMQ itself put an entry aside, and where it came from; see its header x-death.

    `reason` is `delivery_limit`, `maxlen`, `expired` or `rejected`. `expiration` is the producer's
    own, in milliseconds, empty where a policy let it expire.
    """

    reason: str
    queue: str
    routing_key: str
    expiration: str


class LetterProperties(NamedTuple):
    """Properties as they are sent, but for the message id in between, if there is one to come."""

    before: bytes
    after: bytes = b""


def of_entry(entry: Entry) -> LetterProperties:
    """Write an entry's properties; a message id is to come."""
    flags = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID | _TIMESTAMP
    after = _MOMENT.pack(int(entry.accepted or time()))
    if entry.type:
        flags, after = flags | _TYPE, after + short(entry.type)
    if entry.app_id:
        flags, after = flags | _APP_ID, after + short(entry.app_id)
    before = _start(flags, entry.content_type) + _table(entry) + bytes((PERSISTENT,))
    return LetterProperties(before, after)


@lru_cache(100)  # our entries have few content types
def _start(flags: int, content_type: str) -> bytes:
    return _FLAGS.pack(flags) + short(content_type)


def with_id(headers: FieldTable, message_id: str) -> LetterProperties:
    """Write properties of a CloudEvent, with a message id that stays the same at each try."""
    flags = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID
    table, mode = header_tables.written(headers), bytes((PERSISTENT,))
    parts = (_FLAGS.pack(flags), short(STRUCTURED), table, mode, short(message_id))
    return LetterProperties(b"".join(parts))


def _table(entry: Entry) -> bytes:
    accepted = round(entry.accepted * 1000)
    if accepted and not entry.headers:
        return _TABLE.pack(27, 17, _ACCEPTED.encode(), b"l", accepted)
    headers: dict[str, Any] = dict(entry.headers)
    return header_tables.written(headers | ({_ACCEPTED: accepted} if accepted else {}))


def entry_of(routing_key: bytes, properties: bytes, body: bytes) -> Entry:
    """Read an entry; raises Unreadable for properties that nobody can read, or TooLarge."""
    try:
        found = _read(properties)
        headers = found.pop("headers", {})
        if found.get("type") in amqp_1_0.TYPES:
            body = amqp_1_0.body_of(body) if found["type"] == amqp_1_0.ENCODED else body
            found["type"] = amqp_1_0.type_of(found["type"], headers)
            headers = amqp_1_0.unwrapped(headers)
    except UNDECODABLE as error:
        raise Unreadable("properties", _PROPERTIES_RULE) from error
    if (compression := _compression_of(headers)) is not None:
        found["content_encoding"] = compression
    accepted = _moment(headers.pop(_ACCEPTED, None))
    key = readable(routing_key)
    return Entry(body=body, routing_key=key, headers=headers, accepted=accepted, **found)


def _compression_of(headers: Mapping[str, object]) -> str | None:
    """Return how kombu compressed a body: it says so in a header, by a media type."""
    told = headers.get("compression")
    return told if isinstance(told, str) and told.startswith("application/") else None


def death_of(properties: bytes) -> Death | None:
    """Read the newest death of an entry; None where there is none that can be read."""
    try:
        newest = _read(properties)["headers"]["x-death"][0]
        texts = {name: str(header_tables.text(value)) for name, value in newest.items()}
        routing_key = str(header_tables.text(newest["routing-keys"][0]))
        expiration = texts.get("original-expiration", "")
        return Death(texts["reason"], texts["queue"], routing_key, expiration)
    except (*UNDECODABLE, AttributeError, TooLarge):
        return None


def message_id_of(properties: bytes) -> str:
    """Read the message id; raises ValueError where there is none that can be read."""
    try:
        return str(_read(properties)["message_id"])
    except (*UNDECODABLE, TooLarge) as error:
        raise ValueError(str(error)) from error


def readable(routing_key: bytes) -> str:
    """Return a routing key with `?` for each byte that is no text."""
    try:
        return routing_key.decode()
    except UnicodeDecodeError:
        return routing_key.decode("ascii", "replace").replace("\ufffd", "?")


def _read(properties: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for flag, start, end in _split(properties):
        if flag == _HEADERS:
            found["headers"] = _headers(properties, start)
        elif name := _TEXTS.get(flag):
            found[name] = properties[start + 1 : end].decode()
    return found


def _split(properties: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each property's flag, and where it starts and ends. Most are never looked at."""
    if len(properties) > LARGEST_PROPERTIES:
        raise TooLarge("properties", f"at most {LARGEST_PROPERTIES} bytes are taken here")
    (flags,) = _FLAGS.unpack_from(properties)
    if flags & _MORE_FLAGS:
        raise ValueError("more properties than AMQP 0-9-1 has")
    at = _FLAGS.size
    for flag in _set_in(flags):
        end = at + (_size(flag, properties, at) if flag & _NO_TEXTS else 1 + properties[at])
        if end > len(properties):
            raise ValueError("the properties are cut off")
        yield flag, at, end
        at = end


@lru_cache(100)  # a producer's messages have the same ones
def _set_in(flags: int) -> tuple[int, ...]:
    return tuple(flag for flag in _IN_ORDER if flags & flag)


def _size(flag: int, properties: bytes, at: int) -> int:
    if flag == _HEADERS:
        return header_tables.size_of(properties, at)
    return _MOMENT.size if flag == _TIMESTAMP else 1


def _headers(properties: bytes, at: int) -> dict[str, object]:
    if properties.startswith(_TABLE_START, at):
        return {_ACCEPTED: _TABLE.unpack_from(properties, at)[4]}
    return header_tables.read(properties, at)


def _moment(milliseconds: object) -> float:
    # Anyone may send this header, with anything in it.
    seconds = milliseconds / 1000 if isinstance(milliseconds, int) else 0.0
    return seconds if _YEAR_2001 < seconds < time() + _CLOCKS_DIFFER else 0.0


def of_dead_letter(properties: bytes, ours: FieldTable) -> LetterProperties:
    """Write a dead letter's properties: the original's, where they can be kept, and our headers.

    Any client can read them: text is UTF-8, and no header is a large array or table.
    """
    kept: dict[int, bytes] = {}
    headers = header_tables.written(ours)
    with suppress(*UNDECODABLE, TooLarge):
        found = {flag: (start, end) for flag, start, end in _split(properties)}
        if _HEADERS in found:
            with_theirs = header_tables.merged(properties, found[_HEADERS][0], ours)
            headers = with_theirs if len(with_theirs) <= LARGEST_HEADERS else headers
        kept = {flag: _kept(flag, properties[start:end]) for flag, (start, end) in found.items()}
    kept = {flag: piece for flag, piece in kept.items() if piece}
    kept |= {_HEADERS: headers, _DELIVERY_MODE: bytes((PERSISTENT,))}
    flags = sum(kept)
    return LetterProperties(_FLAGS.pack(flags) + b"".join(kept[f] for f in _IN_ORDER if f in kept))


def _kept(flag: int, piece: bytes) -> bytes:
    """Return a property as a dead letter has it, or nothing where it cannot have it."""
    if flag in (_EXPIRATION, _USER_ID):  # RabbitMQ refuses any user but our own
        return b""
    if flag == _TIMESTAMP:
        return piece if _MOMENT.unpack(piece)[0] < _YEAR_2106 else b""
    if flag == _HEADERS or flag & _OCTETS:
        return piece
    return short(readable(piece[1:]))
