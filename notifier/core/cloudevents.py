"""CloudEvents 1.0 turned into notifier's events: structured JSON, and attributes beside the data.

The audience stands in the extension attributes `user`, `users` (separated by commas), `topic` or
`everyone`; `ttl`, `expires` and `collapsekey` are extension attributes too. Sources: CloudEvents
1.0.2, its JSON format, HTTP protocol binding and AMQP protocol binding.
"""

import base64
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from notifier.core import events
from notifier.core.errors import Invalid, Unreadable
from notifier.core.events import Event

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
BINARY_REQUIRED = ("specversion", "id", "source", "type")

_KNOWN = {name: name for name in Event.__struct_fields__ if name not in ("users", "extensions")}
_KNOWN["collapsekey"] = _KNOWN.pop("collapse_key")
_objects = msgspec.json.Decoder(dict[str, Raw])


def media_type(content_type: str) -> str:
    """Return `application/json` of `Application/JSON; charset=utf-8`."""
    return content_type.partition(";")[0].strip().lower()


def structured(body: bytes) -> Event:
    """Read one CloudEvent in the JSON format; raises Invalid naming the attribute."""
    members = events.read_json(body, _objects, events.LARGEST_EVENT + events.LARGEST_AUDIENCE)
    events.check_size(len(body) - len(members.get("users", b"")))
    return _event_of(members)


def binary(attributes: Mapping[str, object], content_type: str, body: bytes) -> Event:
    """Make an event of attributes that came beside the data, as headers or properties.

    `attributes` have their prefix (`ce-`, `cloudEvents:`) taken off; raises Invalid.
    """
    events.check_size(len(body))
    members = {name.lower(): _json_of(name.lower(), value) for name, value in attributes.items()}
    if content_type:
        members["datacontenttype"] = Raw(msgspec.json.encode(content_type))
    if body:
        members |= _data_of(media_type(content_type), body)
    return _event_of(members)


def _json_of(name: str, value: object) -> Raw:
    # Headers are all text; of the attributes that we read ourselves two are not.
    if isinstance(value, str) and name in ("ttl", "everyone"):
        return _checked(name, value.encode())
    try:
        return Raw(msgspec.json.encode(value))
    except TypeError as error:
        raise Invalid(name, "has a type that CloudEvents attributes do not have") from error


def _checked(name: str, text: bytes) -> Raw:
    # What is spliced into JSON must be one whole value, or it could smuggle in other members.
    try:
        return events.read_json(text, events.RAW)
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


def _event_of(members: dict[str, Raw]) -> Event:
    # An attribute of null is one that is left out (JSON format, section 2.2).
    members = {name: raw for name, raw in members.items() if bytes(raw) != b"null"}
    for required in BINARY_REQUIRED:
        if required not in members:
            raise Invalid(required, "is missing; CloudEvents requires it")
    if bytes(members.pop("specversion")) != b'"1.0"':
        raise Invalid("specversion", "must be 1.0")
    known = {_KNOWN[name]: members.pop(name) for name in list(members) if name in _KNOWN}
    known |= _audience_of(members)
    if members:
        known["extensions"] = Raw(msgspec.json.encode(members))
    # Written once more and read by the one decoder, so that each rule stands in a single place.
    return events.decode(msgspec.json.encode(known), events.LARGEST_ENTRY)


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
