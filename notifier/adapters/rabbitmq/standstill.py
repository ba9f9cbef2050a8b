"""Notices that this process stood still: stopped, suspended, starved, or with its loop blocked."""

import asyncio
import time

# In seconds.
_LONGEST = 1.0
_LOOK_EVERY = 0.25

# Unlike the loop's clock it goes on while the machine is suspended, where there is such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Standstill:
    """Counts how often the process stood still for more than a second; `watch` must be running."""

    def __init__(self) -> None:
        self._count = 0
        self._looked_at = time.clock_gettime(_CLOCK)

    def count(self) -> int:
        """Look, and return the count so far, with a standstill that has just ended."""
        now = time.clock_gettime(_CLOCK)
        self._count += now - self._looked_at > _LONGEST
        self._looked_at = now
        return self._count

    async def watch(self) -> None:
        """Look often enough that only a standstill is one."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self.count()
