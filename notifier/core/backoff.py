"""The pauses between tries at something that failed."""

import random


class Backoff:
    """The pauses between tries at one thing, in seconds: a random time, up to a ceiling.

    The ceiling is `first`, and doubles with each try up to `longest`. No pause is shorter than half
    of `first`. Chance keeps those that failed together from coming together.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = self._ceiling = first
        self._longest = longest

    def next(self) -> float:
        """Return the next pause."""
        ceiling, self._ceiling = self._ceiling, min(self._ceiling * 2, self._longest)
        return random.uniform(self._first / 2, ceiling)  # noqa: S311 - jitter

    def reset(self) -> None:
        """Begin again with the first ceiling, after a success."""
        self._ceiling = self._first
