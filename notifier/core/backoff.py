"""Pauses between tries: each up to twice as long as the one before, at random, within bounds."""

import random


class Backoff:
    """The pauses between tries at one thing, in seconds."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest = shortest
        self._longest = longest
        self._pause = shortest

    def next(self) -> float:
        """Return the next pause. Jitter keeps those that failed together from coming together."""
        pause, self._pause = self._pause, min(self._pause * 2, self._longest)
        return random.uniform(pause / 2, pause)  # noqa: S311 - jitter

    def reset(self) -> None:
        """Begin again with the shortest pause, after a success."""
        self._pause = self._shortest
