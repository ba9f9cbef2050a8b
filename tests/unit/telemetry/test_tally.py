import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from notifier.telemetry.metrics import Metrics
from notifier.telemetry.tally import observe_all


def seconds(metrics: Metrics) -> list[str]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    name = "notifier_event_age_seconds"
    return [line for line in lines if line.startswith(name) and 'stage="written"' in line]


@given(st.lists(st.floats(0, 400) | st.sampled_from([0.001, 0.0025, 1, 300]), max_size=30))
def test_delays_are_told_as_the_library_would_tell_them(delays: list[float]) -> None:
    tallied, plain = Metrics(), Metrics()

    for delay in delays:
        tallied.fanned_out(1, delay)
        plain.event_age.labels("written").observe(delay)

    *buckets, count, total = seconds(tallied)
    *expected, expected_count, expected_total = seconds(plain)
    assert [*buckets, count] == [*expected, expected_count]
    assert float(total.split()[1]) == pytest.approx(float(expected_total.split()[1]))


def test_what_was_told_once_is_not_counted_again() -> None:
    metrics = Metrics()
    for followers in (3, 4):
        metrics.fanned_out(followers, 0.02)
        generate_latest(metrics.registry)

    assert metrics.registry.get_sample_value("notifier_deliveries_total") == 7
    name = "notifier_event_age_seconds_count"
    assert metrics.registry.get_sample_value(name, {"stage": "written"}) == 2


@given(st.lists(st.floats(0, 400) | st.sampled_from([0.001, 0.0025, 1, 300]), max_size=30))
def test_many_at_once_are_told_as_one_after_another(ages: list[float]) -> None:
    at_once, singly = Metrics(), Metrics()

    observe_all(at_once.event_age.labels("written"), ages)
    for age in ages:
        singly.event_age.labels("written").observe(age)

    assert seconds(at_once)[:-1] == seconds(singly)[:-1]
    assert float(seconds(at_once)[-1].split()[1]) == pytest.approx(sum(ages))
