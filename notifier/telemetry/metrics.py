"""Every metric of notifier, in one place. Labels only take values from short, fixed lists."""

import asyncio
import time
from collections.abc import Iterable
from ssl import cert_time_to_seconds

from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from notifier.core.control import Act
from notifier.core.errors import CloseCode
from notifier.core.reports import Report
from notifier.core.undelivered import Reason
from notifier.telemetry.series import Metered

_AGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_TRANSPORTS = ("websocket", "sse", "poll")
_BACKENDS = ("rabbitmq", "redis")
_NOT_UNDERSTOOD = ("invalid", "unreadable", "too_large")


class Metrics(Metered):
    """The metrics of one process, with a registry of their own.

    Fulfils `notifier.core.ports.Observer` for the hub.
    """

    def __init__(self) -> None:
        super().__init__()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._of_events()
        self._of_clients()
        self._of_connections()
        self._of_backends()
        self._of_the_process()
        self._fanned_out = self.publications.labels("fanned_out")
        self._written = self.event_age.labels("written")

    def _of_events(self) -> None:
        self.events = self._counters(
            "notifier_events_total",
            "Events by the stage they reached: accepted by the api (confirmed by the event queue) "
            "and routed (all their topics published); each event of an array counts.",
            stage=("accepted", "routed"),
        )
        self.rejections = self._counters(
            "notifier_rejections_total",
            "Events that the api refused, by reason; unavailable means that the event queue could "
            "not confirm, and that the producer should repeat.",
            reason=(
                *(*_NOT_UNDERSTOOD, "unsupported_type"),
                *("unauthorized", "forbidden", "unavailable"),
            ),
        )
        self.event_age = self._histograms(
            "notifier_event_age_seconds",
            "Time since an event's acceptance when it reached a stage: confirmed (by the event "
            "queue), taken (by a router), published (in Redis) and written (to its followers, live "
            "ones only). Each by the clock of the process that tells; events that producers put "
            "into RabbitMQ themselves count from the router on.",
            _AGES,
            stage=("confirmed", "taken", "published", "written"),
        )
        self.publications = self._counters(
            "notifier_publications_total",
            "Publications by outcome: published, duplicate (recognised and dropped), fanned_out, "
            "recovered (sent to a client that came back), "
            "expired (not delivered because their time was over).",
            outcome=("published", "duplicate", "fanned_out", "recovered", "expired"),
        )
        self.deliveries = self._counter(
            "notifier_deliveries_total", "Frames with an event written to connections."
        )
        self.dead_letters = self._counters(
            "notifier_dead_letters_total",
            "Deliveries kept in notifier.dead and not delivered, by reason: malformed entries, "
            "refused by Redis (for this one only), expired by its producer's wish, rejected "
            "by a consumer that is not notifier's, internal (notifier failed at it).",
            reason=(*_NOT_UNDERSTOOD, "refused", "expired", "rejected", "internal"),
        )
        self.put_aside = self._counters(
            "notifier_put_aside_total",
            "Entries that RabbitMQ itself took out of a queue and a router took from "
            "notifier.aside, by RabbitMQ's reason. Nobody had found them bad: they were published, "
            "perhaps after newer ones. A policy is then wrong: `notifier check` names it.",
            reason=("delivery_limit", "expired", "maxlen", "rejected", "unknown"),
        )
        self.undelivered = self._counters(
            "notifier_undelivered_total",
            "Events with undelivered_after that were handed back, once for each user: offline, "
            "unconfirmed (connected, and no client marked it received), expired, superseded by its "
            "collapse key, beyond_history, lost (with its stream).",
            reason=tuple(Reason),
        )
        self.reports = self._counters(
            "notifier_reports_total",
            "Delivery reports of events with report, one for each user and step: published, "
            "received, read; or expired, superseded, beyond_history, which end unreceived ones.",
            report=tuple(Report),
        )

    def _of_clients(self) -> None:
        self.gaps = self._counters(
            "notifier_gaps_total",
            "Sessions told that they missed something: history had expired, or the stream was lost "
            "or has restarted.",
            reason=("expired", "lost", "restarted"),
        )
        self.holes = self._counter(
            "notifier_holes_total",
            "Live publications that did not follow the one before; history was asked.",
        )
        self.marks = self._counters(
            "notifier_marks_total",
            "Marks of clients by outcome: moved (even where they said nothing new), refused (a "
            "position that the stream does not have, or a bound), unavailable (Redis did not "
            "answer, and the client got an error).",
            outcome=("moved", "refused", "unavailable"),
        )
        self.client_events = self._counters(
            "notifier_client_events_total",
            "Events that clients published, by outcome: published, duplicate (recognised and "
            "dropped), ephemeral (told to those who followed the topic, and not kept), refused (by "
            "Redis), unavailable (Redis did not answer, and the client got an error).",
            outcome=("published", "duplicate", "ephemeral", "refused", "unavailable"),
        )
        self.exchanges = self._counters(
            "notifier_presence_exchanges_total",
            "Times that this gateway told the members of topics to the others and read theirs, by "
            "outcome: done, unavailable (Redis did not answer; clients keep the members that they "
            "know). None where no client asks for presence.",
            outcome=("done", "unavailable"),
        )
        self.presences = self._counter(
            "notifier_presence_frames_total", "Frames that told clients of the members of a topic."
        )
        self.recounts = self._counter(
            "notifier_unread_recounts_total",
            "Users whose unread events were counted anew for their clients on this gateway.",
        )

        self.orders = self._counters(
            "notifier_orders_total",
            "Orders about users that the api took: to disconnect one, or to revoke the tokens.",
            act=tuple(Act),
        )

    def _of_connections(self) -> None:
        self.connections = self._gauges(
            "notifier_connections", "Open client connections.", transport=_TRANSPORTS
        )
        self.connections_limit = self._gauge(
            "notifier_connections_limit",
            "Connections that this gateway holds at most; 0 in other roles.",
        )
        self.connections_opened = self._counters(
            "notifier_connections_opened_total", "Connections taken.", transport=_TRANSPORTS
        )
        self.connections_closed = self._counters(
            "notifier_connections_closed_total",
            "Connections ended, by the close code's name; `client` when the client ended it.",
            reason=(*(code.reason for code in CloseCode), "client"),
        )
        self.refusals = self._counters(
            "notifier_connections_refused_total",
            "Connections refused before or instead of a session, by reason; full and too_fast are "
            "bounds of this gateway, too_many_connections is the user's.",
            reason=(
                *("unauthorized", "token_expired", "token_revoked", "forbidden", "unavailable"),
                *("wrong_origin", "invalid", "too_many", "full", "too_fast"),
                "too_many_connections",
            ),
        )
        self.frames_refused = self._counters(
            "notifier_frames_refused_total",
            "Frames of clients that were answered by an error, by reason; too_many_frames and "
            "too_many_bytes closed the connection.",
            reason=(
                *("invalid", "too_large", "unauthorized", "token_expired", "token_revoked"),
                *("forbidden", "unavailable", "too_many", "too_many_frames", "too_many_bytes"),
            ),
        )
        self.slow_consumers = self._counter(
            "notifier_slow_consumers_total",
            "Connections closed because their client read too slowly.",
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
            "notifier_answers_cut_off_total",
            "Answers over plain HTTP that were cut off because their client did not read them in "
            "time, or too much waited in all.",
        )
        self.drain_closes = self._counters(
            "notifier_drain_closes_total",
            "Connections that a stopping gateway closed: paced, or forced when its time was over.",
            manner=("paced", "forced"),
        )
        self.drain_capacity = self._gauge(
            "notifier_drain_capacity_connections",
            "Connections that a gateway can close within its drain's time, at its pace; with more "
            "than that open, a stop forces the rest. 0 in other roles.",
        )

    def _of_backends(self) -> None:
        self.trouble = self._gauges(
            "notifier_trouble",
            "1 while a part that the role needs does not work, with the reason in /readyz; else 0.",
            part="broker, control, draining, files, holding, queue, tokens; each in the roles that "
            "have it",
        )
        self.reconnects = self._counters(
            "notifier_reconnects_total",
            "Connections to a backend that were lost and opened anew.",
            backend=_BACKENDS,
        )
        self.clock_deviation = self._gauge(
            "notifier_clock_deviation_seconds",
            "By how much this machine's clock is ahead of Redis' (below 0: behind), asked every "
            "2 s. Events expire by Redis' clock; tokens by this one.",
        )
        self.held_batches = self._counter(
            "notifier_held_batches_total",
            "Times that a router kept a batch because the broker could not take it.",
        )
        self.backlog = self._gauges(
            "notifier_backlog_entries",
            "Entries that wait in a queue of RabbitMQ and are with no router yet, asked every 5 s "
            "by each router and api; in notifier.dead, those that wait for a person, and in "
            "notifier.unclaimed, events handed back that no queue was bound for.",
            queue="notifier.events.0 to N-1, notifier.unroutable, notifier.aside, notifier.dead; "
            "in routers, apis; notifier.unclaimed in routers",
        )
        self.partitions = self._gauges(
            "notifier_partitions",
            "1 where this router takes from the partition, 0 where it stands by for another.",
            queue="notifier.events.0 to N-1, notifier.unroutable, notifier.aside; in routers",
        )
        self.deduplication_cuts = self._counter(
            "notifier_deduplication_cuts_total",
            "Times a topic forgot 32 ids before their time, as it had 4 million in the window.",
        )
        self.topology_repairs = self._counter(
            "notifier_topology_repairs_total",
            "Times that exchanges and queues were declared anew because one had vanished.",
        )
        self.issuer_fetches = self._counters(
            "notifier_issuer_fetches_total",
            "Times that the token issuer was asked for its keys, by outcome.",
            outcome=("fetched", "failed"),
        )
        self.certificate_expiry = self._gauges(
            "notifier_certificate_expiry_timestamp_seconds",
            "When the certificate expires that a backend showed at the last connect, in Unix time, "
            "only where TLS is used and verified; and the gateway's own, where it has one.",
            backend="rabbitmq, redis, once connected over TLS; gateway for its own",
        )

    def _of_the_process(self) -> None:
        self.build_info = self._gauges(
            "notifier_build_info",
            "Always 1: which role this process has, of which release.",
            role="api, router, gateway or dev: one in a process",
            version="the release",
        )
        self.settings_refused = self._gauge(
            "notifier_settings_refused",
            "1 while the files of settings hold some that cannot work, so that the earlier ones "
            "stay in force until the process ends; the log names them. Else 0.",
        )
        self.loop_lag = self._histograms(
            "notifier_loop_lag_seconds",
            "How late the event loop came to a timer, measured once a second.",
            _LAGS,
        ).labels()

    def reached(self, stage: str, accepted: Iterable[float]) -> None:
        """Events that were accepted at these moments (Unix seconds) have now reached a stage."""
        now, ages = time.time(), self.event_age.labels(stage)
        for moment in accepted:
            ages.observe(max(0.0, now - moment))

    def connected(self, backend: str, writer: asyncio.StreamWriter | None) -> None:
        """A connection to a backend is open: its certificate counts from now."""
        tls = writer and writer.get_extra_info("ssl_object")
        if tls and (certificate := tls.getpeercert()):  # empty where it was not verified
            expiry = cert_time_to_seconds(certificate["notAfter"])
            self.certificate_expiry.labels(backend).set(expiry)

    # Called by the hub.

    def fanned_out(self, followers: int, delay: float) -> None:
        """See Observer."""
        self._fanned_out.value += 1
        self.deliveries.value += followers
        self._written.observe(delay if delay > 0 else 0.0)

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

    def marked(self, outcome: str, moves: int) -> None:
        """See BadgesObserver."""
        self.marks.labels(outcome).inc(moves)

    def recounted(self, users: int) -> None:
        """See BadgesObserver."""
        self.recounts.inc(users)

    def exchanged(self, outcome: str) -> None:
        """See AttendanceObserver."""
        self.exchanges.labels(outcome).inc()

    def presence_told(self, clients: int) -> None:
        """See AttendanceObserver."""
        self.presences.inc(clients)

    def client_published(self, outcome: str) -> None:
        """See PublishingObserver."""
        self.client_events.labels(outcome).inc()
