"""Spans by OpenTelemetry's SDK; where they go, and how many, its own variables (OTEL_…) say."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Generic, Self, TypeVar, cast

import msgspec
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from notifier.core.entries import Entry
from notifier.core.errors import Invalid, NotifierError, Unavailable
from notifier.core.history import Published
from notifier.core.ports import (
    Bad,
    Batch,
    Broker,
    BrokerListener,
    Delivery,
    EventQueue,
    EventSource,
)
from notifier.core.publications import NewPublication, Publication
from notifier.telemetry.traces import Traces

P = TypeVar("P")
_propagator = TraceContextTextMapPropagator()
_within = partial(use_span, end_on_exit=True)


class _Event(msgspec.Struct):
    """The members of an event that a span needs; the rest is skipped."""

    id: str = ""
    source: str = ""
    type: str = ""
    traceparent: str = ""

    def begin(self, tracer: Tracer, span: str, kind: SpanKind) -> Span:
        """Begin a span of this name in the context that the event came in, if it has one.

        Its attributes are as OpenTelemetry's conventions for CloudEvents have them.
        """
        context = _propagator.extract({"traceparent": self.traceparent}, Context())
        named = {"event_id": self.id, "event_source": self.source, "event_type": self.type}
        attributes = {f"cloudevents.{name}": value for name, value in named.items() if value}
        return tracer.start_span(span, context, kind, attributes)


_events = msgspec.json.Decoder(_Event)


def _event_of(body: bytes) -> _Event:
    try:
        return _events.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Event()  # the reader of the whole event raises the reason


class OpenTelemetry(Traces):
    """Puts spans around the ports while it is entered."""

    def __init__(self, role: str) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: f"notifier-{role}"})
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("notifier")

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send the remaining spans."""
        await asyncio.to_thread(self._provider.shutdown)

    def queue(self, queue: EventQueue) -> EventQueue:
        """See Traces."""
        return cast("EventQueue", _Queue(queue, self._tracer))

    def source(self, source: EventSource) -> EventSource:
        """See Traces."""
        return cast("EventSource", _Source(source, self._tracer))

    def broker(self, broker: Broker) -> Broker:
        """See Traces."""
        return cast("Broker", _Broker(broker, self._tracer))


class _Wrapper(Generic[P]):
    """Passes all that it does not trace on to the port that it stands around."""

    def __init__(self, port: P, tracer: Tracer) -> None:
        self._port = port
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any member of the port
        return getattr(self._port, name)


class _Queue(_Wrapper[EventQueue]):
    async def put(self, entry: Entry) -> None:
        event = _event_of(entry.body)
        with _within(event.begin(self._tracer, "accept", SpanKind.SERVER)) as span:
            await self._port.put(entry if event.traceparent else _begun(entry, span))

    async def put_each(self, entries: Sequence[Entry]) -> list[Unavailable | None]:
        spans, begun = [], []
        for entry in entries:
            event = _event_of(entry.body)
            span = event.begin(self._tracer, "accept", SpanKind.SERVER)
            spans.append(span)
            begun.append(entry if event.traceparent else _begun(entry, span))
        try:
            outcomes = await self._port.put_each(begun)
            for span, failure in zip(spans, outcomes, strict=True):
                if failure:
                    span.set_status(Status(StatusCode.ERROR, str(failure)))
        finally:
            for span in spans:
                span.end()
        return outcomes


def _begun(entry: Entry, span: Span) -> Entry:
    """Let a trace that begins here go on in the entry."""
    return msgspec.structs.replace(
        entry, headers={**entry.headers, "traceparent": _traceparent_of(span)}
    )


def _traceparent_of(span: Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class _Source(_Wrapper[EventSource]):
    async def batches(self) -> AsyncIterator[Batch]:
        async for batch in self._port.batches():
            yield cast("Batch", _Batch(batch, self._tracer))


class _Batch(_Wrapper[Batch]):
    def __init__(self, batch: Batch, tracer: Tracer) -> None:
        super().__init__(batch, tracer)
        self._spans: dict[int, Span] = {}  # by the id of their delivery
        for delivery in batch.deliveries:
            event = _event_in(delivery)
            if event.traceparent:
                self._spans[id(delivery)] = event.begin(tracer, "route", SpanKind.CONSUMER)

    async def dead_letter(self, bad: Sequence[Bad]) -> list[Unavailable | None]:
        for each in bad:
            if span := self._spans.get(id(each.delivery)):
                span.set_status(Status(StatusCode.ERROR, each.reason))
        return await self._port.dead_letter(bad)

    async def ack(self) -> None:
        try:
            await self._port.ack()
        finally:
            for span in self._spans.values():
                span.end()


def _event_in(delivery: Delivery) -> _Event:
    try:
        entry = delivery.entry
    except Invalid:
        return _Event()
    event = _event_of(entry.body)
    beside = entry.headers.get("traceparent")
    if not event.traceparent and isinstance(beside, str):
        event.traceparent = beside
    return event


class _Broker(_Wrapper[Broker]):
    def listen(self, listener: BrokerListener) -> None:
        self._port.listen(cast("BrokerListener", _Listener(listener, self._tracer)))

    async def publish(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        # All topics of one event share their record.
        records = {id(new.record): new.record for new in batch}
        with ExitStack() as spans:
            for record in records.values():
                event = _event_of(record.partition(b"\n")[2])
                if event.traceparent:
                    span = event.begin(self._tracer, "publish", SpanKind.PRODUCER)
                    spans.enter_context(_within(span))
            return await self._port.publish(batch)


class _Listener(_Wrapper[BrokerListener]):
    def on_publication(self, publication: Publication) -> None:
        event = _event_of(publication.event)
        if not event.traceparent:
            self._port.on_publication(publication)
            return
        with _within(event.begin(self._tracer, "deliver", SpanKind.CONSUMER)):
            self._port.on_publication(publication)
