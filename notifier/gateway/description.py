"""The gateway's endpoints as OpenAPI describes them."""

from typing import Any

from notifier.core.frames import MOST_READ_ONLY
from notifier.gateway.history import LARGEST_LIMIT, USUAL_LIMIT
from notifier.openapi import parameter, problems

GATEWAY = (
    "Delivers events to their users. A client follows topics by a WebSocket, server-sent events or "
    "long-poll, all with the same frames and cursors: docs/protocol.md describes them."
)
SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "notifier_token"},
}
_TOPICS = parameter("topics", "query", "Topics to follow, separated by commas; at most 100.")
_SINCE = parameter("since", "query", "A cursor: resume each topic behind its position.")
_LAST = parameter("Last-Event-ID", "header", "A cursor that goes before `since`.")
_LIMIT = parameter(
    "limit",
    "query",
    "The most events of each topic.",
    type="integer",
    minimum=1,
    maximum=LARGEST_LIMIT,
    default=USUAL_LIMIT,
)
_ORDER = parameter(
    "order",
    "query",
    "Which come first; newest lists one topic, the personal one unless `topics` names another.",
    enum=["oldest", "newest"],
    default="oldest",
)
_BEFORE = parameter("before", "query", "A position, with order=newest: list those before it.")
MARKED = parameter(
    "marks",
    "query",
    "true: tell the user's marks, and how much is unread. In a long-poll, afterwards the `marks` "
    "of the last answer.",
)
_REFUSALS = problems(
    {
        400: "A parameter is unknown or malformed",
        401: "The token is missing, expired or not valid",
        403: "The page's origin is not allowed",
        429: "The user has too many connections",
        503: "The gateway is draining, full, or without its backends; retry after Retry-After",
    }
)
_FRAMES = {
    "type": "object",
    "required": ["frames", "cursor"],
    "properties": {
        "frames": {"type": "array", "items": {"type": "object", "required": ["type"]}},
        "cursor": {"type": "string", "description": "Give it as `since` with the next request."},
    },
}
PAGE = {"application/json": {"schema": _FRAMES}}


def follows(does: str, answer: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    """Describe an endpoint that answers with the frames of topics, in the media types given."""
    return {
        "description": does,
        "responses": {200: {"description": "Frames", "content": answer}, **_REFUSALS},
        "openapi_extra": {
            "parameters": [_TOPICS, _SINCE, _LAST, *parameters],
            "security": [{"token": []}, {"cookie": []}],
        },
    }


WEBSOCKET: dict[str, Any] = {
    "status_code": 101,
    "responses": {
        101: {"description": "The WebSocket is open; its text frames are JSON"},
        **problems(
            {
                426: "The request does not ask for the upgrade, or a proxy dropped that",
                503: "The gateway is draining, full, or without its backends",
            }
        ),
    },
    "openapi_extra": {
        "parameters": [_TOPICS, _SINCE, MARKED],
        "security": [{"token": []}, {"cookie": []}, {}],
    },
}
"""What `add_api_route` takes of `GET /v1/ws`."""
HISTORY = follows(
    "Read the events that topics still hold, without following them.",
    *(PAGE, _LIMIT, _ORDER, _BEFORE),
)
"""What `add_api_route` takes of `GET /v1/history`."""
_TEXT = {"type": "string"}
_MARK = {
    "type": "object",
    "properties": {
        "topic": {**_TEXT, "description": "The personal topic if left out."},
        "read": {**_TEXT, "description": "A position: all up to it is read."},
        "received": {**_TEXT, "description": "A position: all up to it is received."},
        "read_only": {"type": "array", "items": _TEXT, "maxItems": MOST_READ_ONLY},
    },
}
_TOLD_MARKS = {
    "type": "object",
    "required": ["type", "topic", "unread"],
    "properties": {
        "type": {"const": "marks"},
        "topic": _TEXT,
        "read": _TEXT,
        "read_only": {"type": "array", "items": _TEXT},
        "unread": {"type": "integer"},
        "more": {"type": "boolean"},
    },
}
MARKS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The topic's marks",
            "content": {"application/json": {"schema": _TOLD_MARKS}},
        },
        **_REFUSALS,
        **problems({413: "The body is too large"}),
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _MARK}}},
        "security": [{"token": []}, {"cookie": []}],
    },
}
"""What `add_api_route` takes of `POST /v1/marks`."""
_PUBLISH = {
    "type": "object",
    "required": ["topic", "event"],
    "properties": {
        "topic": {**_TEXT, "description": "Neither a personal topic nor `everyone`."},
        "event": {
            "type": "object",
            "required": ["type"],
            "description": "As producers post it, without audience, source, time and traceparent; "
            "`id` is required unless it is ephemeral.",
        },
        "ephemeral": {"type": "boolean", "default": False},
    },
}
_PUBLISHED = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"const": "published"}, "position": _TEXT},
}
PUBLISH: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The event is in the topic's stream, at this position",
            "content": {"application/json": {"schema": _PUBLISHED}},
        },
        **_REFUSALS,
        **problems(
            {
                403: "The token's claim `publish` does not allow the topic",
                413: "The body is too large",
                429: "The user posts too many events, or has too many connections",
            }
        ),
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _PUBLISH}}},
        "security": [{"token": []}, {"cookie": []}],
    },
}
"""What `add_api_route` takes of `POST /v1/publish`."""
