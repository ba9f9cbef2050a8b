"""The gateway's endpoints as OpenAPI describes them."""

from typing import Any

from starlette.responses import Response

from notifier.gateway.history import LARGEST_LIMIT, USUAL_LIMIT
from notifier.openapi import JSON, answer, body, content, parameter, problems
from notifier.schemas import ref

GATEWAY = (
    "Delivers events to their users. A client follows topics by a WebSocket, server-sent events or "
    "long-poll, all with the same frames and cursors: docs/protocol.md describes them."
)
SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "notifier_token"},
}
_TOPICS = parameter(
    "topics", "query", "Topics to follow, separated by commas; at most 100.", **ref("Topics")
)
_SINCE = parameter(
    "since", "query", "A cursor: resume each topic behind its position.", **ref("Cursor")
)
_LAST = parameter("Last-Event-ID", "header", "A cursor that goes before `since`.", **ref("Cursor"))
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
_BEFORE = parameter(
    "before", "query", "A position, with order=newest: list those before it.", **ref("Position")
)
MARKED = parameter(
    "marks", "query", "true: tell the user's marks, and how much is unread.", const="true"
)
KNOWN_MARKS = parameter(
    "marks",
    "query",
    "true: tell the user's marks, and how much is unread; afterwards the `marks` of the last "
    "answer.",
    pattern="^(?:true|[0-9a-f]{8}(?:,[0-9a-f]{8}){0,101})$",
)
PRESENCE = parameter(
    "presence",
    "query",
    "true: be a member of the topics that the token's claim `presence` names, and be told of the "
    "other members.",
    const="true",
)
_REFUSALS = problems(
    {
        400: "A parameter is unknown or malformed",
        401: "The token is missing, expired or not valid",
        403: "The token does not allow a topic, or the page's origin is not allowed",
        503: "The gateway is draining, full, or without its backends; retry after Retry-After",
    }
)
_BODY_REFUSALS = problems(
    {
        413: "The body is too large",
        415: "The body is compressed, which is not taken here",
        429: "The user posts too fast; retry after Retry-After",
    }
)
_SECURITY: list[dict[str, list[str]]] = [{"token": []}, {"cookie": []}]
_EVENT = {
    "type": "event",
    "topic": "user:42",
    "position": "k3x9q2ab.18",
    "event": {
        "specversion": "1.0",
        "id": "order-7-paid",
        "source": "/orders",
        "type": "order.paid",
        "time": "2026-01-31T09:30:00.000Z",
        "datacontenttype": "application/json",
        "data": {"order": 7},
    },
}


def _page(items: dict[str, Any], **members: dict[str, Any]) -> dict[str, Any]:
    listed = {"frames": {"type": "array", "items": items}, **members}
    return {"type": "object", "required": ["frames"], "properties": listed}


_NEXT = {**ref("Cursor"), "description": "Give it as `since` with the next request."}
_MORE = {"type": "boolean", "description": "Whether to ask again at once."}
_READ = _page({"anyOf": [ref("EventFrame"), ref("Gap")]}, cursor=_NEXT, more=_MORE)
_LISTED = _page(
    {"anyOf": [ref("Listed"), ref("Gap")]},
    before={"anyOf": [ref("Position"), {"type": "null"}]},
    more=_MORE,
)
_POLLED = _page(
    ref("ServerFrame"),
    cursor=_NEXT,
    marks={"type": "string", "description": "Give it as `marks` with the next request."},
)
PAGE = {
    JSON: content(
        _POLLED,
        event={"frames": [_EVENT], "cursor": "user:42@k3x9q2ab.18,everyone@c81fz0cd.4"},
        nothing={"frames": [], "cursor": "user:42@k3x9q2ab.17,everyone@c81fz0cd.4"},
    )
}
_HELD = {
    JSON: content(
        {"anyOf": [_READ, _LISTED]},
        oldest_first={"frames": [_EVENT], "cursor": "user:42@k3x9q2ab.18", "more": False},
        newest_first={
            "frames": [{**_EVENT, "read": False}],
            "before": "k3x9q2ab.18",
            "more": False,
        },
    )
}


def follows(does: str, answered: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    """Describe the endpoint of a transport, by the media types of its answer."""
    described = _answers(does, answered, *parameters)
    described["responses"] |= problems({429: "The user has too many connections"})
    return described


def _answers(does: str, answered: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": does,
        "response_class": Response,  # of no media type beside those that are described
        "responses": {200: {"description": "Frames", "content": answered}, **_REFUSALS},
        "openapi_extra": {
            "parameters": [_TOPICS, _SINCE, _LAST, *parameters],
            "security": _SECURITY,
        },
    }


WEBSOCKET: dict[str, Any] = {
    "status_code": 101,
    "response_class": Response,
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
        "parameters": [_TOPICS, _SINCE, MARKED, PRESENCE],
        "security": [*_SECURITY, {}],
    },
}
"""Arguments of `add_api_route` for `GET /v1/ws`."""
HISTORY = _answers(
    "Read the events that topics still hold, without following them.",
    *(_HELD, _LIMIT, _ORDER, _BEFORE),
)
"""Arguments of `add_api_route` for `GET /v1/history`."""


def _posted(answered: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "responses": {200: answered, **_REFUSALS, **_BODY_REFUSALS},
        "openapi_extra": {"requestBody": asked, "security": _SECURITY},
    }


MARKS = _posted(
    answer(
        "How far the topic is read, and how much of it is unread",
        ref("Marks"),
        marks={"type": "marks", "topic": "user:42", "read": "k3x9q2ab.15", "unread": 2},
    ),
    body(ref("MarkBody"), read={"read": "k3x9q2ab.15"}, single={"read_only": ["k3x9q2ab.17"]}),
)
"""Arguments of `add_api_route` for `POST /v1/marks`."""
_CHAT = {"type": "chat.message", "id": "5f0c", "data": {"text": "hi"}}
PUBLISH = _posted(
    answer(
        "The event is in the topic's stream, at this position",
        ref("Published"),
        published={"type": "published", "position": "p0q7aa12.10"},
    ),
    body(
        ref("PublishBody"),
        event={"topic": "room:7", "event": _CHAT},
        ephemeral={"topic": "room:7", "event": {"type": "typing"}, "ephemeral": True},
    ),
)
"""Arguments of `add_api_route` for `POST /v1/publish`."""
