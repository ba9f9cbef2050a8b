"""Time for clients' requests and ends: a little in each turn of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable

_TURN = 0.001  # seconds


class Turns:
    """Does work while this turn of the event loop has time for it, and the rest in later turns.

    When thousands come back or go at once, all their requests or ends are there at once, and the
    loop would serve nobody else until it had taken the last of them.
    """

    def __init__(self) -> None:
        self._ends: float | None = None
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, work: Callable[[], None]) -> bool:
        """Do the work now, or later if this turn's time is over; return whether it is done."""
        if not self._has_time():
            self._waiting.append(work)
            return False
        work()
        return True

    def _has_time(self) -> bool:
        loop = asyncio.get_running_loop()
        if self._ends is not None:
            return loop.time() < self._ends
        self._ends = loop.time() + _TURN
        loop.call_soon(self._next)
        return True

    def _next(self) -> None:
        self._ends = None
        while self._waiting and self._has_time():
            self._waiting.popleft()()
