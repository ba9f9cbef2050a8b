"""Traces: spans around the ports, by OpenTelemetry or not at all.

`accept` lasts until the event queue has confirmed an event, `route` from taking an entry to its
ack; `publish` is one round trip to the broker, and `deliver` the fan-out in one gateway. All are
children of the event's `traceparent`, which is the producer's; where there is none, an api makes
one. An event that comes over AMQP without one is not traced.

Wrappers of the adapters make spans, put around them once, in the composition root: without traces
an event passes none of this.
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from notifier.core.ports import Broker, EventQueue, EventSource


class Traces(Protocol):
    """Puts spans around the ports."""

    def queue(self, queue: EventQueue) -> EventQueue:
        """Trace entries that are put."""

    def source(self, source: EventSource) -> EventSource:
        """Trace deliveries."""

    def broker(self, broker: Broker) -> Broker:
        """Trace publications, sent and heard."""


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
    """Trace while inside; leaving sends the rest. Raises ImportError without the extra."""
    if not wanted:
        return nullcontext[Traces](NoTraces())
    from notifier.telemetry.opentelemetry import OpenTelemetry  # noqa: PLC0415 - an extra

    return OpenTelemetry(role)
