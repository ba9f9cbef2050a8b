import time

from prometheus_client import generate_latest

from notifier.telemetry.metrics import Metrics


def exposed(metrics: Metrics) -> list[str]:
    return generate_latest(metrics.registry).decode().splitlines()


def test_a_fan_out_counts_one_publication_and_each_delivery() -> None:
    metrics = Metrics()

    metrics.fanned_out(3, 0.02)

    assert 'notifier_publications_total{outcome="fanned_out"} 1.0' in exposed(metrics)
    assert "notifier_deliveries_total 3.0" in exposed(metrics)
    assert 'notifier_event_age_seconds_bucket{le="0.025",stage="written"} 1.0' in exposed(metrics)
    assert 'notifier_event_age_seconds_bucket{le="0.01",stage="written"} 0.0' in exposed(metrics)


def test_recovered_events_count_as_delivered() -> None:
    metrics = Metrics()

    metrics.recovered(5)

    assert 'notifier_publications_total{outcome="recovered"} 5.0' in exposed(metrics)
    assert "notifier_deliveries_total 5.0" in exposed(metrics)


def test_gaps_holes_and_expired_ones_are_counted() -> None:
    metrics = Metrics()

    metrics.gap("expired", 2)
    metrics.hole()
    metrics.expired(4)

    assert 'notifier_gaps_total{reason="expired"} 2.0' in exposed(metrics)
    assert "notifier_holes_total 1.0" in exposed(metrics)
    assert 'notifier_publications_total{outcome="expired"} 4.0' in exposed(metrics)


def test_two_processes_worth_of_metrics_live_side_by_side() -> None:
    one, other = Metrics(), Metrics()

    one.hole()

    assert "notifier_holes_total 0.0" in exposed(other)


def test_counters_with_a_closed_list_of_labels_begin_at_zero() -> None:
    metrics = Metrics()

    assert 'notifier_dead_letters_total{reason="invalid"} 0.0' in exposed(metrics)
    assert 'notifier_connections{transport="sse"} 0.0' in exposed(metrics)


def test_an_age_is_never_negative_though_clocks_differ() -> None:
    metrics = Metrics()

    metrics.reached("taken", [time.time() + 60])
    metrics.fanned_out(1, -60.0)

    assert 'notifier_event_age_seconds_bucket{le="0.001",stage="taken"} 1.0' in exposed(metrics)
    assert 'notifier_event_age_seconds_sum{stage="taken"} 0.0' in exposed(metrics)
    assert 'notifier_event_age_seconds_sum{stage="written"} 0.0' in exposed(metrics)


def test_each_label_of_each_metric_is_described() -> None:
    described = {(row.name.removesuffix("_total"), *row.labels) for row in Metrics().rows()}

    for family in Metrics().registry.collect():
        for sample in family.samples if family.name.startswith("notifier_") else ():
            labels = [label for label in sample.labels if label != "le"]
            assert (family.name, *labels) in described
