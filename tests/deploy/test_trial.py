"""The trial in a cluster on one's machine: no cluster runs it here, all else is checked."""

import os
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from notifier.api.keys import ApiKeys
from notifier.core.grants import Grant
from notifier.settings import Role, Settings
from tests.deploy.test_chart import VERSIONS
from tests.support.chart import CHART, ROLES, Object, config, container, read_values, render

ROOT = CHART.parents[2]
TRIAL = ROOT / "deploy/trial"
VALUES = read_values(TRIAL / "values.yaml")
OBJECTS: dict[str, list[Object]] = {
    name: list(yaml.load_all((TRIAL / f"{name}.yaml").read_text(), yaml.CSafeLoader))
    for name in ("memory", "backends")
}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(version: str) -> None:
    for item in [*OBJECTS["memory"], *OBJECTS["backends"], *render(VALUES, release="notifier")]:
        kubernetes_validate.validate(item, version, strict=True)


def containers(name: str) -> dict[str, Any]:
    """The containers of a file, by name."""
    pods = (item["spec"]["template"] for item in OBJECTS[name] if item["kind"] == "Deployment")
    return {each["name"]: each for pod in pods for each in pod["spec"]["containers"]}


def test_the_image_is_the_one_that_is_built_and_loaded() -> None:
    text = (TRIAL / "README.md").read_text()
    [image] = re.findall(r"docker build --tag (\S+) \. && kind load docker-image \1\n", text)

    assert containers("memory")["notifier"]["image"] == image
    for role in ROLES:
        own = container(render(VALUES, release="notifier"), role)
        assert (own["image"], own["imagePullPolicy"]) == (image, "IfNotPresent")


def test_the_page_that_hands_out_tokens_is_reached_from_nowhere_but_inside_the_pod() -> None:
    own = containers("memory")["notifier"]

    assert own["args"] == ["dev"]
    assert "env" not in own  # without NOTIFIER_HOST it listens on loopback
    assert [item["kind"] for item in OBJECTS["memory"]] == ["Deployment"]
    assert "127.0.0.1:9000/readyz" in own["readinessProbe"]["exec"]["command"][-1]


def test_files_that_the_readme_names_are_there() -> None:
    text = (TRIAL / "README.md").read_text()
    named = re.findall(r"(?:--filename|--values) (\S+\.yaml)", text)

    assert len(named) >= 4
    assert all((ROOT / each).exists() for each in named)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_starts_with_the_values(
    role: Role, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("NOTIFIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    objects = render(VALUES, release="notifier")
    for name, value in config(objects, role).items():
        monkeypatch.setenv(name, value)
    for name, place in VALUES["secrets"].items():
        monkeypatch.setenv(name, place["value"])

    Settings.load(role)


def test_a_node_that_allows_few_open_files_lets_the_gateway_be_ready() -> None:
    """A container engine may allow 1,024; the gateway keeps 256 for itself."""
    assert VALUES["config"]["NOTIFIER_MAX_CONNECTIONS"] + 256 <= 1024


def test_the_pod_of_the_test_stays_for_its_logs() -> None:
    """`helm test --logs` of Helm 3 deletes it first where a policy says so, and fails."""
    [pod] = [item for item in render(VALUES, release="notifier") if item["kind"] == "Pod"]

    policy = pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert policy == "before-hook-creation"


def test_addresses_and_the_key_are_those_that_the_backends_make() -> None:
    services = {
        item["metadata"]["name"] for item in OBJECTS["backends"] if item["kind"] == "Service"
    }
    [secret] = [item for item in OBJECTS["backends"] if item["kind"] == "Secret"]
    values = {name: place["value"] for name, place in VALUES["secrets"].items()}
    key = secret["stringData"]["NOTIFIER_API_KEY"]

    assert re.findall(r"@(\w+):", values["NOTIFIER_AMQP_URL"])[0] in services
    assert re.findall(r"//(\w+):", values["NOTIFIER_REDIS_URL"])[0] in services
    assert secret["metadata"]["name"] == VALUES["test"]["existingSecret"]
    assert ApiKeys([values["NOTIFIER_API_KEYS"]]).grant_of(f"Bearer {key}") == Grant("trial")
    assert key in (TRIAL / "README.md").read_text()


@pytest.mark.parametrize("name", ["rabbitmq", "valkey"])
def test_a_service_of_the_backends_finds_its_pods(name: str) -> None:
    of = {item["kind"]: item for item in OBJECTS["backends"] if item["metadata"]["name"] == name}
    pod = of["Deployment"]["spec"]["template"]
    ports = {port["containerPort"] for port in containers("backends")[name]["ports"]}

    assert of["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert {port["port"] for port in of["Service"]["spec"]["ports"]} == ports
