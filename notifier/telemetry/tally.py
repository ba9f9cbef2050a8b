"""Counting at the price of an addition, for what happens with every publication.

An increment of prometheus_client takes a lock, and an observation walks through the buckets: with
all three of a fan-out that was a sixth of what a delivery costs.
"""

from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Iterable, Sequence

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Tally(Collector):
    """Fan-outs in plain numbers, which go into the metrics whenever these are asked for.

    To be registered before the metrics are. Belongs to one thread.
    """

    def __init__(self) -> None:
        self._publications = self._deliveries = 0
        self._seconds = 0.0
        self._bounds: list[float] = []
        self._counts: list[int] = []

    def feed(self, publications: Counter, deliveries: Counter, seconds: Histogram) -> None:
        """Name the metrics that the numbers go into."""
        self._metrics = publications, deliveries, seconds
        self._bounds = seconds._upper_bounds  # noqa: SLF001 - it takes many at once by no other way
        self._counts = [0] * len(self._bounds)

    def add(self, followers: int, delay: float) -> None:
        """Count one publication, to so many followers, `delay` seconds after it was accepted."""
        self._publications += 1
        self._deliveries += followers
        self._seconds += delay
        self._counts[bisect_left(self._bounds, delay)] += 1

    def collect(self) -> Iterable[Metric]:
        """Pass the numbers on; see Collector."""
        publications, deliveries, seconds = self._metrics
        publications.inc(self._publications)
        deliveries.inc(self._deliveries)
        seconds._sum.inc(self._seconds)  # noqa: SLF001 - as above
        for bucket, count in zip(seconds._buckets, self._counts, strict=True):  # noqa: SLF001 - as above
            bucket.inc(count)
        self._publications = self._deliveries = 0
        self._seconds, self._counts = 0.0, [0] * len(self._bounds)
        return ()


def observe_all(histogram: Histogram, seconds: Sequence[float]) -> None:
    """Observe many at once, at the price of one for each bucket that they fall into."""
    bounds = histogram._upper_bounds  # noqa: SLF001 - as above
    for bucket, count in Counted(bisect_left(bounds, each) for each in seconds).items():
        histogram._buckets[bucket].inc(count)  # noqa: SLF001 - as above
    histogram._sum.inc(sum(seconds))  # noqa: SLF001 - as above
