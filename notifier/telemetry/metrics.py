"""Every metric of notifier, in one place. Labels only take values from short, fixed lists."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from notifier.telemetry.tally import Tally

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """The metrics of one process, with a registry of their own.

    Fulfils `notifier.core.ports.Observer` for the hub.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # three lines a metric would become four, to no one's use
        self.registry = registry = CollectorRegistry()
        self._tally = Tally()
        registry.register(self._tally)  # first: what comes after tells what is passed on
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.events = Counter(
            "notifier_events",
            "Events by the stage they reached: accepted (confirmed by the event queue), routed "
            "(all their topics published), and rejected (refused to the producer).",
            ["stage"],
            registry=registry,
        )
        self.publications = Counter(
            "notifier_publications",
            "Publications by outcome: published, duplicate (recognised and dropped), fanned_out, "
            "recovered (sent to a client that came back), "
            "expired (not delivered because their time was over).",
            ["outcome"],
            registry=registry,
        )
        self.deliveries = Counter(
            "notifier_deliveries", "Frames with an event written to connections.", registry=registry
        )
        self.delivery_seconds = Histogram(
            "notifier_delivery_seconds",
            "From an event's acceptance until it was written to its followers, live ones only.",
            buckets=_LATENCIES,
            registry=registry,
        )
        fanned_out = self.publications.labels("fanned_out")
        self._tally.feed(fanned_out, self.deliveries, self.delivery_seconds)
        self.dead_letters = Counter(
            "notifier_dead_letters",
            "Deliveries put aside because they cannot be understood, by reason.",
            ["reason"],
            registry=registry,
        )
        self.connections = Gauge(
            "notifier_connections", "Open client connections.", ["transport"], registry=registry
        )
        self.connections_opened = Counter(
            "notifier_connections_opened", "Connections taken.", ["transport"], registry=registry
        )
        self.connections_closed = Counter(
            "notifier_connections_closed",
            "Connections ended, by the close code's name; `client` when the client ended it.",
            ["reason"],
            registry=registry,
        )
        self.refusals = Counter(
            "notifier_connections_refused",
            "Connections refused before or instead of a session, by reason.",
            ["reason"],
            registry=registry,
        )
        self.slow_consumers = Counter(
            "notifier_slow_consumers",
            "Connections closed because their client read too slowly.",
            registry=registry,
        )
        self.gaps = Counter(
            "notifier_gaps",
            "Sessions told that they missed something.",
            ["reason"],
            registry=registry,
        )
        self.holes = Counter(
            "notifier_holes",
            "Live publications that did not follow the one before; history was asked.",
            registry=registry,
        )
        self.reconnects = Counter(
            "notifier_reconnects",
            "Connections to a backend that were lost and opened anew.",
            ["backend"],
            registry=registry,
        )
        self.partitions = Gauge(
            "notifier_partitions",
            "1 where this router takes from the partition, 0 where it stands by for another.",
            ["queue"],
            registry=registry,
        )
        self.held_batches = Counter(
            "notifier_held_batches",
            "Times that a router kept a batch because the broker could not take it.",
            registry=registry,
        )
        self.topology_repairs = Counter(
            "notifier_topology_repairs",
            "Times that RabbitMQ's queues were declared anew because one had vanished.",
            registry=registry,
        )
        self.loop_lag = Histogram(
            "notifier_loop_lag_seconds",
            "How late the event loop came to a timer, measured once a second.",
            buckets=_LAGS,
            registry=registry,
        )

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
