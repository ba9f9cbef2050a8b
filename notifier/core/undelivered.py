"""Events that come back to their producers unless users receive them in time.

Such an event waits beside the event queue, and is delivered to a router again when a delay is over.
The router then asks for its fate: see `notifier.core.fate`.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

from msgspec import UNSET, Struct
from msgspec.structs import replace

from notifier.core import events
from notifier.core.entries import Entry, entry_of
from notifier.core.errors import Invalid
from notifier.core.events import Event
from notifier.core.publications import hex_digest_of

WAITED = "application/vnd.notifier.waited+json"
"""The content type of an entry that has waited."""

DELAYS = (600, 60, 10, 1)
"""How long an entry may wait at once, in seconds. A longer time is made of several."""

_TOLERANCE = 0.5  # seconds by which an event may come back early


class Reason(StrEnum):
    """Why an event comes back."""

    OFFLINE = "offline"
    UNCONFIRMED = "unconfirmed"  # the user is connected, and no client has marked it
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    BEYOND_HISTORY = "beyond_history"
    LOST = "lost"  # the broker lost the stream


class Waiting(NamedTuple):
    """An event that users have to receive by a moment; `accepted` is in Unix seconds."""

    event: Event
    accepted: float

    def delay(self, now: float) -> int:
        """Return how long it waits next; 0: its time is over."""
        left = self.accepted + float(self.event.undelivered_after or 0) - now
        return next((delay for delay in DELAYS if delay <= left + _TOLERANCE), 0)

    def entry(self) -> Entry:
        """Write the entry that waits."""
        return entry_of(self.event, self.accepted, WAITED)

    def of(self, users: Collection[str]) -> "Waiting":
        """Return the same for some of its users."""
        return self._replace(event=replace(self.event, users=list(users)))


def waiting_in(entry: Entry) -> Waiting:
    """Read an entry that has waited; raises Invalid."""
    event = events.decode(entry.body, events.LARGEST_ENTRY)
    if event.undelivered_after is UNSET or event.users is UNSET:
        missing = "users" if event.undelivered_after else "undelivered_after"
        raise Invalid(missing, "is missing: no router wrote this entry")
    return Waiting(event, entry.accepted)


class HandedBack(Struct, frozen=True):
    """An event on its way back, of one user: CloudEvents JSON, and why.

    `id` is the same each time that this event of this user comes back.
    """

    user: str
    reason: Reason
    event: bytes
    id: str


def handed_back(event: Event, user: str, reason: Reason) -> HandedBack:
    """Return an event as it goes back for a user who did not receive it."""
    name = hex_digest_of(f"{event.identity} {user}")
    return HandedBack(user, reason, events.delivered(event), name)
