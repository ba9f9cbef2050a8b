"""Prometheus and its tool, from Debian's package."""

import shutil

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
