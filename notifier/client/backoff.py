"""Pauses between tries, with full jitter: those that failed together do not come together."""

import random


class Backoff:
    """Each is a random time up to a ceiling, in seconds; the ceiling doubles up to `longest`."""

    def __init__(self, first: float, longest: float, shortest: float = 0.0) -> None:
        self._first = self._ceiling = first
        self._longest = longest
        self._shortest = shortest

    def next(self) -> float:
        """Return the next pause."""
        ceiling, self._ceiling = self._ceiling, min(self._ceiling * 2, self._longest)
        return random.uniform(self._shortest, ceiling)  # noqa: S311 - jitter

    def reset(self) -> None:
        """Begin again with the first ceiling, after a success."""
        self._ceiling = self._first


def seconds_in(retry_after: str | None) -> float:
    """Read a header `Retry-After`; 0 without one, and for a date, which needs equal clocks."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
