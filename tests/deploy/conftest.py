"""Kubernetes' schemas, read once: each is a megabyte, and objects are many."""

import functools
from collections.abc import Iterator

import kubernetes_validate
import pytest


@pytest.fixture(scope="session", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        reader = kubernetes_validate.utils
        patch.setattr(reader, "schema_contents", functools.cache(reader.schema_contents))
        yield
