"""Prometheus and its tool, from Debian's package."""

import shutil
import subprocess

import pytest


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
