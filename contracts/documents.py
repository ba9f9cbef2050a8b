"""The documents that describe every surface, made from the code."""

import json
from typing import Any, cast

from contracts.asyncapi import asyncapi
from notifier import probes
from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.api import app as api
from notifier.api.keys import ApiKeys
from notifier.gateway import app as gateway
from notifier.gateway.gateway import Gateway
from notifier.schemas import PLACE, schemas
from notifier.telemetry.metrics import Metrics

Document = dict[str, Any]


def documents() -> dict[str, Document]:
    """Return each document by the name of its file."""
    metrics = Metrics()
    nobody = cast("Gateway", None)  # a description asks no gateway
    posting = api.create_app(MemoryEventQueue(), metrics, ApiKeys(())).openapi()
    return {
        "openapi-api.json": posting,
        "openapi-gateway.json": gateway.create_app(nobody).openapi(),
        "openapi-private.json": probes.create_app(metrics, dict).openapi(),
        "asyncapi.json": asyncapi(posting["info"]["version"]),
        "frames.json": _frames(),
    }


def _frames() -> Document:
    """Return the JSON Schemas of frames and events, each below `$defs`."""
    text = json.dumps(schemas()).replace(PLACE, "#/$defs/")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Frames and events of notifier",
        "anyOf": [{"$ref": f"#/$defs/{union}"} for union in ("ClientFrame", "ServerFrame")],
        "$defs": json.loads(text),
    }
