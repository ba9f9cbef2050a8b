"""Every metric of notifier, in one place. Labels only take values from short, fixed lists."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from ssl import cert_time_to_seconds
from typing import NamedTuple, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from notifier.core.errors import CloseCode
from notifier.telemetry.tally import Tally, observe_all

M = TypeVar("M", bound=MetricWrapperBase)
Values = Sequence[str] | str
"""What a label may be: a closed list, or words on what it depends on."""

_AGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_TRANSPORTS = ("websocket", "sse", "poll")
_BACKENDS = ("rabbitmq", "redis")
_NOT_UNDERSTOOD = ("invalid", "unreadable", "too_large")


class Row(NamedTuple):
    """What an operator has to know of a metric; `labels` has the values of each."""

    name: str
    type: str
    labels: dict[str, Values]
    meaning: str


class Metrics:
    """The metrics of one process, with a registry of their own.

    Fulfils `notifier.core.ports.Observer` for the hub.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # three lines a metric would become four, to no one's use
        self.registry = CollectorRegistry()
        self._labels: dict[str, dict[str, Values]] = {}
        self._tally = Tally()
        self.registry.register(self._tally)  # first: what comes after tells what is passed on
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._of_events()
        self._of_connections()
        self._of_backends()
        self._of_the_process()
        fanned_out, written = (
            self.publications.labels("fanned_out"),
            self.event_age.labels("written"),
        )
        self._tally.feed(fanned_out, self.deliveries, written)

    def _of_events(self) -> None:
        self.events = self._counter(
            "notifier_events",
            "Events by the stage they reached: accepted by the api (confirmed by the event queue) "
            "and routed (all their topics published); each event of an array counts.",
            stage=("accepted", "routed"),
        )
        self.rejections = self._counter(
            "notifier_rejections",
            "Events that the api refused, by reason; unavailable means that the event queue could "
            "not confirm, and that the producer should repeat.",
            reason=(*_NOT_UNDERSTOOD, "unsupported_type", "unauthorized", "unavailable"),
        )
        self.event_age = self._histogram(
            "notifier_event_age_seconds",
            "Time since an event's acceptance when it reached a stage: confirmed (by the event "
            "queue), taken (by a router), published (in Redis) and written (to its followers, live "
            "ones only). Each by the clock of the process that tells; events that producers put "
            "into RabbitMQ themselves count from the router on.",
            _AGES,
            stage=("confirmed", "taken", "published", "written"),
        )
        self.publications = self._counter(
            "notifier_publications",
            "Publications by outcome: published, duplicate (recognised and dropped), fanned_out, "
            "recovered (sent to a client that came back), "
            "expired (not delivered because their time was over).",
            outcome=("published", "duplicate", "fanned_out", "recovered", "expired"),
        )
        self.deliveries = self._counter(
            "notifier_deliveries", "Frames with an event written to connections."
        )
        self.dead_letters = self._counter(
            "notifier_dead_letters",
            "Deliveries kept in notifier.dead and not delivered, by reason: what cannot be "
            "understood, refused by Redis (for this one only), expired by its producer's wish, "
            "rejected by a consumer that is not notifier's, internal (notifier failed at it).",
            reason=(*_NOT_UNDERSTOOD, "refused", "expired", "rejected", "internal"),
        )
        self.put_aside = self._counter(
            "notifier_put_aside",
            "Entries that RabbitMQ itself took out of a queue and a router took from "
            "notifier.aside, by RabbitMQ's reason. Nobody had found them bad: they were published, "
            "perhaps after newer ones. A policy is then wrong: `notifier check` names it.",
            reason=("delivery_limit", "expired", "maxlen", "rejected", "unknown"),
        )
        self.gaps = self._counter(
            "notifier_gaps",
            "Sessions told that they missed something: history had expired, or the stream was lost "
            "or has restarted.",
            reason=("expired", "lost", "restarted"),
        )
        self.holes = self._counter(
            "notifier_holes",
            "Live publications that did not follow the one before; history was asked.",
        )

    def _of_connections(self) -> None:
        self.connections = self._gauge(
            "notifier_connections", "Open client connections.", transport=_TRANSPORTS
        )
        self.connections_limit = self._gauge(
            "notifier_connections_limit",
            "Connections that this gateway holds at most; 0 in other roles.",
        )
        self.connections_opened = self._counter(
            "notifier_connections_opened", "Connections taken.", transport=_TRANSPORTS
        )
        self.connections_closed = self._counter(
            "notifier_connections_closed",
            "Connections ended, by the close code's name; `client` when the client ended it.",
            reason=(*(code.reason for code in CloseCode), "client"),
        )
        self.refusals = self._counter(
            "notifier_connections_refused",
            "Connections refused before or instead of a session, by reason; full and too_fast are "
            "bounds of this gateway, too_many_connections is the user's.",
            reason=(
                *(
                    "unauthorized",
                    "token_expired",
                    "forbidden",
                    "unavailable",
                    "wrong_origin",
                    "invalid",
                    "too_many",
                    "full",
                    "too_fast",
                    "too_many_connections",
                ),
            ),
        )
        self.frames_refused = self._counter(
            "notifier_frames_refused",
            "Frames of clients that were answered by an error, by reason; too_many_frames and "
            "too_many_bytes closed the connection.",
            reason=(
                *("invalid", "too_large", "unauthorized", "token_expired", "forbidden"),
                *("unavailable", "too_many", "too_many_frames", "too_many_bytes"),
            ),
        )
        self.slow_consumers = self._counter(
            "notifier_slow_consumers", "Connections closed because their client read too slowly."
        )
        self.send_buffers = self._gauge(
            "notifier_send_buffer_bytes",
            "Bytes that wait in this gateway for clients that do not keep up, those for whom up to "
            "16 KiB wait left out.",
        )
        self.send_buffers_limit = self._gauge(
            "notifier_send_buffer_limit_bytes",
            "Bytes that may wait for all slow clients of this gateway together; 0 in other roles.",
        )
        self.answers_cut_off = self._counter(
            "notifier_answers_cut_off",
            "Answers over plain HTTP that were cut off because their client did not read them in "
            "time, or too much waited in all.",
        )
        self.drain_closes = self._counter(
            "notifier_drain_closes",
            "Connections that a stopping gateway closed: paced, or forced when its time was over.",
            manner=("paced", "forced"),
        )
        self.drain_capacity = self._gauge(
            "notifier_drain_capacity_connections",
            "Connections that a gateway can close within its drain's time, at its pace; with more "
            "than that open, a stop forces the rest. 0 in other roles.",
        )

    def _of_backends(self) -> None:
        self.trouble = self._gauge(
            "notifier_trouble",
            "1 while a part that the role needs does not work, with the reason in /readyz; else 0.",
            part="broker, draining, files, holding, queue, tokens; each in the roles that have it",
        )
        self.reconnects = self._counter(
            "notifier_reconnects",
            "Connections to a backend that were lost and opened anew.",
            backend=_BACKENDS,
        )
        self.clock_deviation = self._gauge(
            "notifier_clock_deviation_seconds",
            "By how much this machine's clock is ahead of Redis' (below 0: behind), asked every "
            "2 s. Events expire by Redis' clock; tokens by this one.",
        )
        self.held_batches = self._counter(
            "notifier_held_batches",
            "Times that a router kept a batch because the broker could not take it.",
        )
        self.backlog = self._gauge(
            "notifier_backlog_entries",
            "Entries that wait in a queue of RabbitMQ and are with no router yet, asked every 5 s "
            "by each router and api; in notifier.dead, those that wait for a person.",
            queue="notifier.events.0 to N-1, notifier.unroutable, notifier.aside, notifier.dead; "
            "in routers, apis",
        )
        self.partitions = self._gauge(
            "notifier_partitions",
            "1 where this router takes from the partition, 0 where it stands by for another.",
            queue="notifier.events.0 to N-1, notifier.unroutable, notifier.aside; in routers",
        )
        self.deduplication_cuts = self._counter(
            "notifier_deduplication_cuts",
            "Times a topic forgot 32 ids before their time, as it had 4 million in the window.",
        )
        self.topology_repairs = self._counter(
            "notifier_topology_repairs",
            "Times that exchanges and queues were declared anew because one had vanished.",
        )
        self.issuer_fetches = self._counter(
            "notifier_issuer_fetches",
            "Times that the token issuer was asked for its keys, by outcome.",
            outcome=("fetched", "failed"),
        )
        self.certificate_expiry = self._gauge(
            "notifier_certificate_expiry_timestamp_seconds",
            "When the certificate expires that a backend showed at the last connect, in Unix time; "
            "only where TLS is used and verified.",
            backend="rabbitmq, redis; once connected over TLS",
        )

    def _of_the_process(self) -> None:
        self.build_info = self._gauge(
            "notifier_build_info",
            "Always 1: which role this process has, of which release.",
            role="api, router, gateway or dev: one in a process",
            version="the release",
        )
        self.loop_lag = self._histogram(
            "notifier_loop_lag_seconds",
            "How late the event loop came to a timer, measured once a second.",
            _LAGS,
        )

    # Making them.

    def _counter(self, name: str, meaning: str, **labels: Values) -> Counter:
        return self._known(Counter(name, meaning, list(labels), registry=self.registry), labels)

    def _gauge(self, name: str, meaning: str, **labels: Values) -> Gauge:
        return self._known(Gauge(name, meaning, list(labels), registry=self.registry), labels)

    def _histogram(
        self, name: str, meaning: str, buckets: Sequence[float], **labels: Values
    ) -> Histogram:
        metric = Histogram(name, meaning, list(labels), registry=self.registry, buckets=buckets)
        return self._known(metric, labels)

    def _known(self, metric: M, labels: dict[str, Values]) -> M:
        """Let closed lists begin at 0: an alert sees no growth of what was not there before."""
        (family,) = metric.describe()
        self._labels[family.name] = labels
        if labels and not any(isinstance(values, str) for values in labels.values()):
            for values in product(*labels.values()):
                metric.labels(*values)
        return metric

    def rows(self) -> Iterator[Row]:
        """Yield a row for each metric of ours; those of the process and of Python are known."""
        for family in self.registry.collect():
            if family.name.startswith("notifier_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                yield Row(name, family.type, self._labels[family.name], family.documentation)

    def reached(self, stage: str, accepted: Iterable[float]) -> None:
        """Events that were accepted at these moments (Unix seconds) have now reached a stage."""
        now = time.time()
        observe_all(self.event_age.labels(stage), [max(0.0, now - moment) for moment in accepted])

    def connected(self, backend: str, writer: asyncio.StreamWriter | None) -> None:
        """A connection to a backend is open: what it shows of its certificate counts from now."""
        tls = writer and writer.get_extra_info("ssl_object")
        if tls and (certificate := tls.getpeercert()):  # empty where it was not verified
            expiry = cert_time_to_seconds(certificate["notAfter"])
            self.certificate_expiry.labels(backend).set(expiry)

    # What the hub tells.

    def fanned_out(self, followers: int, delay: float) -> None:
        """See Observer."""
        self._tally.add(followers, delay)

    def recovered(self, publications: int) -> None:
        """See Observer."""
        self.publications.labels("recovered").inc(publications)
        self.deliveries.inc(publications)

    def expired(self, publications: int) -> None:
        """See Observer."""
        self.publications.labels("expired").inc(publications)

    def gap(self, reason: str, sessions: int) -> None:
        """See Observer."""
        self.gaps.labels(reason).inc(sessions)

    def hole(self) -> None:
        """See Observer."""
        self.holes.inc()
