"""Seats in memory: for `notifier dev`, and for tests of the bound on a user's connections."""

from collections import Counter
from typing import Self


class MemorySeats:
    """Fulfils `notifier.core.ports.Seats` for the gateways that share `taken`."""

    def __init__(self, most: int, taken: Counter[str] | None = None) -> None:
        self._most = most
        self._taken = Counter[str]() if taken is None else taken
        self._held = Counter[str]()

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Release the seats that are still held."""
        self._taken -= self._held
        self._held.clear()

    async def claim(self, user: str) -> bool:
        """See Seats."""
        if self._taken[user] >= self._most:
            return False
        self._taken[user] += 1
        self._held[user] += 1
        return True

    def release(self, user: str) -> None:
        """See Seats."""
        for counts in (self._taken, self._held):
            counts[user] -= 1
            if not counts[user]:
                del counts[user]
