"""CloudEvents 1.0 turned into notifier's events: structured JSON, and attributes beside the data.

The audience stands in the extension attributes `user`, `users` (separated by commas), `topic` or
`everyone`; `ttl`, `expires` and `collapsekey` are extension attributes too. Sources: CloudEvents
1.0.2, its JSON format, and its bindings to HTTP and AMQP; Knative's binding to RabbitMQ.

With the audience elsewhere, some of these names are `foreign`: attributes like any other.
"""

import base64
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

import msgspec
from msgspec import Raw

from notifier.core import events
from notifier.core.bounded_json import check_size, read_json
from notifier.core.errors import Invalid, Unreadable
from notifier.core.event_rules import RULES, meant_by
from notifier.core.events import Event

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
BINARY_REQUIRED = ("specversion", "id", "source", "type")

KNOWN = {name: name for name in Event.__struct_fields__ if name not in ("users", "extensions")}
KNOWN["collapsekey"] = KNOWN.pop("collapse_key")
KNOWN["undeliveredafter"] = KNOWN.pop("undelivered_after")
_HERE = {member: name for name, member in KNOWN.items()}
AUDIENCE = frozenset({"user", "users", "topic", "everyone"})
_DAPRS = "pubsubname"  # stands in each event of Dapr's, whose `topic` is its own
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,15})?")
_NOT_TEXT = {
    "ttl": _NUMBER,
    "undeliveredafter": _NUMBER,
    "everyone": re.compile("true|false"),
    "silent": re.compile("true|false"),
    "report": re.compile("true|false"),
}
_MOMENTS = ("time", "expires")
_MARK = b'"specversion"'
_NAME = re.compile(r"[a-z0-9]+")
_objects = msgspec.json.Decoder(dict[str, Raw])


def media_type(content_type: str) -> str:
    """Return `application/json` of `Application/JSON; charset=utf-8`."""
    return content_type.partition(";")[0].strip().lower()


def is_one(body: bytes) -> bool:
    """Whether JSON is a CloudEvent, by its member `specversion` and not by its content type."""
    if _MARK not in body:
        return False
    try:
        return "specversion" in read_json(body, _objects, events.LARGEST_BODY)
    except Invalid:
        return False  # the next reader raises the reason


def structured(body: bytes, foreign: Collection[str] = ()) -> Event:
    """Read one CloudEvent in the JSON format; raises Invalid naming the attribute."""
    members = read_json(body, _objects, events.LARGEST_EVENT + events.LARGEST_AUDIENCE)
    check_size(len(body) - len(members.get("users", b"")), events.LARGEST_EVENT)
    return _event_of(members, foreign)


def binary(
    attributes: Mapping[str, object], content_type: str, body: bytes, foreign: Collection[str] = ()
) -> Event:
    """Make an event of attributes that came beside the data, as headers or properties.

    `attributes` have their prefix (`ce-`, `cloudEvents:`) taken off, and their names are in lower
    case; raises Invalid.
    """
    check_size(len(body), events.LARGEST_EVENT)
    members = {name: _json_of(name, value) for name, value in attributes.items()}
    if content_type:
        members["datacontenttype"] = Raw(msgspec.json.encode(content_type))
    if body:
        stated = content_type or str(attributes.get("datacontenttype", ""))
        members |= _data_of(media_type(stated), body)
    return _event_of(members, foreign)


def _json_of(name: str, value: object) -> Raw:
    if name in ("data", "data_base64"):
        raise Invalid(name, "stands in the body here, not beside it")
    # Headers are all text; of the attributes that we read ourselves five are not.
    if isinstance(value, str) and (form := _NOT_TEXT.get(name)):
        if not form.fullmatch(value):
            raise Invalid(name, RULES[KNOWN[name]])
        return Raw(value.encode())
    if name in _MOMENTS and type(value) is int:
        value = _moment_of(name, value)
    if isinstance(value, bytes | bytearray):
        raise Invalid(name, "is not UTF-8, as the text of an attribute must be")
    try:
        return Raw(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(name, "must be text, a whole number, true or false, or a moment") from error


def _moment_of(name: str, milliseconds: int) -> datetime:
    # A timestamp of the AMQP binding, which SDKs write as a mere number.
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ArithmeticError, OSError, ValueError) as error:
        raise Invalid(name, RULES[name]) from error


def _checked(name: str, text: bytes) -> Raw:
    # A value spliced into JSON must be whole, or it could smuggle in other members.
    try:
        return read_json(text, events.RAW, events.LARGEST_EVENT)
    except Unreadable as error:
        raise Unreadable(name, error.reason) from error


def _data_of(media: str, body: bytes) -> dict[str, Raw]:
    if media in ("", "application/json") or media.endswith("+json"):
        return {"data": _checked("data", body)}
    if media.startswith("text/"):
        return {"data": Raw(msgspec.json.encode(_text_of(body)))}
    return {"data_base64": Raw(msgspec.json.encode(base64.b64encode(body).decode()))}


def _text_of(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Unreadable("data", f"not UTF-8 at byte {error.start}") from error


def _event_of(members: dict[str, Raw], foreign: Collection[str]) -> Event:
    # An attribute of null is one that is left out (JSON format, section 2.2).
    members = {name: raw for name, raw in members.items() if bytes(raw) != b"null"}
    for required in BINARY_REQUIRED:
        if required not in members:
            raise Invalid(required, "is missing; CloudEvents requires it")
    if bytes(members.pop("specversion")) != b'"1.0"':
        raise Invalid("specversion", 'must be "1.0"')
    if _DAPRS in members:
        foreign = {*foreign, "topic"}
    ours = {name: members.pop(name) for name in list(members) if name not in foreign}
    known = {KNOWN[name]: ours.pop(name) for name in list(ours) if name in KNOWN}
    known |= _audience_of(ours)
    if extensions := ours | members:
        _check_names(extensions)
        known["extensions"] = Raw(msgspec.json.encode(extensions))
    # Written once more and read by the one decoder, so that each rule stands in a single place.
    return events.decode(msgspec.json.encode(known), events.LARGEST_ENTRY)


def _check_names(extensions: Collection[str]) -> None:
    for name in extensions:
        if not _NAME.fullmatch(name) and (meant := meant_by(name)):
            raise Invalid(name, f"is called {_HERE.get(meant, meant)} in a CloudEvent")


def _audience_of(members: dict[str, Raw]) -> dict[str, Raw]:
    given = [name for name in ("user", "users") if name in members]
    if len(given) > 1:
        raise Invalid("users", "give user or users, not both")
    for name in given:
        try:
            text = msgspec.json.decode(members.pop(name), type=str)
        except msgspec.DecodeError as error:
            raise Invalid(name, "must be text: user ids, separated by commas") from error
        users = [text] if name == "user" else [user.strip() for user in text.split(",")]
        return {"users": Raw(msgspec.json.encode(users))}
    return {}
