"""Texts that stand twice are the same in both places, and linters have nothing to say."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.helm import generate
from notifier import __version__
from tests.support.chart import CHART, ROLES, container, render, values_files

ROOT = CHART.parents[2]
RUN = "run `make chart`"


def test_the_schema_knows_the_settings_of_today() -> None:
    text = (CHART / "values.schema.json").read_text()

    assert text == generate.schema_text(text), RUN


def test_the_table_in_the_readme_is_that_of_the_values() -> None:
    text = (CHART / "README.md").read_text()

    assert text == generate.readme_text(text), RUN


def leaves(values: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401  # YAML
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    else:
        yield path


def test_every_value_is_documented() -> None:
    text = (CHART / "values.yaml").read_text()
    documented = {row.path for row in generate.rows(text)}

    def is_told(path: str) -> bool:
        return path in documented or ("." in path and is_told(path.rpartition(".")[0]))

    assert [path for path in leaves(yaml.safe_load(text)) if not is_told(path)] == []


def closed(schema: Any, path: str = "") -> Iterator[str]:  # noqa: ANN401  # JSON
    properties = schema.get("properties", {})
    if properties and schema.get("additionalProperties") is not False:
        yield path
    for name, each in properties.items():
        if isinstance(each, dict):
            yield from closed(each, f"{path}.{name}")


def test_the_schema_is_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    found = [*closed(schema), *(p for each in schema["$defs"].values() for p in closed(each))]

    assert found == [".global"]  # a parent chart's, with keys for others: the chart itself looks


def test_the_schema_and_the_values_have_the_same_keys() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert schema["properties"].keys() == values.keys()
    for name, value in values.items():
        known = schema["properties"][name]
        known = schema["$defs"][known["$ref"].rpartition("/")[2]] if "$ref" in known else known
        if known.get("additionalProperties") is False and name != "config":
            assert known["properties"].keys() == value.keys()


def test_each_example_tells_its_purpose_in_its_first_line() -> None:
    assert all(path.read_text().startswith("# ") for path in values_files())


def test_each_example_is_told_of() -> None:
    readme = (CHART / "README.md").read_text()

    assert [
        p.name for p in sorted(CHART.glob("examples/*")) if f"examples/{p.name}" not in readme
    ] == []


def test_links_of_the_readme_lead_into_the_packaged_chart() -> None:
    readme = (CHART / "README.md").read_text()
    left_out = (CHART / ".helmignore").read_text().split()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", readme):
        path = (CHART / link).resolve()
        assert path.exists()
        assert path.is_relative_to(CHART)
        assert f"{path.relative_to(CHART).parts[0]}/" not in left_out


def commands(document: Path) -> str:
    """The commands of a document, one a line."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return "\n".join(blocks).replace("\\\n", " ")


@pytest.mark.parametrize("document", [ROOT / "README.md", CHART / "README.md"], ids=["", "chart"])
def test_the_documented_install_runs_the_image_that_was_built_and_pushed(document: Path) -> None:
    text = commands(document)
    [pushed] = re.findall(r"docker push (\S+)", text)
    [install] = re.findall(r"^helm install notifier deploy/helm/notifier .*", text, re.MULTILINE)
    given = dict(each.split("=", 1) for each in re.findall(r"--set (\S+)", install))
    values: dict[str, Any] = {"image": {}, "config": {}}
    for path, value in given.items():
        section, _, name = path.rpartition(".")
        (values[section] if section else values)[name] = value

    objects = render(values)

    assert f"docker build --tag {pushed} ." in text
    assert {container(objects, role)["image"] for role in ROLES} == {pushed}


def test_the_chart_s_version_is_that_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == __version__
    assert f"ARG VERSION={chart['appVersion']}" in (ROOT / "Dockerfile").read_text()


def complaints(*command: str | Path) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return found.stdout + found.stderr


def test_yamllint_has_nothing_to_say() -> None:
    trial = (ROOT / "deploy/trial").glob("*.yaml")
    files = [ROOT / "compose.yaml", *CHART.glob("*.yaml"), *values_files(), *trial]

    assert complaints(sys.executable, "-m", "yamllint", "--strict", *files) == ""


@pytest.mark.parametrize("name", ["Dockerfile"])
def test_hadolint_has_nothing_to_say(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")

    assert complaints(hadolint, name) == ""
