"""Prometheus and its tool, from Debian's package."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.process import Process, free_port, wait_until
from tests.support.tls import NO_AUTHORITIES


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    if path := shutil.which(name):
        return path
    pytest.fail(
        f"{name} is missing: install the package prometheus (Debian, Ubuntu: apt-get install "
        "prometheus; macOS: brew install prometheus).",
        pytrace=False,
    )


def check_metrics(text: str) -> None:
    """Have promtool look for names, types and helps that go against Prometheus' conventions."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus(Process):
    """A Prometheus that scrapes every second; `targets` are addresses, by the name of each.

    The name becomes the label `instance`; there is no `namespace` and no `pod`.
    """

    def __init__(self, home: Path, targets: Mapping[str, str]) -> None:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._wanted = len(targets)
        (home / "prometheus.yml").write_text(yaml.safe_dump(_configuration(targets)))
        command = (
            program("prometheus"),
            f"--config.file={home}/prometheus.yml",
            f"--storage.tsdb.path={home}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        super().__init__(command, log=home / "prometheus.log", environment={})

    def wait_until_scraped(self) -> None:
        """Return when each target has been scraped."""
        wait_until(self._has_scraped, seconds=30, otherwise=self.log_tail)

    def _has_scraped(self) -> bool:
        try:
            return len(self.query("up == 1")) == self._wanted
        except (httpx.TransportError, httpx.HTTPStatusError):
            return False

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The value of an expression, now or at a moment in Unix seconds."""
        return self._ask("query", query=expression, **({} if at is None else {"time": at}))

    def query_range(
        self, expression: str, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        """The values of an expression over time, in Unix seconds."""
        return self._ask("query_range", query=expression, start=start, end=end, step=step)

    def _ask(self, what: str, **parameters: str | float) -> list[dict[str, Any]]:
        answer = httpx.get(
            f"{self._url}/api/v1/{what}", params=parameters, timeout=30, verify=NO_AUTHORITIES
        )
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise AssertionError(answer.json()["error"])
        result: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
        return result


def _configuration(targets: Mapping[str, str]) -> dict[str, Any]:
    scraped: Sequence[dict[str, Any]] = [
        {"targets": [url.removeprefix("http://")], "labels": {"instance": name}}
        for name, url in targets.items()
    ]
    job = {"job_name": "notifier", "static_configs": scraped}
    return {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
