"""The unread events: derived from a topic's stream and a mark, and never kept."""

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from notifier.core.history import History
from notifier.core.marks import Mark
from notifier.core.recovery import recoverable


class Unread(NamedTuple):
    """How many publications are unread; with `more` there may be others that history has not."""

    number: int
    more: bool


class Countable:
    """The publications of a topic that count as unread, as of one answer of history's.

    Those count that a client which comes back would get, and that are not silent. `now` is in Unix
    milliseconds.
    """

    def __init__(self, history: History, now: int) -> None:
        self._history = history
        self._offsets = [
            publication.position.offset
            for publication in history.publications
            if not publication.silent and recoverable(publication, history.newest, now)
        ]
        first = history.publications[0].position.offset if history.publications else None
        self._reaches = history.head.offset if first is None else first - 1

    def unread(self, mark: Mark) -> Unread:
        """Count those behind a mark, which may be of an earlier epoch."""
        mark = mark.carried(self._history)
        behind = len(self._offsets) - bisect_right(self._offsets, mark.read)
        singles = sum(self._has(offset) for offset in mark.singles)
        return Unread(behind - singles, mark.read < self._reaches)

    def _has(self, offset: int) -> bool:
        at = bisect_left(self._offsets, offset)
        return at < len(self._offsets) and self._offsets[at] == offset
