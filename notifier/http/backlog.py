"""Bounds the sum of all bytes that wait in this process for clients that do not read."""

from collections.abc import Callable
from typing import Protocol

UNCOUNTED = 16 * 1024  # bytes that may wait for a client before it is counted
_MOST = 128 * 1024 * 1024
_ENOUGH = 7 / 8  # of the bound: so that the next byte does not go over it again


class Debtor(Protocol):
    """A connection whose client does not keep up."""

    @property
    def waiting(self) -> int:
        """Bytes that were sent to the client and are still in this process."""

    def cut_off(self) -> None:
        """Close the connection; waiting bytes may still go out for a few seconds."""

    def drop(self) -> None:
        """Close the connection at once, with all that waits."""


class Backlog:
    """Counts the bytes that wait for slow clients; past the bound it closes the largest.

    Clients that are being closed have a bound of the same size for the few seconds that this takes,
    so at most twice `most` bytes wait. `on_cut` is called for each plain answer that is cut off.
    """

    def __init__(self, most: int = _MOST, on_cut: Callable[[], None] = lambda: None) -> None:
        self.most = most
        self.on_cut = on_cut
        self._total = 0
        self._waiting: dict[Debtor, int] = {}
        self._leaving: dict[Debtor, int] = {}

    @property
    def total(self) -> int:
        """Bytes that wait, those of clients that are being closed among them."""
        return self._total + sum(self._leaving.values())

    def note(self, debtor: Debtor) -> None:
        """Count again the bytes that wait for a client that does not keep up."""
        size = debtor.waiting
        self._total += size - self._waiting.get(debtor, 0)
        self._waiting[debtor] = size
        if self._total > self.most:
            self._relieve()

    def forget(self, debtor: Debtor) -> None:
        """Hear that a client keeps up again, or is gone."""
        self._total -= self._waiting.pop(debtor, 0)
        self._leaving.pop(debtor, None)

    def _relieve(self) -> None:
        self._waiting = {each: each.waiting for each in self._waiting}  # some has gone out since
        self._total = sum(self._waiting.values())
        for debtor in sorted(self._waiting, key=self._waiting.__getitem__, reverse=True):
            if self._total <= self.most * _ENOUGH:
                break
            size = self._waiting.pop(debtor)
            self._total -= size
            self._leaving[debtor] = size
            debtor.cut_off()
        if sum(self._leaving.values()) > self.most:
            self._drop_leaving()

    def _drop_leaving(self) -> None:
        leaving, self._leaving = self._leaving, {}
        for debtor in leaving:
            debtor.drop()
