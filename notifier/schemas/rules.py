"""The rules of members that types of structs do not state, and the kinds of text."""

from collections.abc import Callable, Mapping
from inspect import cleandoc
from typing import Any

import msgspec

from notifier.core import events, frames, names, positions
from notifier.core.errors import CloseCode

Schema = dict[str, Any]
PLACE = "#/components/schemas/"


def ref(name: str) -> Schema:
    """Return a reference to a schema of `notifier.schemas.schemas`."""
    return {"$ref": PLACE + name}


def rewritten(schema: Any, change: Callable[[Schema], Schema]) -> Any:  # noqa: ANN401 - JSON
    """Return JSON in which each object is what `change` makes of it, the inner ones first."""
    if isinstance(schema, list):
        return [rewritten(each, change) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return change({name: rewritten(each, change) for name, each in schema.items()})


def converted(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Write a schema of msgspec's as other readers take it."""
    return rewritten(schema, _converted)


def _converted(schema: Schema) -> Schema:
    if "default" in schema and schema["default"] is None:
        del schema["default"]
    if isinstance(pattern := schema.get("pattern"), str):
        schema["pattern"] = pattern.replace(r"\Z", "$")  # ECMA-262, which `pattern` is written in
    if isinstance(text := schema.get("description"), str):
        schema["description"] = " ".join(cleandoc(text).split())
    return ref("Base64") if schema.get("contentEncoding") == "base64" else schema


_BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_CODES = ", ".join(f"{each.value} {each.reason}" for each in CloseCode)
_TOPIC = rf"(?:user:|(?!user:)){names.PATTERN}"
_TOPICS = f"(?:{_TOPIC}(?:,{_TOPIC})*)?"
_MOMENT = {"type": "string", "format": "date-time", "examples": ["2026-01-31T09:30:00.000Z"]}


def texts() -> dict[str, Schema]:
    """Return the kinds of text that members have."""
    named = {
        "Word": (events.Word, "order.paid"),
        "Text": (events.Text, "orders/7"),
        "Reference": (events.Reference, "/orders"),
        "Absolute": (events.Absolute, "https://shop.example/order.json"),
    }
    made = {
        name: converted(msgspec.json.schema(kind)) | {"examples": [example]}
        for name, (kind, example) in named.items()
    }
    position, user = positions.PATTERN, rf"\s*{names.PATTERN}\s*"
    place = rf"(?:{position}|{positions.START.epoch})"
    return made | {
        "Attribute": _attribute(),
        "RequestId": converted(msgspec.json.schema(frames.RequestId)),
        "Name": _text(names.PATTERN, "42", "The id of a user."),
        "Topic": _text(_TOPIC, "user:42", "The name of a topic."),
        "Position": _text(position, "k3x9q2ab.17", "The place in a topic's stream."),
        "Since": _text(place, "k3x9q2ab.17", "A position, or `start`."),
        "Names": _text(rf"{user}(?:,{user})*", "42,43", "Ids of users, separated by commas."),
        "Topics": _text(_TOPICS, "user:42,news", "Topics, separated by commas."),
        "Cursor": _cursor(place),
        "Base64": {"type": "string", "contentEncoding": "base64", "pattern": _BASE64},
    }


def _attribute() -> Schema:
    kinds = converted(msgspec.json.schema(events.Attribute))["anyOf"]
    # A float without a fraction is an integer to JSON Schema.
    return {"anyOf": [each for each in kinds if each["type"] != "number"]}


def _text(pattern: str, example: str, description: str) -> Schema:
    result = {"type": "string", "description": description, "pattern": f"^{pattern}$"}
    return result | {"examples": [example]}


def _cursor(place: str) -> Schema:
    # The rule of a name ends where no letter of names follows, and `@` is one.
    none_is_dots = rf"(?!(?:user:)?\.\.?@{place}(?:,|$))"
    none_is_there_twice = r"(?!(?:.*,)?([^,]+)@[^@,]*,(?:.*,)?\1@[^@,]*(?:,|$))"
    item = f"{none_is_dots}{_TOPIC}@{place}"
    example = "user:42@k3x9q2ab.17,news@c81fz0cd.9"
    made = _text(f"{none_is_there_twice}(?:{item}(?:,{item})*)?", example, "Positions of topics.")
    return made | {"maxLength": positions.LONGEST_CURSOR}


BARE = {"type": "string"}
MEMBERS: Mapping[str, Schema] = {
    "topic": ref("Topic"),
    "user": ref("Name"),
    **dict.fromkeys(("position", "read", "received"), ref("Position")),
    **dict.fromkeys(("time", "expires"), _MOMENT),
    "since": ref("Since"),
}
"""The rules of members that are text, in all structs."""


_IS_GIVEN = {"not": {"type": "null"}}


def _given(member: str) -> Schema:
    """Require a member; one of null counts as left out."""
    return {"required": [member], "properties": {member: _IS_GIVEN}}


def _not_both(*members: str) -> Schema:
    return {"not": {"required": list(members)}}


def _not_both_given(*members: str) -> Schema:
    """Forbid two members together; those of null count as left out."""
    return {"not": {"required": list(members), "properties": dict.fromkeys(members, _IS_GIVEN)}}


DATA = [_not_both("data", "data_base64"), _not_both("ttl", "expires")]
_REPORTED: Schema = {"required": ["report"], "properties": {"report": {"const": True}}}
_AWAITED = [
    {
        "if": {"anyOf": [{"required": ["undelivered_after"]}, _REPORTED]},
        "then": {
            "not": {"anyOf": [{"required": ["topic"]}, {"required": ["everyone"]}]},
            "properties": {"users": {"maxItems": events.MOST_AWAITED}},
        },
    },
]
_USERS = {"items": ref("Name"), "minItems": 1, "maxItems": events.MOST_USERS}
_EXTENSIONS = {
    "propertyNames": {
        "pattern": f"^{events.EXTENSION}$",
        "not": {"enum": sorted(events.RESERVED_EXTENSIONS)},
    },
    "additionalProperties": ref("Attribute"),
}
RULES: Mapping[str, Schema] = {
    "Event": {
        "oneOf": [{"required": [each]} for each in ("users", "topic", "everyone")],
        "allOf": [*DATA, *_AWAITED],
        "examples": [
            {
                "users": ["42"],
                "type": "order.paid",
                "id": "order-7-paid",
                "data": {"order": 7},
            }
        ],
    },
    "Event.users": _USERS,
    "Event.everyone": {"const": True},
    "Event.extensions": _EXTENSIONS,
    "CloudEvent": {
        "required": ["specversion", "id", "source", "type", "time"],
        "additionalProperties": ref("Attribute"),
        "description": "CloudEvents 1.0 in JSON, with extension attributes beside the others.",
    },
    "CloudEvent.specversion": {"const": "1.0"},
    "CloudEvent.traceparent": {},
    "Hello.topics": {"propertyNames": ref("Topic")},
    "Gap.reason": {"enum": ["expired", "restarted", "lost"]},
    "Bye.code": {"description": _CODES},
    "Mark": {
        "anyOf": [
            {"required": [member], "properties": {member: rule}}
            for member, rule in (
                *(("read", {"type": "string"}), ("received", {"type": "string"})),
                ("read_only", {"minItems": 1}),
            )
        ]
    },
    "Mark.read_only": {"items": ref("Position")},
    "Marks.read_only": {"items": ref("Position")},
    "Marks.unread": {"minimum": 0},
    "Presence.count": {"minimum": 0},
    "Presence.members": {"items": ref("Name")},
    "Presence.joined": {"items": ref("Name")},
    "Presence.left": {"items": ref("Name")},
    "Publish": {
        "anyOf": [
            {"properties": {"event": {"required": ["id"]}}},
            {"required": ["ephemeral"], "properties": {"ephemeral": {"const": True}}},
        ]
    },
    "Publish.event": ref("ClientEvent"),
    "Seen.topics": {"propertyNames": ref("Topic")},
    "Seen.since": _MOMENT,
}
"""The rules of a struct, or of one of its members, that its types do not state."""

CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "order-7-paid",
    "source": "/orders",
    "type": "order.paid",
    "user": "42",
    "data": {"order": 7},
}
"""The example of a CloudEvent of a producer."""

POSTED_RULES: Schema = {
    "oneOf": [_given(each) for each in ("user", "users", "topic", "everyone")],
    "allOf": [
        _not_both_given("data", "data_base64"),
        _not_both_given("ttl", "expires"),
        _not_both_given("undeliveredafter", "topic"),
        _not_both_given("undeliveredafter", "everyone"),
        {"if": _REPORTED, "then": {"not": {"anyOf": [_given("topic"), _given("everyone")]}}},
    ],
    "additionalProperties": {"anyOf": [ref("Attribute"), {"type": "null"}]},
    "propertyNames": {
        "pattern": f"^(?:{events.EXTENSION}|data_base64)$",
        "not": {"const": "datacontentencoding"},
    },
    "examples": [CLOUD_EVENT],
}
"""The rules of a CloudEvent of a producer that its attributes do not state."""
