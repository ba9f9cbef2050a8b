"""Documents, dashboards and alerts name the metrics that running processes tell."""

import re
from collections.abc import Iterator, Mapping

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from notifier.telemetry.metrics import Metrics
from tests.support.process import wait_until
from tests.support.prometheus import Prometheus, check_metrics
from tests.support.promql import Known, Query, complaints, filled_in, queries
from tests.support.roles import Role, Service
from tests.support.tls import NO_AUTHORITIES

# Prometheus gives them to whatever it scrapes.
OF_TARGETS = frozenset({"job", "instance", "cluster", "namespace", "release", "pod"})
_OF_HISTOGRAMS = {"bucket": {"le"}, "sum": set[str](), "count": set[str]()}


@pytest.fixture(scope="module")
def exposed(service: Service) -> dict[str, str]:
    """The metrics that each role tells."""
    _until_the_router_tells_of_each_queue(service.router)
    roles = {"api": service.api, "router": service.router, "gateway": service.gateway}
    return {name: told_by(role) for name, role in roles.items()}


def _until_the_router_tells_of_each_queue(router: Role) -> None:
    # It asks every 5 s, and this queue is declared last.
    wait_until(
        lambda: 'queue="notifier.unclaimed"' in told_by(router),
        seconds=30,
        otherwise=lambda: "the router does not tell of notifier.unclaimed",
    )


def told_by(role: Role) -> str:
    return (
        httpx.get(f"{role.private_url}/metrics", timeout=10, verify=NO_AUTHORITIES)
        .raise_for_status()
        .text
    )


def families(exposed: Mapping[str, str]) -> list[Metric]:
    return [family for text in exposed.values() for family in text_string_to_metric_families(text)]


@pytest.fixture(scope="module")
def known(exposed: dict[str, str]) -> Known:
    """The series that the roles tell, with their labels and the values of those."""
    found: dict[str, dict[str, set[str]]] = {}
    described = {row.name.removesuffix("_total"): row for row in Metrics().rows()}
    for family in families(exposed):
        closed = described[family.name].labels if family.name in described else {}
        for name, more in _series_of(family):
            labels = found.setdefault(name, {label: set() for label in (*closed, *more)})
            for sample in family.samples if family.name.startswith("notifier_") else ():
                for label, value in sample.labels.items():
                    labels.get(label, set()).add(value)
    return {
        name: {label: frozenset(values) for label, values in labels.items()}
        for name, labels in found.items()
    }


def _series_of(family: Metric) -> list[tuple[str, set[str]]]:
    match family.type:
        case "counter":
            return [(f"{family.name}_total", set())]
        case "histogram":
            return [(f"{family.name}_{end}", more) for end, more in _OF_HISTOGRAMS.items()]
        case _:
            return [(family.name, set())]


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.place)
def test_a_panel_or_alert_asks_for_nothing_that_no_role_tells(query: Query, known: Known) -> None:
    assert complaints(query, known, OF_TARGETS) == []


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped two instances of each role, be it twice the same."""
    roles = {"api": service.api, "router": service.router, "gateway": service.gateway}
    targets = {f"{name}-{n}": role.private_url for name, role in roles.items() for n in (0, 1)}
    with Prometheus(tmp_path_factory.mktemp("prometheus"), targets) as running:
        running.wait_until_scraped()
        yield running


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.place)
def test_prometheus_can_answer_the_query_of_each_panel_and_alert(
    query: Query, prometheus: Prometheus
) -> None:
    prometheus.query(filled_in(query.expression))


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("notifier_event_total", "there is no notifier_event_total"),
        ("rate(notifier_events[5m])", "there is no notifier_events"),
        ('notifier_events_total{stag="routed"}', "notifier_events_total has no label stag"),
        ('notifier_events_total{stage=~"routed|lost"}', "notifier_events_total has no stage lost"),
        ("sum by (user) (notifier_events_total)", "no label user to group by"),
        ("up * on (job) notifier_holes_total", "there is no up"),
        (
            "notifier_events_total * on (host) notifier_holes_total",
            "no label host to group by",
        ),
        ("sum by (stage) (notifier_events_total)", "no label job to show"),
        ("rate(notifier_events_total[5m])", "no label role to show"),
    ],
)
def test_a_query_for_a_missing_metric_or_label_is_noticed(
    expression: str, complaint: str, known: Known
) -> None:
    shown = frozenset(re.findall(r"no label (\w+) to show", complaint))

    assert complaints(Query("here", expression, shown), known, OF_TARGETS) == [complaint]


def test_each_role_tells_the_documented_metrics_and_no_more(exposed: dict[str, str]) -> None:
    documented = {row.name.removesuffix("_total"): row.type for row in Metrics().rows()}

    for text in exposed.values():
        told = {family.name: family.type for family in text_string_to_metric_families(text)}
        assert documented == {n: t for n, t in told.items() if n.startswith("notifier_")}


def test_labels_take_no_value_that_is_not_documented(exposed: dict[str, str]) -> None:
    documented = {row.name.removesuffix("_total"): row.labels for row in Metrics().rows()}

    for family in families(exposed):
        for sample in family.samples if family.name in documented else ():
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            assert labels.keys() == documented[family.name].keys()
            for name, value in labels.items():
                assert value in documented[family.name][name] or name == "version"


def test_names_and_types_are_as_prometheus_wants_them(exposed: dict[str, str]) -> None:
    for text in exposed.values():
        check_metrics(text)
