"""Rate limits: how often something may happen, with one number as the state of each user."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many a second, and `burst` seconds' worth of them at once.

    The generic cell rate algorithm (ITU-T I.371): it keeps the moment up to which
    everything is paid for. Each time moves it on; it may be at most `burst` ahead of now.
    """

    rate: float
    burst: float

    def paid(self, until: float, now: float, count: float = 1) -> float | None:
        """Return the moment that takes the place of `until`, or None when it is too much.

        0.0 is the moment to begin with. Times are in seconds, of any one clock.
        """
        after = max(until, now) + count / self.rate
        return after if after <= now + self.burst else None


class RateLimits:
    """One rate limit for each of many names. A name costs nothing once it is at rest again."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._paid: dict[str, float] = {}  # the one that came last stands last

    def allow(self, name: str, now: float, count: float = 1) -> bool:
        """Whether `name` may go on; a refused act is not counted."""
        until = self._paid.pop(name, 0.0)
        paid = self._limit.paid(until, now, count)
        self._paid[name] = until if paid is None else paid
        while self._paid and self._paid[oldest := next(iter(self._paid))] <= now:
            del self._paid[oldest]
        return paid is not None
