"""What stands beside a body in AMQP: read leniently, as foreign producers write it, and written.

A producer may set a timestamp in nanoseconds, or an id in Latin-1. RabbitMQ passes that on, and a
client that closes its connection over it would do so again on each redelivery, for ever.
"""

import struct
from collections.abc import Mapping
from contextlib import suppress
from time import time
from typing import Any, NamedTuple

import pamqp.decode
import pamqp.encode
from aiormq import spec
from aiormq.abc import FieldTable
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

from notifier.adapters import amqp_1_0
from notifier.adapters.amqp_frames import short
from notifier.core.errors import Unreadable
from notifier.core.ingress import Entry

PERSISTENT = 2
LARGEST_HEADERS = 100_000  # bytes; a frame has at most 131,072

# The bits of the flags, which is also the order in which properties follow.
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 7
_CONTENT_ENCODING = 1 << 14
_TIMESTAMP, _TYPE, _APP_ID = 1 << 6, 1 << 5, 1 << 3
_TEXTS = {
    _CONTENT_TYPE: "content_type",
    _CONTENT_ENCODING: "content_encoding",
    _MESSAGE_ID: "message_id",
    _TYPE: "type",
    _APP_ID: "app_id",
}
_OCTETS = _DELIVERY_MODE | 1 << 11
_IN_ORDER = tuple(1 << bit for bit in range(15, 1, -1))
_MORE_FLAGS = 1

_ACCEPTED = "notifier-accepted"  # the header with the moment of acceptance, in milliseconds
# The headers that our own entries have, as pamqp would write them: in a tenth of the time.
_TABLE = struct.Struct(">IB17scq")
_TABLE_START = struct.pack(">IB17sc", 27, 17, _ACCEPTED.encode(), b"l")
_FLAGS, _MOMENT = struct.Struct(">H"), struct.Struct(">Q")
_YEAR_2001 = 1_000_000_000
_CLOCKS_DIFFER = 60
_PROPERTIES_RULE = "cannot be read: their texts must be UTF-8, and headers a table of AMQP 0-9-1"
_UNDECODABLE = (
    *(PAMQPException, ValueError, TypeError, LookupError, ArithmeticError, RecursionError),
    struct.error,
)


class Death(NamedTuple):
    """Why RabbitMQ itself put an entry aside, and where it came from; see its header x-death.

    `reason` is `delivery_limit`, `maxlen`, `expired` or `rejected`. `expiration` is the producer's
    own, in milliseconds, empty where a policy let it expire.
    """

    reason: str
    queue: str
    routing_key: str
    expiration: str


class Letterhead(NamedTuple):
    """Properties as they are sent, but for the message id in between, if there is one to come."""

    before: bytes
    after: bytes = b""


def of_entry(entry: Entry) -> Letterhead:
    """Write an entry's properties; a message id is to come."""
    flags = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID | _TIMESTAMP
    after = _MOMENT.pack(int(entry.accepted or time()))
    if entry.type:
        flags, after = flags | _TYPE, after + short(entry.type)
    if entry.app_id:
        flags, after = flags | _APP_ID, after + short(entry.app_id)
    before = (_FLAGS.pack(flags), short(entry.content_type), _table(entry), bytes((PERSISTENT,)))
    return Letterhead(b"".join(before), after)


def _table(entry: Entry) -> bytes:
    accepted = round(entry.accepted * 1000)
    if accepted and not entry.headers:
        return _TABLE.pack(27, 17, _ACCEPTED.encode(), b"l", accepted)
    headers: dict[str, Any] = dict(entry.headers)
    return table(headers | ({_ACCEPTED: accepted} if accepted else {}))


def table(headers: FieldTable) -> bytes:
    """Write headers."""
    return pamqp.encode.field_table(headers)


def entry_of(routing_key: bytes, properties: bytes, body: bytes) -> Entry:
    """Read an entry; raises Unreadable for properties that nobody can read."""
    try:
        found = _read(properties)
        headers = found.pop("headers", {})
        if found.get("type") in amqp_1_0.TYPES:
            body = amqp_1_0.body_of(body) if found["type"] == amqp_1_0.ENCODED else body
            found["type"] = amqp_1_0.type_of(found["type"], headers)
            headers = amqp_1_0.unwrapped(headers)
    except _UNDECODABLE as error:
        raise Unreadable("properties", _PROPERTIES_RULE) from error
    accepted = _moment(headers.pop(_ACCEPTED, None))
    key = readable(routing_key)
    return Entry(body=body, routing_key=key, headers=headers, accepted=accepted, **found)


def death_of(properties: bytes) -> Death | None:
    """Read the newest death of an entry; None where there is none that can be read."""
    try:
        newest = _read(properties)["headers"]["x-death"][0]
        texts = {name: str(_text(value)) for name, value in newest.items()}
        routing_key = str(_text(newest["routing-keys"][0]))
        expiration = texts.get("original-expiration", "")
        return Death(texts["reason"], texts["queue"], routing_key, expiration)
    except (*_UNDECODABLE, AttributeError):
        return None


def message_id_of(properties: bytes) -> str:
    """Read the message id; raises ValueError where there is none that can be read."""
    try:
        return str(_read(properties)["message_id"])
    except _UNDECODABLE as error:
        raise ValueError(str(error)) from error


def readable(routing_key: bytes) -> str:
    """Return a routing key with `?` for what is no text in it."""
    try:
        return routing_key.decode()
    except UnicodeDecodeError:
        return routing_key.decode("ascii", "replace").replace("\ufffd", "?")


def _read(properties: bytes) -> dict[str, Any]:
    (flags,) = _FLAGS.unpack_from(properties)
    if flags & _MORE_FLAGS:
        raise ValueError("more properties than AMQP 0-9-1 has")
    found: dict[str, Any] = {}
    at = _FLAGS.size
    for flag in _IN_ORDER:
        if not flags & flag:
            continue
        if flag == _HEADERS:
            found["headers"], size = _headers(properties, at)
        elif flag & _OCTETS:
            size = 1
        elif flag == _TIMESTAMP:  # nobody asks for it, so it may be anything
            size = _MOMENT.size
        else:
            size = 1 + properties[at]
            if name := _TEXTS.get(flag):
                found[name] = properties[at + 1 : at + size].decode()
        at += size
    return found


def _headers(properties: bytes, at: int) -> tuple[dict[str, object], int]:
    if properties.startswith(_TABLE_START, at):
        return {_ACCEPTED: _TABLE.unpack_from(properties, at)[4]}, _TABLE.size
    size, headers = pamqp.decode.field_table(properties[at:])
    return {name: _text(value) for name, value in headers.items()}, size


def _text(value: object) -> object:
    if isinstance(value, bytes | bytearray):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value


def _moment(milliseconds: object) -> float:
    # Anyone may send this header, with anything in it.
    seconds = milliseconds / 1000 if isinstance(milliseconds, int) else 0.0
    return seconds if _YEAR_2001 < seconds < time() + _CLOCKS_DIFFER else 0.0


def of_dead_letter(properties: bytes, ours: Mapping[str, Any]) -> Letterhead:
    """Write a dead letter's properties: the original's, where they can be kept, and our headers."""
    original = _all_of(properties)
    headers = {**(original.headers or {}), **ours}
    original.headers = headers if fit(headers) else dict(ours)
    original.delivery_mode = PERSISTENT
    original.expiration = None
    original.user_id = None  # RabbitMQ refuses any but our own
    return Letterhead(original.marshal())


def _all_of(properties: bytes) -> spec.Basic.Properties:
    header = ContentHeader()
    with suppress(*_UNDECODABLE):
        header.unmarshal(bytes(12) + properties)
        return header.properties
    return spec.Basic.Properties()


def fit(headers: FieldTable) -> bool:
    """Whether headers can be written, and leave the frame some room.

    They share it with other properties, and a producer's own may leave no room for ours.
    """
    try:
        return len(table(headers)) <= LARGEST_HEADERS
    except (TypeError, ValueError, ArithmeticError, struct.error):
        return False  # pamqp reads more than it can write, such as a large double
