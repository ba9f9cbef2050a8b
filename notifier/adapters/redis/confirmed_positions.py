"""The positions that Redis confirmed lately: a process that replaces it may have lost some."""

import asyncio
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from notifier.core.positions import Position

_REMEMBERING = 5.0  # seconds
_MOST_REMEMBERED = 50_000  # topics


class ConfirmedPositions:
    """Positions that Redis confirmed in the last seconds, by the process that has them.

    Redis may lose the last second or two when its process is replaced. Followers that had not yet
    received those publications would never know. This process knows, and has acked their events.
    """

    def __init__(self) -> None:
        self._run_id: str | None = None  # of the current process
        self._newest: dict[str, Position] = {}
        self._former: dict[str, Position] = {}
        self._since = 0.0
        self._unverified: set[tuple[str, Position]] = set()  # confirmed by other processes

    def remember(self, run_id: str, positions: Iterable[tuple[str, Position]]) -> None:
        """Remember positions that a process confirmed, be it the current one or a former one."""
        if run_id != self._run_id:
            self._unverified.update(positions)
            return
        now = asyncio.get_running_loop().time()
        if now - self._since > _REMEMBERING or len(self._newest) > _MOST_REMEMBERED:
            self._former, self._newest, self._since = self._newest, {}, now
        for topic, position in positions:
            known = self._newest.get(topic)
            # Answers to several batches come in any order.
            if known is None or known.epoch != position.epoch or known.offset < position.offset:
                self._newest[topic] = position

    def unverified_on(
        self, run_id: str | None, but: AbstractSet[tuple[str, Position]] = frozenset()
    ) -> list[tuple[str, Position]]:
        """Return the positions, but some, that the current process has not been compared with."""
        if run_id != self._run_id:
            self._unverified.update(self._former.items(), self._newest.items())
            self._former, self._newest, self._run_id = {}, {}, run_id
        return list(self._unverified - but)

    def mark_verified(self, run_id: str, compared: Sequence[tuple[str, Position]]) -> None:
        """Note that this process has these positions, or has begun new epochs for their loss."""
        if run_id != self._run_id:  # replaced meanwhile
            return
        self._unverified.difference_update(compared)
        for topic, position in compared:
            known = self._newest.get(topic)
            # A topic may occur twice, with epochs that continue one another.
            if known is None or known.offset < position.offset:
                self._newest[topic] = position
