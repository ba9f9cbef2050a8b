"""The producer API as OpenAPI describes it."""

from typing import Any

from starlette.responses import Response

from notifier.core import cloudevents, events
from notifier.core.control import Act
from notifier.core.event_rules import LONGEST_TEXT
from notifier.core.fate import Fate
from notifier.core.presence import MOST_USERS
from notifier.openapi import JSON, answer, body, content, members, parameter, problems
from notifier.schemas import CLOUD_EVENT, ref

API = (
    "Takes events, and answers once the event queue has confirmed them; tells which users are "
    "connected and how far an event came, ends their connections and revokes their tokens. "
    "docs/protocol.md describes the members of an event, CloudEvents, web hooks, batches, orders "
    "about users, presence, and the fate of an event."
)
SECURITY = {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}}
_NEEDS_KEY: list[dict[str, list[str]]] = [{"key": []}]
_OWN = {"users": ["42"], "type": "order.paid", "id": "order-7-paid", "data": {"order": 7}}
_EITHER = {"anyOf": [ref("Event"), ref("PostedCloudEvent")]}


def _batch_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": events.MOST_IN_BATCH}


_BODY = {
    "required": True,
    "description": "One event, or a batch. Beside an audience in the query, the body is a "
    "CloudEvent that names none, or any JSON as the data of an event.",
    "content": {
        JSON: content({"anyOf": [*_EITHER["anyOf"], _batch_of(_EITHER)]}, event=_OWN, batch=[_OWN]),
        cloudevents.STRUCTURED: content(ref("PostedCloudEvent"), event=CLOUD_EVENT),
        cloudevents.BATCHED: content(_batch_of(ref("PostedCloudEvent")), batch=[CLOUD_EVENT]),
    },
}
_ID = members(id=ref("Word"))
_ACCEPTED = members(status={"const": 202}, id=ref("Word"))
_RESULTS = members(
    results={
        "type": "array",
        "description": "One for each event of the batch, in their order.",
        "items": {"anyOf": [_ACCEPTED, ref("Problem")]},
    }
)
_PROBLEM = {
    "type": "about:blank",
    "title": "Unprocessable Content",
    "status": 422,
    "code": "invalid",
    "detail": "type: is missing",
    "field": "type",
}
_MIXED = {"results": [{"status": 202, "id": "order-7-paid"}, _PROBLEM]}


def _refusals_of_events() -> dict[int | str, dict[str, Any]]:
    """Describe the refusals; a batch whose items all end alike has their status and results."""
    described = problems(
        {
            400: "The body cannot be read",
            401: "The API key is missing or unknown",
            403: "The API key has not the scope, or is not bound to the audience",
            413: "The body is too large",
            415: "The content type or coding is not taken",
            422: "A member or parameter is missing, malformed or unknown",
            503: "The event queue did not confirm; repeat with the same id after Retry-After",
        }
    )
    for status in (400, 403, 413, 422, 503):
        described[status]["content"][JSON] = content(_RESULTS)
    return described


_QUERIED = "The audience of a web hook: "
POST_EVENTS: dict[str, Any] = {
    "status_code": 202,
    "responses": {
        202: answer(
            "All is confirmed",
            {"oneOf": [_ID, _RESULTS]},
            event={"id": "order-7-paid"},
            batch={"results": [{"status": 202, "id": "order-7-paid"}]},
        ),
        207: answer("Some items of a batch are confirmed", _RESULTS, mixed=_MIXED),
        **_refusals_of_events(),
    },
    "openapi_extra": {
        "parameters": [
            parameter("users", "query", f"{_QUERIED}users, by commas."),
            parameter("topic", "query", f"{_QUERIED}a topic.", **ref("Topic")),
            parameter("everyone", "query", f"{_QUERIED}`true` for everyone.", const="true"),
            parameter("type", "query", "The type of a web hook's event.", **ref("Word")),
        ],
        "requestBody": _BODY,
        "security": _NEEDS_KEY,
    },
}
_HOST = {"description": "The sender that may post", "schema": {"type": "string"}}
VALIDATE_WEBHOOK: dict[str, Any] = {
    "response_class": Response,  # without a body
    "responses": {
        200: {
            "description": "The sender may post; each event needs an API key",
            "headers": {"WebHook-Allowed-Origin": _HOST},
        },
        **problems({422: "The header is malformed"}),
    },
    "openapi_extra": {
        "parameters": [
            parameter(
                "WebHook-Request-Origin",
                "header",
                "The host of the sender (CloudEvents' web hooks 1.0.2, section 4).",
                pattern="^[!-~]{1,255}$",
            )
        ]
    },
}
_MOMENT = {"type": "string", "format": "date-time"}
_ORDER = members(user=ref("Name"), act={"enum": [each.value for each in Act]}, time=_MOMENT)


def _order(act: Act, meaning: str) -> dict[str, Any]:
    given = {"user": "42", "act": act.value, "time": "2026-01-31T09:30:00.000Z"}
    does = f"{meaning}; every gateway does it within a second or two"
    return {
        "status_code": 202,
        "responses": {
            202: answer(does, _ORDER, order=given),
            **problems(
                {
                    401: "The API key is missing or unknown",
                    403: "The API key has not the scope `control`, or is not bound to the user",
                    422: "The user's id is malformed",
                    503: "Redis did not take the order; repeat it after Retry-After",
                }
            ),
        },
        "openapi_extra": {"security": _NEEDS_KEY},
    }


ORDERS: dict[Act, dict[str, Any]] = {
    Act.DISCONNECT: _order(Act.DISCONNECT, "The user's connections are closed"),
    Act.REVOKE: _order(Act.REVOKE, "The user's tokens are refused"),
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
_CONNECTIONS = {"type": "array", "items": ref("Seen")}
_OF_USER = members(user=ref("Name"), count=_COUNT, connections=_CONNECTIONS, complete=_COMPLETE)
_OF_USERS = members(users={"type": "object", "additionalProperties": _COUNT}, complete=_COMPLETE)
_USERS = {
    "type": "object",
    "required": ["users"],
    "additionalProperties": False,
    "properties": {
        "users": {"type": "array", "items": ref("Name"), "minItems": 1, "maxItems": MOST_USERS}
    },
}
_CONNECTION = {
    "gateway": "gateway-7f9c",
    "session": "697dcad8a1",
    "transport": "websocket",
    "since": "2026-01-31T09:30:00.000Z",
    "topics": {"user:42": "k3x9q2ab.18"},
}
PRESENCE_OF_USER: dict[str, Any] = {
    "name": "presence_of_user",
    "responses": {
        200: answer(
            "The user's connections",
            _OF_USER,
            connected={"user": "42", "count": 1, "connections": [_CONNECTION], "complete": True},
        ),
        **_PRESENCE_REFUSALS,
    },
    "openapi_extra": {"security": _NEEDS_KEY},
}
PRESENCE: dict[str, Any] = {
    "name": "presence_of_users",
    "responses": {
        200: answer(
            "How many connections each user has",
            _OF_USERS,
            counts={"users": {"42": 1, "43": 0}, "complete": True},
        ),
        **_PRESENCE_REFUSALS,
        **problems(
            {
                400: "The body is not JSON",
                413: "The body is too large",
                415: "The body is compressed, which is not taken here",
            }
        ),
    },
    "openapi_extra": {
        "requestBody": body(_USERS, users={"users": ["42", "43"]}),
        "security": _NEEDS_KEY,
    },
}
_FATES = {"enum": [each.value for each in Fate]}
_FATE_IN_TOPIC = {
    "type": "object",
    "required": ["topic", "fate"],
    "properties": {
        "topic": ref("Topic"),
        "fate": _FATES,
        "position": ref("Position"),
        **dict.fromkeys(("accepted", "expires", "published"), _MOMENT),
    },
}
_FATE = members(
    user=ref("Name"),
    event={"type": "string"},
    fate=_FATES,
    because={"type": "string"},
    topics={"type": "array", "items": _FATE_IN_TOPIC},
    connections=_CONNECTIONS,
    complete=_COMPLETE,
)
_RECEIVED = {
    "user": "42",
    "event": "order-7-paid",
    "fate": "received",
    "because": "a device of the user has marked it received",
    "topics": [{"topic": "user:42", "fate": "received", "position": "k3x9q2ab.18"}],
    "connections": [_CONNECTION],
    "complete": True,
}
FATE: dict[str, Any] = {
    "name": "fate_of_event",
    "responses": {
        200: answer("How far the event came", _FATE, received=_RECEIVED),
        **_PRESENCE_REFUSALS,
    },
    "openapi_extra": {
        "parameters": [
            parameter(
                "source",
                "query",
                "The event's source, to know of it beyond history too.",
                minLength=1,
                maxLength=LONGEST_TEXT,
            ),
            parameter("topic", "query", "One more topic to look in.", **ref("Topic")),
        ],
        "security": _NEEDS_KEY,
    },
}
