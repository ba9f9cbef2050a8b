"""Unix time by Redis' clock, which publications expire by."""

from time import monotonic, time

import structlog

from notifier.telemetry.metrics import Metrics

_TOLERATED = 5.0  # seconds by which this machine's clock may differ before it is logged

_log = structlog.stdlib.get_logger(__name__)


class RedisClock:
    """Redis' clock, read every few seconds; a clock that never jumps carries it on.

    It is this machine's own clock until Redis has answered once. Its error is at most half the
    round trip of the last answer, plus the drift since then.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ahead = time() - monotonic()
        self._deviates = False

    def now(self) -> float:
        """Return Unix seconds."""
        return monotonic() + self._ahead

    def learn(self, answered: float, asked: float) -> None:
        """Set it by an answer of Redis in Unix seconds; `asked` is of the monotonic clock."""
        self._ahead = answered - (asked + monotonic()) / 2
        deviation = time() - self.now()
        self._metrics.clock_deviation.set(deviation)
        if self._deviates is (abs(deviation) > _TOLERATED):
            return
        self._deviates = not self._deviates
        if self._deviates:
            _log.warning("clock_deviates", seconds_ahead_of_redis=round(deviation, 3))
        else:
            _log.info("clock_agrees", seconds_ahead_of_redis=round(deviation, 3))
