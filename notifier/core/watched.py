"""Events with delivery reports to come.

Marks are positions, and an event's fate follows from them: see `notifier.core.fate`. So nothing is
recorded for a report. A copy of the event waits beside the event queue, comes to a router again and
again, and says of which users which reports were sent.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from notifier.core import events
from notifier.core.bounded_json import read_json
from notifier.core.entries import LARGEST_ENTRY_BODY, Entry, routing_key_of
from notifier.core.errors import Invalid
from notifier.core.event_rules import LONGEST_TTL
from notifier.core.events import Event
from notifier.core.fate import Fate
from notifier.core.reports import Report
from notifier.core.undelivered import DELAYS

WATCHED = "application/vnd.notifier.watched+json"
"""The content type of an entry that waits for its next reports."""

SECONDS = 24 * 3600
"""How long reports come, from the acceptance on; longer only if the event itself lives longer."""

_LAST = {
    Fate.READ: Report.READ,
    Fate.EXPIRED: Report.EXPIRED,
    Fate.SUPERSEDED: Report.SUPERSEDED,
    Fate.BEYOND_HISTORY: Report.BEYOND_HISTORY,
}
"""The reports that no other follows."""


class _Kept(Struct):
    event: Raw
    received: list[str]


_kept = msgspec.json.Decoder(_Kept)


class Watched(NamedTuple):
    """An event with reports to come: `received` are users of its whose receipt is reported."""

    event: Event
    accepted: float
    received: frozenset[str] = frozenset()

    def delay(self, now: float) -> int:
        """Return how long it waits next: a report comes before the event is twice as old."""
        age = now - self.accepted
        return next((delay for delay in DELAYS if delay <= age), DELAYS[-1])

    def entry(self) -> Entry:
        """Write the entry that waits."""
        kept = _Kept(Raw(events.encode(self.event)), sorted(self.received))
        key = routing_key_of(self.event)
        return Entry(msgspec.json.encode(kept), key, WATCHED, accepted=self.accepted)

    def is_over(self, now: float) -> bool:
        """Whether too much time has passed for any further report."""
        lives = min(self._expires - self.accepted, LONGEST_TTL)
        return now >= self.accepted + max(SECONDS, lives)

    @property
    def _expires(self) -> float:
        return self.event.expires.timestamp() if self.event.expires else 0.0

    def judged(self, fates: Mapping[str, Fate], now: float) -> dict[str, Fate]:
        """Return the users' fates, so that they contradict no report that was sent.

        An event that nobody marked in its time is expired.
        """
        return {user: self._judged(user, fate, now) for user, fate in fates.items()}

    def _judged(self, user: str, fate: Fate, now: float) -> Fate:
        is_gone = fate in (Fate.BEYOND_HISTORY, Fate.NOT_PUBLISHED)
        if fate.reached:
            return fate
        if user in self.received:  # Redis has lost the mark
            return Fate.BEYOND_HISTORY if is_gone else Fate.RECEIVED
        if 0 < self._expires <= now:
            return Fate.EXPIRED
        return Fate.BEYOND_HISTORY if is_gone else fate

    def due(self, fates: Mapping[str, Fate]) -> list[tuple[str, Report]]:
        """Return the reports that follow from the users' fates and were not sent yet."""
        return [(user, kind) for user, fate in fates.items() for kind in self._due(user, fate)]

    def _due(self, user: str, fate: Fate) -> Iterator[Report]:
        if fate.reached and user not in self.received:
            yield Report.RECEIVED
        if fate in _LAST:
            yield _LAST[fate]

    def after(self, fates: Mapping[str, Fate]) -> "Watched | None":
        """Return what is left to watch once those reports are sent; None when nothing is."""
        users = [user for user, fate in fates.items() if fate not in _LAST]
        if not users:
            return None
        received = frozenset(user for user in users if fates[user].reached)
        return self._replace(event=replace(self.event, users=users), received=received)


def watched_in(entry: Entry) -> Watched:
    """Read an entry that waited for its next reports; raises Invalid."""
    kept = read_json(entry.body, _kept, LARGEST_ENTRY_BODY)
    event = events.decode(bytes(kept.event), events.LARGEST_ENTRY)
    if not event.report or event.users is UNSET:
        missing = "users" if event.report else "report"
        raise Invalid(missing, "is missing: no router wrote this entry")
    return Watched(event, entry.accepted, frozenset(kept.received))
