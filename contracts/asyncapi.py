"""AsyncAPI 3 of the client protocol and of RabbitMQ's exchanges and queues that others may use.

Each operation is told from notifier's side: it receives the frames that clients send.
"""

from typing import Any

from notifier.adapters.rabbitmq import topology
from notifier.core import cloudevents
from notifier.core.reports import Report
from notifier.core.undelivered import Reason
from notifier.gateway.app import TRANSPORTS
from notifier.openapi import JSON
from notifier.schemas import Schema, ref, schemas

_CLIENT, _SERVER = "ClientFrame", "ServerFrame"
_POSTED = {"event": ("Event", JSON), "cloudEvent": ("PostedCloudEvent", cloudevents.STRUCTURED)}

_REASON = {
    "type": "object",
    "required": ["notifier-user", "notifier-reason"],
    "properties": {
        "notifier-user": ref("Name"),
        "notifier-reason": {"enum": [each.value for each in Reason]},
    },
}
_REPORT = {
    "type": "object",
    "required": ["notifier-user", "notifier-report"],
    "properties": {
        "notifier-user": ref("Name"),
        "notifier-report": {"enum": [each.value for each in Report]},
    },
}
_REPORT_BODY = {
    "allOf": [
        ref("CloudEvent"),
        {
            "required": ["subject", "data"],
            "properties": {
                "source": {"const": "notifier"},
                "type": {"enum": [f"notifier.{each.value}" for each in Report]},
                "subject": ref("Name"),
                "data": ref("Reported"),
            },
        },
    ]
}


def asyncapi(version: str) -> dict[str, Any]:
    """Return the document."""
    client, server = _frames(_CLIENT), _frames(_SERVER)
    channels = _channels(client, server)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "notifier",
            "version": version,
            "description": "Frames between clients and gateways, and entries from producers over "
            "AMQP. docs/protocol.md says when each is sent, and what it asks of its reader.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": JSON,
        "servers": {
            "gateway": {"host": "gateway.example", "protocol": "wss"},
            "rabbitmq": {"host": "rabbitmq.example:5671", "protocol": "amqps"},
        },
        "channels": channels,
        "operations": {
            "takeFrames": _operation("receive", "websocket", client),
            "sendFrames": _operation("send", "websocket", server),
            **{
                f"stream{each.name.title()}": _operation("send", each.name, server)
                for each in TRANSPORTS
            },
            "takeEntries": _operation("receive", "entries", _POSTED),
            "handBack": _operation("send", "undelivered", ["handedBack"]),
            "report": _operation("send", "reports", ["report"]),
            "putDeadLetters": _operation("send", "deadLetters", ["deadLetter"]),
        },
        "components": {
            "messages": {
                **{
                    name: {"name": name, "payload": ref(schema)}
                    for name, schema in (client | server).items()
                },
                **{
                    name: {"name": name, "payload": ref(schema), "contentType": media}
                    for name, (schema, media) in _POSTED.items()
                },
                "handedBack": {
                    "name": "handedBack",
                    "description": "An event that a user did not receive in time. The property "
                    "`message_id` is the same each time that it comes back for this user.",
                    "contentType": cloudevents.STRUCTURED,
                    "payload": ref("CloudEvent"),
                    "headers": _REASON,
                },
                "report": {
                    "name": "report",
                    "description": "How far an event has come towards one of its users. The "
                    "property `message_id` is the `id`, the same each time that this report comes.",
                    "contentType": cloudevents.STRUCTURED,
                    "payload": _REPORT_BODY,
                    "headers": _REPORT,
                },
                "deadLetter": {
                    "name": "deadLetter",
                    "description": "The entry as it came. Headers beside its own tell the reason: "
                    "docs/operating.md.",
                    "payload": {},
                },
            },
            # Messages stand for the unions, whose discriminator has another form here.
            "schemas": {n: each for n, each in schemas().items() if n not in (_CLIENT, _SERVER)},
        },
    }


def _frames(union: str) -> dict[str, str]:
    """Return the schema of each frame by the name of its message."""
    mapping: dict[str, str] = schemas()[union]["discriminator"]["mapping"]
    return {f"{tag}Frame": target.rpartition("/")[2] for tag, target in mapping.items()}


def _channels(client: dict[str, str], server: dict[str, str]) -> dict[str, Schema]:
    return {
        "websocket": {
            "address": "/v1/ws",
            "description": "A WebSocket with JSON in text frames.",
            "servers": [{"$ref": "#/servers/gateway"}],
            "messages": _messages([*client, *server]),
        },
        **{
            each.name: {
                "address": f"/v1/{each.name}",
                "description": each.described["description"],
                "messages": _messages(server),
            }
            for each in TRANSPORTS
        },
        "entries": {
            "address": topology.EVENTS,
            "description": "The exchange that producers publish to. The routing key may name the "
            "audience: `user.ID`, `topic.NAME` or `everyone`.",
            "servers": [{"$ref": "#/servers/rabbitmq"}],
            "messages": _messages(_POSTED),
            "bindings": _exchange(topology.EVENTS),
        },
        "undelivered": {
            "address": topology.UNDELIVERED,
            "description": "The exchange of events that come back, with the routing key `user.ID`.",
            "servers": [{"$ref": "#/servers/rabbitmq"}],
            "messages": _messages(["handedBack"]),
            "bindings": _exchange(topology.UNDELIVERED),
        },
        "reports": {
            "address": topology.REPORTS,
            "description": "The exchange of delivery reports, with the routing key "
            "`REPORT.user.ID`, such as `read.user.42`.",
            "servers": [{"$ref": "#/servers/rabbitmq"}],
            "messages": _messages(["report"]),
            "bindings": _exchange(topology.REPORTS),
        },
        "deadLetters": {
            "address": topology.DEAD,
            "description": "The queue of entries that a router could not understand.",
            "servers": [{"$ref": "#/servers/rabbitmq"}],
            "messages": _messages(["deadLetter"]),
            "bindings": {
                "amqp": {"is": "queue", "queue": {"name": topology.DEAD, "durable": True}}
            },
        },
    }


def _exchange(name: str) -> Schema:
    exchange = {"name": name, "type": "topic", "durable": True}
    return {"amqp": {"is": "routingKey", "exchange": exchange}}


def _messages(names: Any) -> Schema:  # noqa: ANN401 - names
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _operation(action: str, channel: str, names: Any) -> Schema:  # noqa: ANN401 - names
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }
