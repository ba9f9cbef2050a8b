"""JSON Schemas (2020-12) of frames, events and answers, made from the structs that read and write.

A struct states most rules by its types. `notifier.schemas.rules` has the others, such as those of
names, by the name that a member has everywhere. So a new frame needs nothing here: add it to the
union of its direction in `notifier.core.frames`.
"""

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Literal, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from notifier.core import cloudevents, events, frames, presence, reports
from notifier.schemas.rules import (
    BARE,
    CLOUD_EVENT,
    DATA,
    MEMBERS,
    PLACE,
    POSTED_RULES,
    RULES,
    Schema,
    converted,
    ref,
    rewritten,
    texts,
)

__all__ = ["CLOUD_EVENT", "PLACE", "Schema", "names_in", "ref", "referenced", "schemas"]

_OF_FRAMES = ("type", "id")
_TEMPLATE = PLACE + "{name}"


class EventFrame(Struct, tag_field="type", tag="event", kw_only=True):
    """An event that is kept, at its position in the topic.

    With `ack`, the client is to mark it received.
    """

    topic: str
    position: str
    ack: Literal[True] | UnsetType = UNSET
    event: events.Delivered


class Ephemeral(Struct, tag_field="type", tag=frames.EPHEMERAL):
    """An event for those who follow the topic at this moment."""

    topic: str
    event: events.Delivered


class Listed(EventFrame, tag_field="type", tag="event"):
    """An event in a list, the newest first; `read` says whether the user has read it."""

    read: bool


_CLIENT = get_args(frames.ClientFrame)
_SERVER = (
    *(each for each in get_args(frames.ServerFrame) if each is not frames.Relayed),
    *(EventFrame, Ephemeral),
)
_NAMES = {events.Delivered.__name__: "CloudEvent", frames.Error.__name__: "ErrorFrame"}


@cache
def schemas() -> dict[str, Schema]:
    """Return every schema by its name; all references are below `PLACE`."""
    structs = (*_CLIENT, *_SERVER, Listed, events.Event, presence.Seen, reports.Reported)
    _, found = msgspec.json.schema_components(structs, ref_template=_TEMPLATE)
    renamed: dict[str, Schema] = {
        _NAMES.get(name, name): rewritten(converted(each), _renamed) for name, each in found.items()
    }
    kinds = texts()
    share = partial(_shared, kinds)
    ruled = {name: rewritten(_ruled(name, each), share) for name, each in renamed.items()}
    made = ruled | {
        "MarkBody": _bare(ruled["Mark"]),
        "PublishBody": _bare(ruled["Publish"]),
        "ClientEvent": _client_event(ruled["Event"]),
        "PostedCloudEvent": _posted(ruled["Event"]),
        "ClientFrame": _either(_CLIENT),
        "ServerFrame": _either(_SERVER),
    }
    return dict(sorted((made | kinds).items()))


def referenced(document: object) -> dict[str, Schema]:
    """Return the schemas that a document refers to, and those that they refer to in turn."""
    found: dict[str, Schema] = {}
    waiting = list(names_in(document))
    while waiting:
        name = waiting.pop()
        if name not in found and name in schemas():
            found[name] = schemas()[name]
            waiting += names_in(found[name])
    return dict(sorted(found.items()))


def names_in(document: object) -> Iterator[str]:
    """Yield the name of each schema that a document refers to."""
    if isinstance(document, dict):
        target = document.get("$ref")
        if isinstance(target, str) and target.startswith(PLACE):
            yield target.removeprefix(PLACE)
    inner = document.values() if isinstance(document, dict) else document
    if isinstance(document, dict | list | tuple):
        for each in inner:  # type: ignore[attr-defined] # of one of these kinds
            yield from names_in(each)


def _either(structs: tuple[type[Struct], ...]) -> Schema:
    refs = {
        str(each.__struct_config__.tag): ref(_NAMES.get(each.__name__, each.__name__))
        for each in structs
    }
    mapping = {tag: each["$ref"] for tag, each in refs.items()}
    return {
        "oneOf": list(refs.values()),
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }


def _renamed(schema: Schema) -> Schema:
    target = schema.get("$ref")
    if isinstance(target, str):
        name = target.removeprefix(PLACE)
        return ref(_NAMES.get(name, name))
    if schema.get("title") in _NAMES:
        schema["title"] = _NAMES[schema["title"]]
    return schema


def _ruled(name: str, schema: Schema) -> Schema:
    """Add the rules that types do not state."""
    members = {
        member: _member(f"{name}.{member}", member, typed)
        for member, typed in schema.get("properties", {}).items()
    }
    return {**schema, "properties": members, **RULES.get(name, {})}


def _member(path: str, member: str, typed: Schema) -> Schema:
    if path in RULES:
        return RULES[path] if "$ref" in RULES[path] else {**typed, **RULES[path]}
    if member not in MEMBERS:
        return typed
    rule = MEMBERS[member]
    if typed in (BARE, {**BARE, "format": "date-time"}):
        return rule
    either = [rule if each == BARE else each for each in typed.get("anyOf", ())]
    return {**typed, "anyOf": either} if either else typed


def _shared(kinds: Mapping[str, Schema], schema: Schema) -> Schema:
    """Return a reference in place of a kind of text."""
    for name, text in kinds.items():
        if schema == {key: each for key, each in text.items() if key != "examples"}:
            return ref(name)
    return schema


def _bare(frame: Schema) -> Schema:
    """Return a client's frame as a body, which needs neither a type nor an id."""
    members = {name: each for name, each in frame["properties"].items() if name not in _OF_FRAMES}
    required = [each for each in frame["required"] if each not in _OF_FRAMES]
    title = f"{frame['title']}Body"
    return {**frame, "title": title, "properties": members, "required": required}


def _client_event(event: Schema) -> Schema:
    """Return the event that a client publishes: the gateway decides on the other members."""
    members = event["properties"]
    return {
        "title": "ClientEvent",
        "description": "An event as producers post it, without those members that the gateway sets."
        " `id` is required, unless the event is ephemeral.",
        "type": "object",
        "properties": {name: members[name] for name in members if name in events.CLIENT_MEMBERS},
        "required": ["type"],
        "additionalProperties": False,
        "allOf": DATA,
        "examples": [{"type": "chat.message", "id": "5f0c", "data": {"text": "hi"}}],
    }


def _posted(event: Schema) -> Schema:
    """Return a CloudEvent of a producer; an attribute of null is one that is left out."""
    required, optional = _posted_attributes(event)
    return {
        "title": "PostedCloudEvent",
        "description": "CloudEvents 1.0 in JSON, with the audience in one attribute: `user`, "
        "`users`, `topic` or `everyone`. Other attributes are extensions.",
        "type": "object",
        "properties": {"specversion": {"const": "1.0"}, **required, **optional},
        "required": ["specversion", *required],
        **POSTED_RULES,
    }


def _posted_attributes(event: Schema) -> tuple[dict[str, Schema], dict[str, Schema]]:
    own = {name: event["properties"][name] for name in cloudevents.KNOWN.values()}
    named = {name: own[member] for name, member in cloudevents.KNOWN.items()}
    required = {name: named.pop(name) for name in ("id", "source", "type")}
    optional = {**named, "user": ref("Name"), "users": ref("Names")}
    nullable = {
        name: {"anyOf": [each, {"type": "null"}]} if each else {} for name, each in optional.items()
    }
    return required, nullable
