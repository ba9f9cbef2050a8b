"""Helm 3 makes of chart and values what Helm 4 makes, of the packaged chart too."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.chart import CHART, NAMESPACE, RELEASE, Object, read_values, render, values_files

pytestmark = pytest.mark.image


def helm(*arguments: str | Path) -> str:
    """Run Helm 3, which `go install` makes; its name is its own, as `helm` may be Helm 4."""
    program = shutil.which("helm3")
    if program is None:
        pytest.fail(
            "helm3 is missing: with Go, `GOBIN=/tmp go install helm.sh/helm/v3/cmd/helm@v3.18.6 && "
            "install /tmp/helm /usr/local/bin/helm3`.",
            pytrace=False,
        )
    command = (program, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(item["kind"], item["metadata"]["name"]): item for item in objects}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as a registry would hold it."""
    place = tmp_path_factory.mktemp("packaged")
    helm("package", CHART, "--destination", place)
    [archive] = place.glob("notifier-*.tgz")
    return archive


@pytest.mark.parametrize("path", values_files(), ids=lambda path: path.stem)
def test_helm_3_renders_the_same_as_helm_4(path: Path, packaged: Path) -> None:
    place = ("--namespace", NAMESPACE, "--values", path, "--kube-version", "1.30.0")
    text = helm("template", RELEASE, packaged, *place)
    found = [item for item in yaml.load_all(text, yaml.CSafeLoader) if item]

    assert by_name(found) == by_name(render(read_values(path)))


def test_helm_3_refuses_values_that_cannot_work() -> None:
    with pytest.raises(AssertionError, match=re.escape("image.repository is required")):
        helm("template", RELEASE, CHART, "--kube-version", "1.30.0")


@pytest.mark.parametrize(
    "section",
    ["config", "secrets", "commonLabels", "gateway.autoscaling", "networkPolicy.dns", "test"],
)
def test_a_section_that_is_null_is_named(section: str) -> None:
    """Null takes the default away; a section is null when all its lines are commented out."""
    place = ("--set", f"image.repository=x,{section}=null", "--kube-version", "1.30.0")
    with pytest.raises(AssertionError, match=f"missing property '{section.rpartition('.')[2]}'"):
        helm("template", RELEASE, CHART, *place)


def test_examples_and_dashboards_are_in_the_package(packaged: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(packaged, tmp_path)
    there = {str(path.relative_to(tmp_path / "notifier")) for path in tmp_path.rglob("*.*")}

    assert {"README.md", "examples/values-alb.yaml", "dashboards/overview.json"} <= there
