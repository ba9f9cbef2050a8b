"""The documents that describe every surface, made from the code."""

from typing import Any, cast

from notifier import probes
from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.api import app as api
from notifier.api.keys import ApiKeys
from notifier.gateway import app as gateway
from notifier.gateway.gateway import Gateway
from notifier.telemetry.metrics import Metrics

Document = dict[str, Any]


def documents() -> dict[str, Document]:
    """Return each document by the name of its file."""
    metrics = Metrics()
    nobody = cast("Gateway", None)  # a description asks no gateway
    return {
        "openapi-api.json": api.create_app(MemoryEventQueue(), metrics, ApiKeys(())).openapi(),
        "openapi-gateway.json": gateway.create_app(nobody).openapi(),
        "openapi-private.json": probes.create_app(metrics, dict).openapi(),
    }
