"""Counters, gauges and histograms in plain numbers, which Prometheus' client reads when asked.

An increment of prometheus_client's own takes a lock, and an observation walks through the buckets:
with all three of a fan-out that was a sixth of the cost of a delivery. All belong to one thread.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, product
from typing import Any, Generic, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

Values = Sequence[str] | str
"""The values of a label: a closed list, or a description."""


class Row(NamedTuple):
    """A metric as operators read it; `labels` has the values of each."""

    name: str
    type: str
    labels: dict[str, Values]
    meaning: str


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, by: float = 1) -> None:
        """Count so many more."""
        self.value += by

    def exposed(self) -> tuple[float]:
        """Return the value."""
        return (self.value,)


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("read", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self.read: Callable[[], float] = lambda: self.value

    def set(self, value: float) -> None:
        """Let it be `value` from now on."""
        self.value = value

    def inc(self) -> None:
        """Let it be one more."""
        self.value += 1

    def dec(self) -> None:
        """Let it be one less."""
        self.value -= 1

    def set_function(self, read: Callable[[], float]) -> None:
        """Call `read` for the value, each time that the metrics are asked for."""
        self.read = read

    def exposed(self) -> tuple[float]:
        """Return the value."""
        return (self.read(),)


class Histogram:
    """How many observations there were up to each of some bounds, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last is of those above all bounds
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def exposed(self) -> tuple[list[tuple[str, float]], float]:
        """Return how many observations are at most each bound, the last infinity; and the sum."""
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True)), self.sum


S = TypeVar("S", Counter, Gauge, Histogram)


class Family(Collector, Generic[S]):
    """A metric: a series for each combination of its labels' values; one if it has no labels."""

    def __init__(self, row: Row, make: Callable[[], S], exposed: Callable[..., Any]) -> None:
        self.row = row
        self._make: Callable[[], S] = make
        self._exposed = exposed  # the family of prometheus_client's
        self._series: dict[tuple[str, ...], S] = {}
        closed = [values for values in row.labels.values() if not isinstance(values, str)]
        if len(closed) == len(row.labels):
            # They begin at 0: an alert sees no growth of a series that was not there before.
            for values in product(*closed):
                self.labels(*values)

    def labels(self, *values: str) -> S:
        """Return the series of these values, one for each label."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = self._make()
        return series

    def remove(self, *values: str) -> None:
        """Tell the series of these values no more."""
        self._series.pop(values, None)

    def clear(self) -> None:
        """Tell none of the series any more."""
        self._series.clear()

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        exposed = self._exposed(self.row.name, self.row.meaning, labels=list(self.row.labels))
        for values, series in self._series.items():
            exposed.add_metric(values, *series.exposed())
        yield exposed


class Metered:
    """Makes metrics, and has them in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)  # which refuses a name twice
        self._rows: list[Row] = []

    def _counters(self, name: str, meaning: str, **labels: Values) -> Family[Counter]:
        row = Row(name, "counter", labels, meaning)
        return self._known(Family(row, Counter, CounterMetricFamily))

    def _counter(self, name: str, meaning: str) -> Counter:
        return self._counters(name, meaning).labels()

    def _gauges(self, name: str, meaning: str, **labels: Values) -> Family[Gauge]:
        row = Row(name, "gauge", labels, meaning)
        return self._known(Family(row, Gauge, GaugeMetricFamily))

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return self._gauges(name, meaning).labels()

    def _histograms(
        self, name: str, meaning: str, bounds: Sequence[float], **labels: Values
    ) -> Family[Histogram]:
        row = Row(name, "histogram", labels, meaning)
        return self._known(Family(row, partial(Histogram, bounds), HistogramMetricFamily))

    def _known(self, family: Family[S]) -> Family[S]:
        self._rows.append(family.row)
        self.registry.register(family)
        return family

    def rows(self) -> Iterator[Row]:
        """Yield a row for each metric of ours; those of the process and of Python are known."""
        return iter(self._rows)
