"""compose.yaml cannot be run here: what it says to notifier is checked all the same."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from notifier.api.keys import ApiKeys
from notifier.core.grants import Grant
from notifier.settings import Role, Settings
from tests.support.chart import CHART, ROLES

FILE = CHART.parents[2] / "compose.yaml"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("NOTIFIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"][name]
    return found


def load(role: Role, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in service(role)["environment"].items():
        monkeypatch.setenv(name, value)
    return Settings.load(role)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_starts_with_its_variables(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    load(role, monkeypatch)

    assert service(role)["command"] == [role]


def test_a_gateway_has_time_to_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    grace = float(service("gateway")["stop_grace_period"].removesuffix("s"))

    assert grace > load("gateway", monkeypatch).drain_seconds + 10


def test_the_key_that_it_tells_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    [key] = re.findall(r"Bearer (\S+)\"", FILE.read_text())

    assert ApiKeys(load("api", monkeypatch).api_keys).grant_of(f"Bearer {key}") == Grant("trial")


def test_nothing_listens_beyond_this_machine() -> None:
    services = yaml.safe_load(FILE.read_text())["services"].values()
    ports = [port for each in services for port in each.get("ports", ())]

    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any(port.endswith(":9000") for port in ports)
