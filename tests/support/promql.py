"""The queries of panels and alerts, read by a parser of PromQL."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import promql_parser as promql
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/notifier"


@dataclass(frozen=True)
class Query:
    """An expression, and the labels that a legend or a sentence makes of its answer."""

    place: str
    expression: str
    shown: frozenset[str]


def _queries() -> Iterator[Query]:
    for file in sorted(CHART.glob("dashboards/*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                shown = re.findall(r"{{(\w+)}}", target["legendFormat"])
                place = f"{file.stem}: {panel['title']} {target['refId']}"
                yield Query(place, target["expr"], frozenset(shown))
    for file in sorted(CHART.glob("rules/*.yaml")):
        for group in yaml.load(file.read_text(), yaml.CSafeLoader)["groups"]:
            for rule in group["rules"]:
                shown = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
                yield Query(rule["alert"], rule["expr"], frozenset(shown))


def queries() -> list[Query]:
    """Every query of every panel and alert."""
    return list(_queries())


def filled_in(expression: str, interval: str = "5m") -> str:
    """An expression as Grafana sends it."""
    return expression.replace("$__rate_interval", interval).replace("$namespace", ".*")


def parsed(query: Query) -> promql.Expr:
    """The syntax tree of a query, its variables filled in; raises ValueError."""
    return promql.parse(filled_in(query.expression))


Known = Mapping[str, Mapping[str, frozenset[str]]]
"""The labels of each series, and the values of each; none where they cannot be known beforehand."""


def complaints(query: Query, known: Known, of_targets: frozenset[str]) -> list[str]:
    """The names in a query that are not there; `of_targets` are labels that any series has."""
    tree = parsed(query)
    asked = _Asked(tree)
    labels = {each.name or "": known.get(each.name or "") for each in asked.selectors}
    if missing := [name for name, found in labels.items() if found is None]:
        return [f"there is no {name}" for name in missing]
    there = of_targets.union(*filter(None, labels.values()))
    answered = _labels_of(tree, known, of_targets)
    return [
        *(odd for each in asked.selectors for odd in _odd(each, known, of_targets)),
        *(f"no label {label} to group by" for label in asked.labels - there),
        *(f"no label {label} to show" for label in query.shown - answered),
    ]


def _odd(
    selector: promql.VectorSelector, known: Known, of_targets: frozenset[str]
) -> Iterator[str]:
    labels = known[selector.name or ""]
    for matcher in selector.matchers.matchers:
        if matcher.name not in labels.keys() | of_targets:
            yield f"{selector.name} has no label {matcher.name}"
        elif values := labels.get(matcher.name):
            for value in {*matcher.value.split("|")} - values:
                yield f"{selector.name} has no {matcher.name} {value}"


def _labels_of(tree: promql.Expr, known: Known, of_targets: frozenset[str]) -> frozenset[str]:
    """The labels of a query's answer."""

    def of(*trees: promql.Expr) -> frozenset[str]:
        return frozenset[str]().union(*(_labels_of(each, known, of_targets) for each in trees))

    found: frozenset[str] = frozenset()
    match tree:
        case promql.VectorSelector():
            found = of_targets | known[tree.name or ""].keys()
        case promql.MatrixSelector():
            found = of(tree.vector_selector)
        case promql.AggregateExpr():
            found = frozenset(tree.modifier.labels if tree.modifier else ())
        case promql.Call():
            found = of(*tree.args)
            if tree.func.name == "label_replace":
                found |= {tree.args[1].val}
        case promql.ParenExpr() | promql.SubqueryExpr():
            found = of(tree.expr)
        case promql.BinaryExpr():
            joined = tree.modifier.group_labels if tree.modifier else None
            found = (of(tree.lhs) or of(tree.rhs)).union(joined or ())
        case _:  # numbers and words have none
            pass
    return found


class _Asked:
    """The selectors of an expression, and the labels that it groups and joins by."""

    def __init__(self, tree: promql.Expr) -> None:
        self.selectors: list[promql.VectorSelector] = []
        self.labels: set[str] = set()
        promql.walk(tree, self._visit)

    def _visit(self, tree: promql.Expr) -> None:
        match tree:
            case promql.VectorSelector():
                self.selectors.append(tree)
            case promql.MatrixSelector():
                self.selectors.append(tree.vector_selector)
            case promql.AggregateExpr() if tree.modifier:
                self.labels |= {*tree.modifier.labels}
            case promql.BinaryExpr() if tree.modifier:
                matching = tree.modifier.matching
                self.labels |= {*(matching.labels if matching else ())}
                self.labels |= {*(tree.modifier.group_labels or ())}
