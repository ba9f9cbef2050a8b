"""Reads a batch: each delivery becomes events, and each event its publications."""

import logging
from collections.abc import Callable, Iterator

import structlog
from msgspec import UNSET

from notifier.core.entries import events_of
from notifier.core.errors import NotifierError
from notifier.core.events import Event
from notifier.core.ports import Bad, Batch, Delivery
from notifier.core.publications import NewPublication, publications_of
from notifier.core.undelivered import WAITED, Waiting, waiting_in
from notifier.core.watched import WATCHED, Watched, watched_in

_log = structlog.get_logger("notifier.router")
_logged = logging.getLogger("notifier.router")  # asked first, in a tenth of the time


class Progress:
    """How far one delivery of a batch has come. With an `error` it becomes a dead letter."""

    __slots__ = ("accepted", "batch", "delivery", "error", "events")

    def __init__(self, batch: Batch, delivery: Delivery) -> None:
        self.batch = batch
        self.delivery = delivery
        self.events = 0  # that it carries
        self.accepted = 0.0  # in Unix seconds, where the producer said it
        self.error: NotifierError | None = None

    def refuse(self, error: NotifierError) -> None:
        """Note why one of its publications cannot be published."""
        self.error = error

    def moments(self) -> list[float]:
        """Return when each of its events was accepted, where that is known."""
        return [self.accepted] * self.events if self.accepted else []


class BatchReader:
    """A batch whose deliveries are understood one after another, as their publications are needed.

    A delivery that cannot be understood gets an `error`. `now` tells Unix seconds: an event whose
    producer did not say is accepted at that moment, and its `ttl` counts from there.
    """

    def __init__(self, batch: Batch, now: Callable[[], float]) -> None:
        self.batch = batch
        self._now = now
        self.deliveries = [Progress(batch, delivery) for delivery in batch.deliveries]
        self.waited: list[Waiting] = []  # events that come from where they waited
        self.watched: list[Watched] = []  # and those whose next reports are due
        self._acked: list[tuple[Progress, Event, float]] = []
        self._taken: list[float] = []

    def taken(self) -> list[float]:
        """Return when the events were accepted that were understood since the last call."""
        moments, self._taken = self._taken, []
        return moments

    @property
    def has_followed(self) -> bool:
        """Whether a producer wants to know more of any event than that it is published."""
        return bool(self._acked or self.waited or self.watched)

    def awaited(self) -> list[Waiting]:
        """Return the published events that are to be received in time."""
        return [
            Waiting(event, accepted)
            for progress, event, accepted in self._acked
            if event.undelivered_after is not UNSET and not progress.error
        ]

    def reported(self) -> list[Watched]:
        """Return the published events with reports to come."""
        return [
            Watched(event, accepted)
            for progress, event, accepted in self._acked
            if event.report and not progress.error
        ]

    def bad(self) -> list[Bad]:
        """Return the deliveries that become dead letters."""
        found = ((each.delivery, each.error) for each in self.deliveries)
        return [Bad(delivery, error.code, str(error)) for delivery, error in found if error]

    def publications(self) -> Iterator[tuple[Progress, list[NewPublication]]]:
        """Yield the publications of each event, and an empty list for a refused delivery."""
        for progress in self.deliveries:
            now = self._now()  # one moment for all of it, however long its chunks wait for Redis
            try:
                for event in self._understood(progress, now):
                    accepted = progress.accepted or now
                    if event.wants_ack:
                        self._acked.append((progress, event, accepted))
                    yield progress, publications_of(event, accepted)
            except Exception as error:  # noqa: BLE001 - see _refusal
                progress.refuse(_refusal(error))
                yield progress, []

    def _understood(self, progress: Progress, now: float) -> list[Event]:
        entry = progress.delivery.entry
        if entry.content_type == WAITED:
            self.waited.append(waiting_in(entry))
            return []
        if entry.content_type == WATCHED:
            self.watched.append(watched_in(entry))
            return []
        events = events_of(entry, now)
        progress.events, progress.accepted = len(events), entry.accepted
        self._taken += progress.moments()
        if _logged.isEnabledFor(logging.DEBUG):
            for event in events:
                _log.debug("routing", event_id=event.id, source=event.source)
        return events


def _refusal(error: Exception) -> NotifierError:
    """Say why a delivery cannot be understood, so that it alone becomes a dead letter.

    Were a defect of ours to end the router, RabbitMQ would deliver again, for ever, and count each
    time against the good entries beside it.
    """
    if isinstance(error, NotifierError):
        return error
    if isinstance(error, MemoryError):
        raise error  # says nothing about the delivery
    _log.error("delivery_not_understood", exc_info=error)
    return NotifierError(f"notifier failed at it: {error!r}")
