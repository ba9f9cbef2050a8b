"""One timer for all: an object that waits for a moment stands in the bucket of its second."""

import math
from typing import Protocol


class Timed(Protocol):
    """Something with one next moment. `due` belongs to Deadlines; None means no moment."""

    due: "set[Timed] | None"

    def on_time(self, now: float) -> float:
        """Do the work that is due at `now`, and return the next moment, 0.0 for none."""


class Deadlines:
    """Objects by the second of their moment, on the clock that `tick` is called with (seconds)."""

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, set[Timed]] = {}
        self._served = math.floor(now)

    def set(self, timed: Timed, when: float) -> None:
        """Let `timed` be due at `when`, rounded up to a second, instead of before."""
        self.clear(timed)
        second = max(math.ceil(when), self._served + 1)
        if (bucket := self._buckets.get(second)) is None:
            bucket = self._buckets[second] = set()
        bucket.add(timed)
        timed.due = bucket

    def clear(self, timed: Timed) -> None:
        """Let `timed` be due no more, and hold it no longer."""
        if timed.due is not None:
            timed.due.discard(timed)
            timed.due = None

    def tick(self, now: float) -> None:
        """Serve each object that is due; to be called once a second. Catches up after a pause."""
        while self._served < math.floor(now):
            self._served += 1
            bucket = self._buckets.pop(self._served, set())
            while bucket:  # another one's turn may take one out
                timed = bucket.pop()
                timed.due = None
                if again := timed.on_time(now):
                    self.set(timed, again)
