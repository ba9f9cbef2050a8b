"""A bound on how often something may happen, whose whole state is one number of its user's."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
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
