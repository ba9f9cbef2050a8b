"""Events: the form that producers send, and the form that clients get.

`Event` is notifier's own body and the form in which events wait in the event queue. CloudEvents
are turned into it (`notifier.core.cloudevents`), and every event leaves as CloudEvents 1.0 JSON.
"""

import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder

from notifier.core.bounded_json import NOT_A_MEMBER, check_size, read_json
from notifier.core.errors import Invalid, TooLarge
from notifier.core.event_rules import (
    LONGEST_TEXT,
    LONGEST_TTL,
    LONGEST_UNDELIVERED_AFTER,
    LONGEST_WORD,
    RULES,
    meant_by,
    resembled_by,
)
from notifier.core.names import LONGEST_NAME, checked_name, checked_topic, is_name
from notifier.core.uris import URI, URI_REFERENCE

LARGEST_EVENT = 64 * 1024
# An accepted event on its way to the router: completed, and rewritten from other forms, in which
# text and binary data take less (a control character takes one byte there, six in JSON).
LARGEST_ENTRY = 8 * LARGEST_EVENT
LARGEST_BATCH = 1024 * 1024
MOST_IN_BATCH = 1_000
MOST_USERS = 10_000
MOST_AWAITED = 1_000  # users of an event that is handed back or reported: inboxes are searched
# The list of users does not count towards an event's bytes: 10,000 real ids would not fit.
_AROUND_USER = len('"", ')
LARGEST_AUDIENCE = MOST_USERS * (LONGEST_NAME + _AROUND_USER)
# The largest body of any ingress: an event alone may be larger than a batch.
LARGEST_BODY = max(LARGEST_BATCH, LARGEST_EVENT + LARGEST_AUDIENCE)

# CloudEvents 1.0.2, section 2.2: neither control characters nor Unicode's noncharacters.
_NONCHARACTERS = "".join(
    f"{chr(0x10000 * n + 0xFFFE)}{chr(0x10000 * n + 0xFFFF)}" for n in range(17)
)
# ASCII is tried first, which is faster than the large set.
_PRINTABLE = rf"^(?:[ -~]*|[^\x00-\x1f\x7f-\x9f\ufdd0-\ufdef{_NONCHARACTERS}]*)\Z"
Text = Annotated[str, Meta(min_length=1, max_length=LONGEST_TEXT, pattern=_PRINTABLE)]
Word = Annotated[str, Meta(min_length=1, max_length=LONGEST_WORD, pattern=_PRINTABLE)]
Reference = Annotated[str, Meta(min_length=1, max_length=LONGEST_TEXT, pattern=URI_REFERENCE)]
Absolute = Annotated[str, Meta(max_length=LONGEST_TEXT, pattern=URI)]
Moment = Annotated[datetime, Meta(tz=True)]
Attribute = (
    bool
    | Annotated[int, Meta(ge=-(2**31), lt=2**31)]
    | Annotated[float, Meta(ge=-(2**31), lt=2**31, multiple_of=1)]  # 7.0, until it is checked
    | Annotated[str, Meta(max_length=LONGEST_TEXT, pattern=_PRINTABLE)]
)


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One event, as posted to `/v1/events` or put on the exchange.

    Exactly one of `users`, `topic` and `everyone` is the audience. `ttl` counts seconds from the
    acceptance; the router only ever sees `expires`. `source` + `id` are the event's identity: the
    same pair posted again within the deduplication window is delivered once. One that is `silent`
    is delivered as any other, and never counts as unread. With `undelivered_after` it is handed
    back for each user who has not received it so many seconds after the acceptance. A `report`
    tells producers' consumers how far it comes towards each user.
    """

    type: Word
    users: list[str] | UnsetType = UNSET
    topic: str | UnsetType = UNSET
    everyone: bool | UnsetType = UNSET
    id: Word | UnsetType = UNSET
    source: Reference | UnsetType = UNSET
    time: Moment | UnsetType = UNSET
    subject: Text | UnsetType = UNSET
    datacontenttype: Text | UnsetType = UNSET
    dataschema: Absolute | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    data_base64: bytes | UnsetType = UNSET
    ttl: Annotated[float, Meta(gt=0, le=LONGEST_TTL)] | UnsetType = UNSET
    expires: Moment | UnsetType = UNSET
    collapse_key: Word | UnsetType = UNSET
    silent: bool | UnsetType = UNSET
    undelivered_after: Annotated[float, Meta(ge=1, le=LONGEST_UNDELIVERED_AFTER)] | UnsetType = (
        UNSET
    )
    report: bool | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET
    extensions: dict[str, Attribute] | UnsetType = UNSET

    @property
    def wants_ack(self) -> bool:
        """Whether clients are to mark it received."""
        return self.undelivered_after is not UNSET or self.report is True

    @property
    def has_audience(self) -> bool:
        """Whether the body itself names an audience."""
        return not (self.users is UNSET and self.topic is UNSET and self.everyone is UNSET)

    @property
    def identity(self) -> str:
        """The text that deduplication compares. No source has a space, so pairs never collide."""
        return f"{self.source} {self.id}"


class Delivered(Struct, omit_defaults=True):
    """CloudEvents 1.0 in JSON, as clients read it; extension attributes are spliced in behind."""

    specversion: str
    silent: bool | UnsetType
    id: str | UnsetType
    source: str | UnsetType
    type: str
    time: Moment | UnsetType
    datacontenttype: str | UnsetType
    dataschema: str | UnsetType
    subject: str | UnsetType
    expires: Moment | UnsetType
    traceparent: str | UnsetType
    data: Raw | UnsetType
    data_base64: bytes | UnsetType


class _Extensions(Struct):
    extensions: dict[str, Raw]


CLIENT_MEMBERS = frozenset(
    (
        *("type", "id", "subject", "datacontenttype", "dataschema", "data", "data_base64"),
        *("ttl", "expires", "collapse_key", "silent", "extensions"),
    )
)
"""Those that a client may give; the gateway decides on audience, source, time and trace."""

# How `delivered` begins, the latter for a silent event: nobody has to parse one to know.
PLAIN = b'{"specversion":"1.0",'
SILENT = b'{"specversion":"1.0","silent":true,'

RAW = Decoder(Raw)
_decoder = Decoder(Event)
_encoder = msgspec.json.Encoder()
_any_extensions = Decoder(_Extensions)
_attribute: Decoder[bool | int | float | str] = Decoder(Attribute)
_LONGEST_SHOWN = 64
_NAME_RULE = "must have a name of 1 to 64 of a-z 0-9, and none that an event has by itself"
EXTENSION = "[a-z0-9]{1,64}"
_EXTENSION = re.compile(EXTENSION)
_printable = re.compile(_PRINTABLE)
# Version, trace, span and flags; neither of the ids is all zeros (Trace Context, section 3.2.2).
# Versions to come may have more behind the flags, this one has not (section 4.3).
_IDS = r"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(rf"00-{_IDS}|(?!00|ff)[0-9a-f]{{2}}-{_IDS}(?:-[!-~]{{0,400}})?")
RESERVED_EXTENSIONS = frozenset(Delivered.__struct_fields__) | {"datacontentencoding"}


def is_word(text: str) -> bool:
    """Whether `text` can be an id or a type."""
    return 0 < len(text) <= LONGEST_WORD and _printable.match(text) is not None


def decode(body: bytes, most: int = LARGEST_EVENT) -> Event:
    """Read notifier's own JSON body of one event; raises Invalid naming the field.

    The audience may be missing (a routing key can stand for it), everything else is checked.
    """
    try:
        event = read_json(body, _decoder, most + LARGEST_AUDIENCE, RULES)
    except Invalid as error:
        raise _refusal(error, body) from error
    if len(body) > most:
        users = event.users or ()
        check_size(len(body) - sum(map(len, users)) - len(users) * _AROUND_USER, most)
    return checked(event)


def _refusal(error: Invalid, body: bytes) -> Invalid:
    """Return a refusal that gives a member its name here, or names the bad extension."""
    if error.field.startswith("extensions[") and (name := _bad_extension(body)) is not None:
        return Invalid(f"extensions.{name[:_LONGEST_SHOWN]}", RULES["extensions"])
    if error.reason != NOT_A_MEMBER:
        return error
    if meant := meant_by(error.field):
        return Invalid(error.field, f"is called {meant} here")
    near = resembled_by(error.field)
    remedy = f"is {near} meant?" if near else "members of your own go into data"
    return Invalid(error.field, f"{NOT_A_MEMBER} of an event; {remedy}")


def _bad_extension(body: bytes) -> str | None:
    for name, value in read_json(body, _any_extensions, len(body)).extensions.items():
        try:
            _attribute.decode(value)
        except msgspec.ValidationError:
            return name
    return None


def checked(event: Event) -> Event:
    """Return `event` if it keeps the rules that no type states; else raise Invalid."""
    _check_audience(event)
    if event.data is not UNSET and event.data_base64 is not UNSET:
        raise Invalid("data_base64", "give data or data_base64, not both")
    if event.ttl is not UNSET and event.expires is not UNSET:
        raise Invalid("ttl", "give ttl or expires, not both")
    if event.extensions:
        event = msgspec.structs.replace(event, extensions=_checked_extensions(event.extensions))
    # Trace Context, section 4.3: a trace that cannot be parsed is left, and begins anew.
    if event.traceparent is not UNSET and not _TRACEPARENT.fullmatch(event.traceparent):
        event = msgspec.structs.replace(event, traceparent=UNSET)
    return event


def _checked_extensions(given: dict[str, Attribute]) -> dict[str, Attribute]:
    for name in given:
        if not _EXTENSION.fullmatch(name) or name in RESERVED_EXTENSIONS:
            raise Invalid(f"extensions.{name[:_LONGEST_SHOWN]}", _NAME_RULE)
    # 7.0 is a whole number to JSON Schema, and some languages write it so.
    return {name: int(v) if isinstance(v, float) else v for name, v in given.items()}


def _check_audience(event: Event) -> None:
    if not event.has_audience:
        return
    if (event.users, event.topic, event.everyone).count(UNSET) < 2:  # noqa: PLR2004 - of three
        raise Invalid("users", "give one of users, topic and everyone, not several")
    if event.everyone is False:
        raise Invalid("everyone", "can only be true; leave it out otherwise")
    if event.wants_ack:
        _check_awaited(event)
    if event.topic is not UNSET:
        checked_topic(event.topic, "topic")
    if event.users is not UNSET:
        _check_users(event.users)


def _check_users(users: list[str]) -> None:
    if not users:
        raise Invalid("users", "must name at least one user")
    if len(users) > MOST_USERS:
        raise TooLarge("users", f"at most {MOST_USERS} users an event; this has {len(users)}")
    if not all(map(is_name, users)):  # a place is written for a bad one alone
        for index, user in enumerate(users):
            checked_name(user, f"users[{index}]")


def _check_awaited(event: Event) -> None:
    asked = "report" if event.undelivered_after is UNSET else "undelivered_after"
    if event.topic is not UNSET or event.everyone is not UNSET:
        raise Invalid(
            asked,
            "needs users as the audience: the receivers of an event for a topic are not known",
        )
    if event.users is not UNSET and len(event.users) > MOST_AWAITED:
        raise TooLarge(
            "users",
            f"at most {MOST_AWAITED} users an event with {asked}; this has {len(event.users)}",
        )


def addressed(event: Event, audience: Mapping[str, Any]) -> Event:
    """Return a checked event with the `audience` that came beside it; raises Invalid."""
    event = msgspec.structs.replace(event, **audience)
    _check_audience(event)
    return event


def completed(event: Event, *, source: str, now: float, id_beside: str = "") -> Event:
    """Fill in a missing id, source and time, and turn ttl into expires.

    `now` (Unix seconds) is the moment of acceptance. `id_beside` came beside the body.
    """
    changes: dict[str, Any] = {}
    if event.id is UNSET:
        changes["id"] = id_beside or new_id(now)
    if event.source is UNSET:
        changes["source"] = source
    if event.time is UNSET:
        changes["time"] = _moment(now)
    if event.data is not UNSET and event.datacontenttype is UNSET:
        changes["datacontenttype"] = "application/json"
    if event.ttl is not UNSET:
        changes |= {"ttl": UNSET, "expires": _moment(now + event.ttl)}
    return msgspec.structs.replace(event, **changes) if changes else event


def with_traceparent(event: Event, trace_beside: object) -> Event:
    """Fill in the `traceparent` that came beside an event's body, in a header, if it has none.

    A malformed one is ignored, as W3C's Trace Context asks (section 4.3).
    """
    if event.traceparent is not UNSET or not isinstance(trace_beside, str):
        return event
    if not _TRACEPARENT.fullmatch(trace_beside):
        return event
    return msgspec.structs.replace(event, traceparent=trace_beside)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def new_id(now: float | None = None) -> str:
    """Make an id that sorts by time: UUID version 7 (RFC 9562, section 5.7)."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    moment, chance = f"{milliseconds:012x}", secrets.token_hex(10)
    variant = "89ab"[int(chance[3], 16) & 0b11]  # its bits are 10 (section 4.1), and two of chance
    return f"{moment[:8]}-{moment[8:]}-7{chance[:3]}-{variant}{chance[4:7]}-{chance[7:19]}"


def encode(event: Event) -> bytes:
    """Write the form that `decode` reads, in which events wait in the event queue."""
    return _encoder.encode(event)


def identity_of(event_id: object, source: object = None) -> bytes:
    """Write the members of `delivered` that identify an event: those behind `PLAIN` or `SILENT`.

    Without a source, as far as the id goes.
    """
    if source is None:
        return _encoder.encode({"id": event_id})[1:-1] + b","
    return _encoder.encode({"id": event_id, "source": source})[1:-1]


def delivered(event: Event) -> bytes:
    """Write the event as clients get it: CloudEvents 1.0 JSON on a single line."""
    attributes = Delivered(
        "1.0",
        event.silent or UNSET,
        event.id,
        event.source,
        event.type,
        event.time,
        event.datacontenttype,
        event.dataschema,
        event.subject,
        event.expires,
        event.traceparent,
        event.data,
        event.data_base64,
    )
    text = _encoder.encode(attributes)
    if event.extensions:
        text = text[:-1] + b"," + _encoder.encode(event.extensions)[1:]
    # Raw line ends can only stand between tokens (RFC 8259, section 2), where a space is the same.
    return (
        text.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in text or b"\r" in text else text
    )
