"""Marks: how far a user has received and read a topic, as positions that only move forward.

A mark is a set of publications: all up to `read`, and single ones above it. A move adds to the set
and takes nothing away, so any order of the moves gives the same mark. Nothing is
counted: `notifier.core.unread` derives the unread ones from the stream each time, so nothing can
drift.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from notifier.core.errors import Invalid, TooMany
from notifier.core.history import History
from notifier.core.positions import Position

MOST_SINGLES = 256
"""How many single publications of a topic may be read above `read`."""

MOST_TOPICS = 256
"""In how many topics a user has marks."""

ORDER = "marks"
"""The order that tells gateways of a move: see `notifier.core.signals`."""

BEYOND = "is beyond the newest event of the topic; take the position from an event's frame"
RESTARTED = "is of a stream that is gone; after a gap take positions from frames that follow it"
TOO_MANY_TOPICS = f"a user has marks in at most {MOST_TOPICS} topics"
TOO_MANY_SINGLES = f"at most {MOST_SINGLES} single events are read above `read`: move `read` up"


@dataclass(frozen=True, slots=True)
class Move:
    """A user's mark in a topic: read and received up to here, and these single ones read."""

    user: str
    topic: str
    read: Position | None = None
    received: Position | None = None
    read_only: tuple[Position, ...] = ()


class Mark(NamedTuple):
    """Offsets in one epoch of a topic's stream.

    All up to `read` are read, and the `singles` above it, in their order; none touches `read`.
    """

    epoch: str
    read: int = 0
    received: int = 0
    singles: tuple[int, ...] = ()

    def carried(self, history: History) -> "Mark":
        """Return this mark in the present epoch, as far as that one continues the mark's own."""
        last = history.last_of(self.epoch) or 0
        singles = tuple(offset for offset in self.singles if offset <= last)
        return Mark(history.head.epoch, min(self.read, last), min(self.received, last), singles)

    def moved(self, move: Move, history: History) -> "Mark":
        """Return the mark after a move; `history` has the stream's head and lineage.

        Raises Invalid for a position that the stream does not have, and TooMany.
        """
        old = self.carried(history)
        read, received = (
            _offset(position, history, field) if position else 0
            for field, position in (("read", move.read), ("received", move.received))
        )
        singles = [
            _offset(position, history, f"read_only[{index}]")
            for index, position in enumerate(move.read_only)
        ]
        read, rest = _folded(max(old.read, read), (*old.singles, *singles))
        if len(rest) > MOST_SINGLES:
            raise TooMany(TOO_MANY_SINGLES)
        return Mark(old.epoch, read, max(old.received, received), rest)

    def has_read(self, offset: int) -> bool:
        """Whether a publication of the mark's epoch is read."""
        return offset <= self.read or offset in self.singles


UNMARKED = Mark("none")
"""The mark of a user who has read nothing."""


def _offset(position: Position, history: History, field: str) -> int:
    last = history.last_of(position.epoch)
    if last is None:
        raise Invalid(field, RESTARTED)
    if position.offset > last:
        raise Invalid(field, BEYOND)
    return position.offset


def _folded(read: int, singles: Iterable[int]) -> tuple[int, tuple[int, ...]]:
    """Let `read` take in the single ones that touch it, one after another."""
    rest = sorted({offset for offset in singles if offset > read})
    touching = 0
    while touching < len(rest) and rest[touching] == read + touching + 1:
        touching += 1
    return read + touching, tuple(rest[touching:])
