"""The dashboards: Grafana can take them as they are.

Whether there is what they ask for, running processes tell in scenarios/test_metrics.
"""

import json
from itertools import combinations
from typing import Any

import promql_parser as promql
import pytest

from tests.support.promql import CHART, Query, parsed, queries

DASHBOARDS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text()) for file in sorted(CHART.glob("dashboards/*.json"))
}


def of_panels() -> list[Query]:
    return [query for query in queries() if query.place.partition(":")[0] in DASHBOARDS]


def test_there_is_one_for_each_question() -> None:
    assert [*DASHBOARDS] == ["connections", "delivery", "failures", "overview"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_an_installed_dashboard_is_replaced_by_its_next_release(name: str) -> None:
    assert DASHBOARDS[name]["uid"] == f"notifier-{name}"
    assert "id" not in DASHBOARDS[name]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_panel_has_a_title_a_unit_and_the_chosen_prometheus(name: str) -> None:
    for panel in DASHBOARDS[name]["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]

    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"]
    assert all(place["x"] + place["w"] <= 24 for place in places)


@pytest.mark.parametrize("query", of_panels(), ids=lambda query: query.place)
def test_each_selector_keeps_to_the_namespace_that_was_chosen(query: Query) -> None:
    def visit(tree: promql.Expr) -> None:
        if isinstance(tree, promql.MatrixSelector):
            tree = tree.vector_selector
        if isinstance(tree, promql.VectorSelector):
            assert 'namespace=~".*"' in str(tree)

    promql.walk(parsed(query), visit)
