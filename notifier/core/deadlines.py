"""One timer for all: an object that waits for a moment stands in the bucket of its second."""

import math
from typing import Protocol


class Timed(Protocol):
    """Something with one next moment. `due` belongs to Deadlines; 0 means none."""

    due: int

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
        timed.due = max(math.ceil(when), self._served + 1)
        self._buckets.setdefault(timed.due, set()).add(timed)

    def clear(self, timed: Timed) -> None:
        """Let `timed` be due no more, and hold it no longer."""
        if bucket := self._buckets.get(timed.due):
            bucket.discard(timed)
        timed.due = 0

    def tick(self, now: float) -> None:
        """Serve each object that is due; to be called once a second. Catches up after a pause."""
        while self._served < math.floor(now):
            self._served += 1
            for timed in self._buckets.pop(self._served, ()):
                # Another one's turn may have ended this one, or given it another moment.
                if timed.due == self._served and (again := timed.on_time(now)):
                    self.set(timed, again)
