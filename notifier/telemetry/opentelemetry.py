"""Spans by OpenTelemetry's SDK; where they go, and how many, its own variables (OTEL_…) say."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Self

import msgspec
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from notifier.core.entries import Entry
from notifier.core.errors import Invalid, NotifierError, Unavailable
from notifier.core.history import History, Published, Question
from notifier.core.ports import Batch, Broker, BrokerListener, Delivery, EventQueue, EventSource
from notifier.core.publications import NewPublication, Publication
from notifier.core.reports import DeliveryReport
from notifier.core.signals import Signal
from notifier.core.undelivered import HandedBack

_propagator = TraceContextTextMapPropagator()


class _Event(msgspec.Struct):
    """The members of an event that a span needs; the rest is skipped."""

    id: str = ""
    source: str = ""
    type: str = ""
    traceparent: str = ""

    @property
    def context(self) -> Context:
        """The context that the event came in; empty if it has none."""
        return _propagator.extract({"traceparent": self.traceparent}, Context())

    @property
    def attributes(self) -> Mapping[str, str]:
        """As OpenTelemetry's conventions for CloudEvents have them."""
        named = {"event_id": self.id, "event_source": self.source, "event_type": self.type}
        return {f"cloudevents.{name}": value for name, value in named.items() if value}


_events = msgspec.json.Decoder(_Event)


def _event_of(body: bytes) -> _Event:
    try:
        return _events.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Event()  # the reader of the whole event raises the reason


class OpenTelemetry:
    """Fulfils Traces while it is entered."""

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
        return _Queue(queue, self._tracer)

    def source(self, source: EventSource) -> EventSource:
        """See Traces."""
        return _Source(source, self._tracer)

    def broker(self, broker: Broker) -> Broker:
        """See Traces."""
        return _Broker(broker, self._tracer)


class _Queue:
    def __init__(self, queue: EventQueue, tracer: Tracer) -> None:
        self._queue = queue
        self._tracer = tracer

    @property
    def trouble(self) -> str | None:
        return self._queue.trouble

    async def put(self, entry: Entry) -> None:
        event = _event_of(entry.body)
        with self._tracer.start_as_current_span(
            "accept", event.context, SpanKind.SERVER, event.attributes
        ) as span:
            await self._queue.put(entry if event.traceparent else _begun(entry, span))

    async def put_each(self, entries: Sequence[Entry]) -> list[Unavailable | None]:
        spans, begun = [], []
        for entry in entries:
            event = _event_of(entry.body)
            span = self._tracer.start_span(
                "accept", event.context, SpanKind.SERVER, event.attributes
            )
            spans.append(span)
            begun.append(entry if event.traceparent else _begun(entry, span))
        try:
            outcomes = await self._queue.put_each(begun)
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


class _Source:
    def __init__(self, source: EventSource, tracer: Tracer) -> None:
        self._source = source
        self._tracer = tracer

    @property
    def trouble(self) -> str | None:
        return self._source.trouble

    @property
    def partitions(self) -> Sequence[str]:
        return self._source.partitions

    def stop(self) -> None:
        self._source.stop()

    async def batches(self) -> AsyncIterator[Batch]:
        async for batch in self._source.batches():
            yield _Batch(batch, self._tracer)

    async def wait(self, entries: Sequence[tuple[Entry, int]]) -> None:
        await self._source.wait(entries)

    async def hand_back(self, events: Sequence[HandedBack]) -> None:
        await self._source.hand_back(events)

    async def report(self, reports: Sequence[DeliveryReport]) -> None:
        await self._source.report(reports)


class _Batch:
    def __init__(self, batch: Batch, tracer: Tracer) -> None:
        self._batch = batch
        self._spans: dict[int, Span] = {}  # by the id of their delivery
        for delivery in batch.deliveries:
            event = _event_in(delivery)
            if event.traceparent:
                self._spans[id(delivery)] = tracer.start_span(
                    "route", event.context, SpanKind.CONSUMER, event.attributes
                )

    @property
    def deliveries(self) -> Sequence[Delivery]:
        return self._batch.deliveries

    async def dead_letter(self, delivery: Delivery, code: str, reason: str) -> None:
        await self._batch.dead_letter(delivery, code, reason)
        if span := self._spans.get(id(delivery)):
            span.set_status(Status(StatusCode.ERROR, reason))

    def allow_next(self) -> None:
        self._batch.allow_next()

    async def is_ours(self) -> bool:
        """See Batch."""
        return await self._batch.is_ours()

    async def ack(self) -> None:
        try:
            await self._batch.ack()
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


class _Broker:
    def __init__(self, broker: Broker, tracer: Tracer) -> None:
        self._broker = broker
        self._tracer = tracer

    @property
    def trouble(self) -> str | None:
        return self._broker.trouble

    def now(self) -> float:
        return self._broker.now()

    def listen(self, listener: BrokerListener) -> None:
        self._broker.listen(_Listener(listener, self._tracer))

    async def publish(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        # All topics of one event share their record.
        records = {id(new.record): new.record for new in batch}
        with ExitStack() as spans:
            for record in records.values():
                event = _event_of(record.partition(b"\n")[2])
                if event.traceparent:
                    spans.enter_context(
                        self._tracer.start_as_current_span(
                            "publish", event.context, SpanKind.PRODUCER, event.attributes
                        )
                    )
            return await self._broker.publish(batch)

    async def signal(self, signals: Sequence[Signal]) -> None:
        await self._broker.signal(signals)

    async def subscribe(self, topics: Sequence[str]) -> None:
        await self._broker.subscribe(topics)

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        await self._broker.unsubscribe(topics)

    async def read(self, questions: Sequence[Question]) -> list[History]:
        return await self._broker.read(questions)

    async def published_at(self, topics: Sequence[str], key: str) -> list[float | None]:
        return await self._broker.published_at(topics, key)


class _Listener:
    def __init__(self, listener: BrokerListener, tracer: Tracer) -> None:
        self._listener = listener
        self._tracer = tracer

    def on_publication(self, publication: Publication) -> None:
        event = _event_of(publication.event)
        if not event.traceparent:
            self._listener.on_publication(publication)
            return
        with self._tracer.start_as_current_span(
            "deliver", event.context, SpanKind.CONSUMER, event.attributes
        ):
            self._listener.on_publication(publication)

    def on_signal(self, signal: Signal) -> None:
        self._listener.on_signal(signal)

    def on_interruption(self, topics: Iterable[str]) -> None:
        self._listener.on_interruption(topics)
