import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as LibrarysHistogram

from notifier.telemetry.metrics import Metrics
from notifier.telemetry.series import Metered

BOUNDS = (0.001, 0.0025, 1, 300)


class Few(Metered):
    """One metric of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = self._counter("turns_total", "Turns.")
        self.errors = self._counters("errors_total", "Errors.", reason=("odd", "late"))
        self.waiting = self._gauges("waiting", "Waiting.", queue="any queue")
        self.age = self._histograms("age_seconds", "Age.", BOUNDS).labels()

    def exposed(self) -> str:
        return generate_latest(self.registry).decode()


@given(st.lists(st.floats(0, 400) | st.sampled_from(BOUNDS), max_size=30))
def test_a_histogram_is_exposed_as_the_library_exposes_its_own(ages: list[float]) -> None:
    few, registry = Few(), CollectorRegistry()
    expected = LibrarysHistogram("age_seconds", "Age.", registry=registry, buckets=BOUNDS)

    for age in ages:
        few.age.observe(age)
        expected.observe(age)

    expected_samples = [sample for each in registry.collect() for sample in each.samples]
    for sample in expected_samples:
        if not sample.name.endswith("_created"):
            told = few.registry.get_sample_value(sample.name, sample.labels)
            assert told == pytest.approx(sample.value)


def test_a_label_with_a_closed_list_begins_at_zero_and_another_with_nothing() -> None:
    exposed = Few().exposed()

    assert 'errors_total{reason="late"} 0.0' in exposed
    assert "waiting{" not in exposed


def test_a_series_that_is_removed_is_told_no_more() -> None:
    few = Few()
    few.waiting.labels("one").set(7)
    few.waiting.labels("other").set(8)

    few.waiting.remove("one")
    few.waiting.remove("unknown")

    assert 'waiting{queue="one"}' not in few.exposed()
    assert 'waiting{queue="other"} 8.0' in few.exposed()


def test_a_metric_that_is_cleared_has_no_series() -> None:
    few = Few()
    few.waiting.labels("one").set(7)

    few.waiting.clear()

    assert "waiting{" not in few.exposed()


def test_a_gauge_with_a_function_is_asked_each_time() -> None:
    few, numbers = Few(), iter((1, 2))
    few.waiting.labels("one").set_function(lambda: next(numbers))

    assert 'waiting{queue="one"} 1.0' in few.exposed()
    assert 'waiting{queue="one"} 2.0' in few.exposed()


def test_two_metrics_of_one_name_are_refused() -> None:
    class Twice(Few):
        def __init__(self) -> None:
            super().__init__()
            self.again = self._gauge("turns_total", "Again.")

    with pytest.raises(ValueError, match="Duplicated"):
        Twice()


def test_a_metric_that_is_read_twice_is_not_counted_again() -> None:
    metrics = Metrics()
    for followers in (3, 4):
        metrics.fanned_out(followers, 0.02)
        generate_latest(metrics.registry)

    assert metrics.registry.get_sample_value("notifier_deliveries_total") == 7
    name = "notifier_event_age_seconds_count"
    assert metrics.registry.get_sample_value(name, {"stage": "written"}) == 2
