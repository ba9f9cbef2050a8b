"""The backends that a suite in `tests/contract` runs on."""

from collections.abc import Callable
from typing import Any

import pytest


def on_each(**backends: Callable[[pytest.FixtureRequest], Any]) -> Any:  # noqa: ANN401  # a fixture
    """Make a fixture that gives each test in turn what each of these makes, under its name."""

    @pytest.fixture(
        params=[
            pytest.param(make, id=name, marks=pytest.mark.services if name != "memory" else ())
            for name, make in backends.items()
        ]
    )
    def backend(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401  # each suite has its own
        return request.param(request)

    return backend
