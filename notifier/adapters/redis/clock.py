"""Unix time by Redis' clock, as its answers told it: the one that publications expire by."""

from time import monotonic, time

import structlog

from notifier.telemetry.metrics import Metrics

_TOLERATED = 5.0  # seconds by which this machine's clock may differ without a word

_log = structlog.stdlib.get_logger(__name__)


class RedisClock:
    """Redis' clock, asked every few seconds, and carried on by a clock that never jumps.

    It is this machine's own clock until Redis has answered once. The error is at most half the
    round trip that it was asked in, and as much as the clocks have drifted apart since.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ahead = time() - monotonic()
        self._deviates = False

    def now(self) -> float:
        """Return Unix seconds."""
        return monotonic() + self._ahead

    def learn(self, told: float, asked: float) -> None:
        """Take what Redis told just now; it was asked at a moment of the monotonic clock."""
        self._ahead = told - (asked + monotonic()) / 2
        deviation = time() - self.now()
        self._metrics.clock_deviation.set(deviation)
        if self._deviates is (abs(deviation) > _TOLERATED):
            return
        self._deviates = not self._deviates
        if self._deviates:
            _log.warning("clock_deviates", seconds_ahead_of_redis=round(deviation, 3))
        else:
            _log.info("clock_agrees", seconds_ahead_of_redis=round(deviation, 3))
