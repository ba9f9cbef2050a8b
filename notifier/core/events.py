"""Events: what producers send, the forms they may send it in, and what clients get of it.

`Event` is notifier's own body and the form in which events wait in the event queue. CloudEvents
are turned into it (`notifier.core.cloudevents`), and every event leaves as CloudEvents 1.0 JSON.
"""

import re
import secrets
import time
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder

from notifier.core.errors import Invalid, TooLarge, Unreadable
from notifier.core.names import LONGEST_NAME, checked_name, checked_topic

T = TypeVar("T")

LARGEST_EVENT = 64 * 1024
# An accepted event on its way to the router: completed, and rewritten from other forms, in which
# text and binary data take less (a control character takes one byte there, six in JSON).
LARGEST_ENTRY = 8 * LARGEST_EVENT
LARGEST_BATCH = 1024 * 1024
MOST_IN_BATCH = 1_000
MOST_USERS = 10_000
# The list of users does not count towards an event's bytes: 10,000 real ids would not fit.
LARGEST_AUDIENCE = MOST_USERS * (LONGEST_NAME + 3)
LONGEST_TTL = 30 * 24 * 3600

Text = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Word = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Moment = Annotated[datetime, Meta(tz=True)]
Attribute = (
    bool | Annotated[int, Meta(ge=-(2**31), lt=2**31)] | Annotated[str, Meta(max_length=1024)]
)


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One event, as posted to `/v1/events` or put on the exchange.

    Exactly one of `users`, `topic` and `everyone` is the audience. `ttl` counts seconds from the
    acceptance; the router only ever sees `expires`. `source` + `id` are the event's identity: the
    same pair posted again within the deduplication window is delivered once.
    """

    type: Word
    users: list[str] | UnsetType = UNSET
    topic: str | UnsetType = UNSET
    everyone: bool | UnsetType = UNSET
    id: Word | UnsetType = UNSET
    source: Text | UnsetType = UNSET
    time: Moment | UnsetType = UNSET
    subject: Text | UnsetType = UNSET
    datacontenttype: Text | UnsetType = UNSET
    dataschema: Text | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    data_base64: bytes | UnsetType = UNSET
    ttl: Annotated[float, Meta(gt=0, le=LONGEST_TTL)] | UnsetType = UNSET
    expires: Moment | UnsetType = UNSET
    collapse_key: Word | UnsetType = UNSET
    traceparent: Word | UnsetType = UNSET
    extensions: dict[str, Attribute] | UnsetType = UNSET

    @property
    def has_audience(self) -> bool:
        """Whether the body itself says whom it concerns."""
        return not (self.users is UNSET and self.topic is UNSET and self.everyone is UNSET)

    @property
    def identity(self) -> str:
        """What deduplication compares. A space cannot stand in a source, so pairs never collide."""
        return f"{self.source} {self.id}"


class _Delivered(Struct, omit_defaults=True):
    """CloudEvents 1.0 in JSON, as clients read it; extension attributes are spliced in behind."""

    specversion: str
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


RAW = Decoder(Raw)
_decoder = Decoder(Event)
_encoder = msgspec.json.Encoder()
_AT_PATH = re.compile(r"^(?P<reason>.*) - at `\$\.?(?P<path>.*)`$", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `([\w |]+)`, got `(\w+)`")
_WRONG_NUMBER = re.compile(r"Expected `(?:int|float)` ([<>]=?) ([\d.e-]+)")
_COMPARED = {">": "more than", ">=": "at least", "<": "less than", "<=": "at most"}
_SAID = {
    "array": "a list",
    "object": "an object",
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}
_MISSING = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*?)`")
_EXTENSION = re.compile(r"[a-z0-9]{1,64}")
# Version, trace, span and flags; neither of the ids is all zeros (Trace Context, section 3.2.2).
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
RESERVED_EXTENSIONS = frozenset(_Delivered.__struct_fields__) | {"datacontentencoding"}


def decode(body: bytes, most: int = LARGEST_EVENT) -> Event:
    """Read notifier's own JSON body of one event; raises Invalid naming the field.

    The audience may be missing (a routing key can stand for it), everything else is checked.
    """
    event = read_json(body, _decoder, most + LARGEST_AUDIENCE)
    users = 0 if event.users is UNSET else sum(len(user) + len('"", ') for user in event.users)
    check_size(len(body) - users, most)
    return checked(event)


def read_json(body: bytes, decoder: Decoder[T], most: int = LARGEST_EVENT) -> T:
    """Decode JSON of at most `most` bytes; raises TooLarge, Unreadable, Invalid with the path."""
    check_size(len(body), most)
    if not body.strip():
        raise Unreadable("", "not JSON: there is nothing in it")
    try:
        body.decode()  # `data` is carried unparsed, so nothing later would notice broken UTF-8
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise Unreadable("", f"not UTF-8 at byte {error.start}") from error
    except msgspec.ValidationError as error:
        raise named(error) from error
    except msgspec.DecodeError as error:
        raise Unreadable("", f"not JSON: {error}") from error
    except RecursionError as error:
        raise Unreadable("", "JSON nested too deeply") from error


def check_size(size: int, most: int = LARGEST_EVENT) -> None:
    """Raise TooLarge for more than `most` bytes."""
    if size > most:
        raise TooLarge("", f"at most {most} bytes are taken here, this has {size}")


def named(error: msgspec.ValidationError) -> Invalid:
    """Turn `Expected … - at `$.users[3]`` into an Invalid whose field is `users[3]`."""
    match = _AT_PATH.match(str(error))
    reason, path = (match["reason"], match["path"]) if match else (str(error), "")
    if missing := _MISSING.match(reason):
        path = f"{path}.{missing['name']}".lstrip(".")
        reason = "is missing" if "missing" in reason else "is not a member of an event"
    return Invalid(path, _in_words(reason))


def _in_words(reason: str) -> str:
    """Say `Expected `str`, got `int`` as a person would."""
    if match := _WRONG_TYPE.fullmatch(reason):
        wanted, given = (" or ".join(map(_said, each.split(" | "))) for each in match.groups())
        return f"must be {wanted}, not {given}"
    return _WRONG_NUMBER.sub(lambda found: f"must be {_COMPARED[found[1]]} {found[2]}", reason)


def _said(kind: str) -> str:
    return _SAID.get(kind, kind)


def checked(event: Event) -> Event:
    """Return `event` if it keeps the rules that no type states; else raise Invalid."""
    if (event.users, event.topic, event.everyone).count(UNSET) < 2:  # noqa: PLR2004 - of three
        raise Invalid("users", "give one of users, topic and everyone, not several")
    _check_audience(event)
    if event.data is not UNSET and event.data_base64 is not UNSET:
        raise Invalid("data_base64", "give data or data_base64, not both")
    if event.ttl is not UNSET and event.expires is not UNSET:
        raise Invalid("ttl", "give ttl or expires, not both")
    if event.source is not UNSET and " " in event.source:
        raise Invalid("source", "must be a URI reference, which has no spaces")
    for name in event.extensions or ():
        if not _EXTENSION.fullmatch(name) or name in RESERVED_EXTENSIONS:
            raise Invalid(f"extensions.{name}", "a name is 1 to 64 of a-z 0-9, and no known one")
    return event


def _check_audience(event: Event) -> None:
    if event.everyone is False:
        raise Invalid("everyone", "can only be true; leave it out otherwise")
    if event.topic is not UNSET:
        checked_topic(event.topic, "topic")
    if event.users is UNSET:
        return
    if not event.users:
        raise Invalid("users", "must name at least one user")
    if len(event.users) > MOST_USERS:
        raise TooLarge("users", f"at most {MOST_USERS} users an event; this has {len(event.users)}")
    for index, user in enumerate(event.users):
        checked_name(user, f"users[{index}]")


def completed(event: Event, *, source: str, now: float) -> Event:
    """Fill in what a producer may leave out: id, source and time; and turn ttl into expires.

    `now` (Unix seconds) is the moment of acceptance.
    """
    changes: dict[str, Any] = {}
    if event.id is UNSET:
        changes["id"] = new_id(now)
    if event.source is UNSET:
        changes["source"] = source
    if event.time is UNSET:
        changes["time"] = _moment(now)
    if event.data is not UNSET and event.datacontenttype is UNSET:
        changes["datacontenttype"] = "application/json"
    if event.ttl is not UNSET:
        changes |= {"ttl": UNSET, "expires": _moment(now + event.ttl)}
    return msgspec.structs.replace(event, **changes) if changes else event


def with_traceparent(event: Event, beside: object) -> Event:
    """Fill in the `traceparent` that came beside an event's body, in a header, if it has none.

    What is not one is ignored, as W3C's Trace Context asks (section 4.3).
    """
    if event.traceparent is not UNSET or not isinstance(beside, str):
        return event
    if not _TRACEPARENT.fullmatch(beside):
        return event
    return msgspec.structs.replace(event, traceparent=beside)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def new_id(now: float | None = None) -> str:
    """Make an id that sorts by time: UUID version 7 (RFC 9562, section 5.7)."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    number = (milliseconds << 80) | secrets.randbits(80)
    number = (number & ~(0xF << 76)) | (0x7 << 76)
    number = (number & ~(0x3 << 62)) | (0x2 << 62)
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def encode(event: Event) -> bytes:
    """Write what `decode` reads: the form in which events wait in the event queue."""
    return _encoder.encode(event)


def delivered(event: Event) -> bytes:
    """Write the event as clients get it: CloudEvents 1.0 JSON on a single line."""
    attributes = _Delivered(
        "1.0",
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
