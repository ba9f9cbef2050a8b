"""The Helm chart as tests see it: rendered by Helm itself, without a cluster."""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from notifier.settings import Role

CHART = Path(__file__).parents[2] / "deploy/helm/notifier"
RELEASE, NAMESPACE = "push", "prod"
ROLES: tuple[Role, ...] = ("gateway", "router", "api")

Object = dict[str, Any]
Values = dict[str, Any]


def values_files() -> list[Path]:
    """The values that the chart is tried with: those of CI, and the examples for users."""
    return [*sorted(CHART.glob("ci/*.yaml")), *sorted(CHART.glob("examples/*.yaml"))]


def read_values(path: Path) -> Values:
    """The values of a file."""
    values: Values = yaml.load(path.read_text(), yaml.CSafeLoader)
    return values


def minimal(**more: Any) -> Values:  # noqa: ANN401  # values are any
    """The values that a newcomer sets, and more of them: maps are merged."""
    return _merged(read_values(CHART / "ci/minimal-values.yaml"), more)


def everything(**more: Any) -> Values:  # noqa: ANN401  # values are any
    """The values with everything on, and more of them: maps are merged."""
    return _merged(read_values(CHART / "ci/everything-values.yaml"), more)


def _merged(values: Values, more: Mapping[str, Any]) -> Values:
    merged = dict(values)
    for key, given in more.items():
        known = merged.get(key)
        nested = isinstance(given, dict) and isinstance(known, dict)
        merged[key] = _merged(known or {}, given) if nested else given
    return merged


@functools.cache
def _loaded(chart: Path) -> helm_python.Chart:
    return helm_python.Chart.load(chart)


def templates(values: Values, path: Path = CHART, release: str = RELEASE) -> dict[str, str]:
    """The text that each template becomes; raises HelmError as `helm template` fails."""
    chart = _loaded(path)
    chart.validate_schema(values)
    return chart.render(values, name=release, namespace=NAMESPACE, is_install=True)


def render(values: Values, chart: Path = CHART, release: str = RELEASE) -> list[Object]:
    """The objects that Helm would apply, those of tests with them; not to be changed."""
    return _render(json.dumps(values), chart, release)


@functools.cache
def _render(values: str, chart: Path, release: str) -> list[Object]:
    found = templates(json.loads(values), chart, release)
    texts = (text for path, text in found.items() if path.endswith(".yaml"))
    return [item for text in texts for item in yaml.load_all(text, yaml.CSafeLoader) if item]


def refusal(values: Values) -> str:
    """The sentence with which the chart refuses values."""
    with pytest.raises(helm_python.HelmError) as error:
        templates(values)
    return re.sub(r".*error calling fail: ", "", str(error.value), flags=re.DOTALL)


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    """Those of one kind."""
    return [item for item in objects if item["kind"] == kind]


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """The one of this kind and name."""
    [found] = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    return found


def deployment(objects: Iterable[Object], role: str) -> Object:
    """The Deployment of a role."""
    [found] = [item for item in of_kind(objects, "Deployment") if role_of(item) == role]
    return found


def role_of(item: Object) -> str | None:
    """The role that an object belongs to, by its label."""
    role: str | None = item["metadata"]["labels"].get("app.kubernetes.io/component")
    return role


def pods(objects: Iterable[Object]) -> Iterator[Object]:
    """Each pod that would run: those of Deployments, and the test's."""
    for item in objects:
        if item["kind"] == "Deployment":
            yield item["spec"]["template"]
        elif item["kind"] == "Pod":
            yield item


def pod(objects: Iterable[Object], role: str) -> Object:
    """The spec of a role's pods."""
    spec: Object = deployment(objects, role)["spec"]["template"]["spec"]
    return spec


def container(objects: Iterable[Object], role: str) -> Object:
    """notifier's own container of a role."""
    return next(each for each in pod(objects, role)["containers"] if each["name"] == "notifier")


def config(objects: Iterable[Object], role: str) -> dict[str, str]:
    """The settings in a role's ConfigMap."""
    [found] = [item for item in of_kind(objects, "ConfigMap") if role_of(item) == role]
    data: dict[str, str] = found["data"]
    return data
