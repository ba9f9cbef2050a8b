"""The fixture `notifier`, for tests of services that post events; pytest finds it by itself."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from notifier.testing import Notifier


@pytest.fixture
def notifier() -> Iterator["Notifier"]:
    """A whole notifier of the test's own, on memory, in a thread beside it; see Notifier."""
    from notifier.testing import running

    with running() as it:
        yield it
