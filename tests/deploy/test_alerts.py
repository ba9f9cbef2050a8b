"""The alerts: each fires and stays quiet when it should, and has a runbook."""

import functools
import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from tests.support.prometheus import program
from tests.support.promql import Query, parsed, queries

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy/helm/notifier/rules").glob("*.yaml"))
TESTS = sorted((ROOT / "tests/deploy").glob("alerts*.yaml"))
RUNBOOKS = ROOT / "docs/runbooks"

ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for file in RULES
    for group in yaml.load(file.read_text(), yaml.CSafeLoader)["groups"]
    for rule in group["rules"]
}


@functools.cache
def cases() -> dict[str, dict[str, Any]]:
    """The case of each alert, by its name."""
    found = [
        case for file in TESTS for case in yaml.load(file.read_text(), yaml.CSafeLoader)["tests"]
    ]
    assert len({case["name"] for case in found}) == len(found)
    return {case["name"]: case for case in found}


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.services
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    promtool("check", "rules", "--lint-fatal", *RULES)


@pytest.mark.services
def test_each_alert_fires_for_the_sick_and_not_for_the_well() -> None:
    promtool("test", "rules", *TESTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_there_is_a_case_that_fires_and_one_that_does_not(alert: str) -> None:
    case = cases()[alert]

    fires = [each["exp_alerts"] for each in case["alert_rule_test"] if each["alertname"] == alert]

    assert any(fires)
    assert '="well"' in str(case["input_series"])
    assert "'well'" not in str(fires)


def test_each_part_that_can_be_in_trouble_is_watched() -> None:
    """A process in trouble takes no clients; the one that drains is meant to."""
    text = (ROOT / "docs/metrics.md").read_text()
    [parts] = re.findall(r"`notifier_trouble` \| gauge \| `part`: ([\w, ]+);", text)
    rules = " ".join(rule["expr"] for rule in ALERTS.values())
    selected = re.findall(r'notifier_trouble\{part=~?"([\w|]+)"\}', rules)

    assert {*parts.split(", ")} == {"draining", *"|".join(selected).split("|")}


def of_alerts() -> list[Query]:
    return [query for query in queries() if query.place in ALERTS]


@pytest.mark.parametrize("query", of_alerts(), ids=lambda query: query.place)
def test_an_alert_watches_each_installation_by_itself(query: Query) -> None:
    grouped: list[set[str]] = []

    def visit(tree: promql.Expr) -> None:
        if isinstance(tree, promql.AggregateExpr):
            grouped.append({*tree.modifier.labels} if tree.modifier else set())
        if isinstance(tree, promql.BinaryExpr) and tree.modifier and tree.modifier.matching:
            grouped.append({*tree.modifier.matching.labels})

    promql.walk(parsed(query), visit)

    assert grouped
    assert all(labels >= {"cluster", "namespace", "release"} for labels in grouped)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_tells_the_fault_its_severity_and_the_remedy(alert: str) -> None:
    rule = ALERTS[alert]

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_tells_the_users_view_the_place_to_look_and_the_remedy(alert: str) -> None:
    book = (RUNBOOKS / f"{alert}.md").read_text()

    assert book.startswith(f"# {alert}\n\n")
    assert book.count("**Users ") == book.count("**Look**") == book.count("**Mend**") == 1


def test_there_is_no_runbook_without_its_alert() -> None:
    assert {file.stem for file in RUNBOOKS.glob("*.md")} == {*ALERTS}
