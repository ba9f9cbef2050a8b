"""Traces: spans around the ports, by OpenTelemetry or not at all.

`accept` lasts until the event queue has confirmed an event, `route` from taking an entry to its
ack; `publish` is one round trip to the broker, and `deliver` the fan-out in one gateway. All are
children of the event's `traceparent`, which is the producer's; where there is none, an api makes
one. An event that comes over AMQP without one is not traced.

Wrappers of the adapters make spans, put around them once, in the composition root: without traces
an event passes none of this.
"""

from contextlib import AbstractAsyncContextManager, nullcontext

from notifier.core.ports import Broker, EventQueue, EventSource


class Traces:
    """Puts spans around the ports in a subclass; by itself it leaves the adapters as they are."""

    def queue(self, queue: EventQueue) -> EventQueue:
        """Trace entries that are put."""
        return queue

    def source(self, source: EventSource) -> EventSource:
        """Trace deliveries."""
        return source

    def broker(self, broker: Broker) -> Broker:
        """Trace publications, sent and heard."""
        return broker


def traces(role: str, *, wanted: bool) -> AbstractAsyncContextManager[Traces]:
    """Trace while inside; leaving sends the rest. Raises ImportError without the extra."""
    if not wanted:
        return nullcontext(Traces())
    from notifier.telemetry.opentelemetry import OpenTelemetry  # noqa: PLC0415 - an extra

    return OpenTelemetry(role)
