"""Traces: spans around the ports, by OpenTelemetry or not at all.

`accept` lasts until the event queue has confirmed an event, `route` from taking an entry to its
ack; `publish` is one round trip to the broker, and `deliver` the fan-out in one gateway. All are
children of the event's `traceparent`, which is the producer's; where there is none, an api makes
one. An event that comes over AMQP without one is not traced.

What carries spans wraps an adapter, once, in the composition root: without traces nothing of this
is in the way of an event.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from notifier.core.ports import Broker, EventQueue, EventSource


class Traces(Protocol):
    """Puts spans around what the ports do."""

    def queue(self, queue: EventQueue) -> EventQueue:
        """Trace what is put."""

    def source(self, source: EventSource) -> EventSource:
        """Trace what is taken."""

    def broker(self, broker: Broker) -> Broker:
        """Trace what is published, and what is heard of it."""


class NoTraces:
    """Leaves the adapters as they are. Fulfils Traces."""

    def queue(self, queue: EventQueue) -> EventQueue:
        """See Traces."""
        return queue

    def source(self, source: EventSource) -> EventSource:
        """See Traces."""
        return source

    def broker(self, broker: Broker) -> Broker:
        """See Traces."""
        return broker


def traces(role: str, *, wanted: bool) -> AbstractAsyncContextManager[Traces]:
    """Trace while inside; what is left is sent on leaving. Raises ImportError without the extra."""
    if not wanted:
        return nullcontext[Traces](NoTraces())
    from notifier.telemetry.opentelemetry import OpenTelemetry  # noqa: PLC0415 - an extra

    return OpenTelemetry(role)
