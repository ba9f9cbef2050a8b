"""The producer API as OpenAPI describes it."""

from typing import Any

from notifier.core.control import Act
from notifier.core.fate import Fate
from notifier.openapi import parameter, problems

API = (
    "Takes events, and answers once the event queue has confirmed them; tells which users are "
    "connected and how far an event came, ends their connections and revokes their tokens. "
    "docs/protocol.md describes the members of an event, CloudEvents, web hooks, batches, orders "
    "about users, presence, and the fate of an event."
)
SECURITY = {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}}
_TEXT = {"type": "string"}
_EVENT = {
    "type": "object",
    "description": "An event for exactly one audience: `users`, `topic` or `everyone`.",
    "required": ["type"],
    "additionalProperties": False,
    "properties": {
        "users": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 10_000},
        "topic": _TEXT,
        "everyone": {"const": True},
        "type": {"type": "string", "maxLength": 256},
        "data": {},
        "data_base64": _TEXT,
        "id": {"type": "string", "maxLength": 256, "description": "Retry with the same id."},
        "source": _TEXT,
        "time": {"type": "string", "format": "date-time"},
        "ttl": {"type": "number", "description": "Seconds."},
        "expires": {"type": "string", "format": "date-time"},
        "collapse_key": _TEXT,
        "silent": {"type": "boolean", "description": "Never counts as unread."},
        "subject": _TEXT,
        "datacontenttype": _TEXT,
        "dataschema": _TEXT,
        "traceparent": _TEXT,
        "extensions": {"type": "object"},
    },
}
_BATCH = {"type": "array", "items": _EVENT, "minItems": 1, "maxItems": 1_000}
_CLOUD_EVENT = {"type": "object", "required": ["specversion", "id", "source", "type"]}
_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"oneOf": [_EVENT, _BATCH]}},
        "application/cloudevents+json": {"schema": _CLOUD_EVENT},
        "application/cloudevents-batch+json": {"schema": {"type": "array", "items": _CLOUD_EVENT}},
    },
}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_ID = {"type": "object", "required": ["id"], "properties": {"id": _TEXT}}
_RESULTS = {
    "type": "object",
    "required": ["results"],
    "properties": {"results": {"type": "array", "items": {"type": "object"}}},
}
POST_EVENTS: dict[str, Any] = {
    "status_code": 202,
    "responses": {
        202: _answer("All is confirmed", {"oneOf": [_ID, _RESULTS]}),
        207: _answer("Some items of a batch are confirmed", _RESULTS),
        **problems(
            {
                400: "The body cannot be read",
                401: "The API key is missing or unknown",
                403: "The API key has not the scope, or is not bound to the audience",
                413: "The body is too large",
                415: "The content type or coding is not taken",
                422: "A member is missing, malformed or unknown",
                503: "The event queue did not confirm; repeat with the same id after Retry-After",
            }
        ),
    },
    "openapi_extra": {
        "parameters": [
            parameter("users", "query", "The audience of a web hook: users, by commas."),
            parameter("topic", "query", "The audience of a web hook: a topic."),
            parameter("everyone", "query", "The audience of a web hook: `true` for everyone."),
            parameter("type", "query", "The type of a web hook's event."),
        ],
        "requestBody": _BODY,
        "security": [{"key": []}],
    },
}


def _order(meaning: str) -> dict[str, Any]:
    return {
        "status_code": 202,
        "responses": {
            202: _answer(f"{meaning}; every gateway does it within a second or two", _ORDER),
            **problems(
                {
                    401: "The API key is missing or unknown",
                    403: "The API key has not the scope `control`, or is not bound to the user",
                    422: "The user's id is malformed",
                    503: "Redis did not take the order; repeat it after Retry-After",
                }
            ),
        },
        "openapi_extra": {"security": [{"key": []}]},
    }


_ORDER = {"type": "object", "properties": {"user": _TEXT, "act": _TEXT, "time": _TEXT}}
ORDERS: dict[Act, dict[str, Any]] = {
    Act.DISCONNECT: _order("The user's connections are closed"),
    Act.REVOKE: _order("The user's tokens are refused"),
}

_PRESENCE_REFUSALS = problems(
    {
        401: "The API key is missing or unknown",
        403: "The API key has not the scope `read`, or is not bound to the user",
        422: "A user's id is malformed",
        503: "Redis does not answer; ask again after Retry-After",
    }
)
_COUNT = {"type": "integer", "minimum": 0}
_COMPLETE = {"type": "boolean", "description": "Whether all gateways have answered in time."}
_CONNECTION = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("gateway", "session", "transport", "since"), _TEXT),
        "topics": {"type": "object", "additionalProperties": _TEXT},
    },
}
_OF_USER = {
    "type": "object",
    "properties": {
        "user": _TEXT,
        "count": _COUNT,
        "connections": {"type": "array", "items": _CONNECTION},
        "complete": _COMPLETE,
    },
}
_OF_USERS = {
    "type": "object",
    "properties": {
        "users": {"type": "object", "additionalProperties": _COUNT},
        "complete": _COMPLETE,
    },
}
_USERS = {
    "type": "object",
    "required": ["users"],
    "properties": {"users": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1_000}},
}
PRESENCE_OF_USER: dict[str, Any] = {
    "responses": {200: _answer("The user's connections", _OF_USER), **_PRESENCE_REFUSALS},
    "openapi_extra": {"security": [{"key": []}]},
}
PRESENCE: dict[str, Any] = {
    "responses": {
        200: _answer("How many connections each user has", _OF_USERS),
        **_PRESENCE_REFUSALS,
        **problems({400: "The body is not JSON", 413: "The body is too large"}),
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _USERS}}},
        "security": [{"key": []}],
    },
}

_MOMENT = {"type": "string", "format": "date-time"}
_FATE = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("user", "event", "because"), _TEXT),
        "fate": {"enum": [*Fate]},
        "topics": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("topic", "position"), _TEXT),
                    "fate": {"enum": [*Fate]},
                    **dict.fromkeys(("accepted", "expires", "published"), _MOMENT),
                },
            },
        },
        "connections": {"type": "array", "items": _CONNECTION},
        "complete": _COMPLETE,
    },
}
FATE: dict[str, Any] = {
    "responses": {200: _answer("How far the event came", _FATE), **_PRESENCE_REFUSALS},
    "openapi_extra": {
        "parameters": [
            parameter("source", "query", "The event's source, to know of it beyond history too."),
            parameter("topic", "query", "One more topic to look in."),
        ],
        "security": [{"key": []}],
    },
}
