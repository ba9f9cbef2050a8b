"""Requests good and bad, that schemathesis makes from an OpenAPI document when a test runs.

Its own decorator makes them while tests are collected, in every worker.
"""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from requests import Session
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.generation.hypothesis.builder import (
    HypothesisTestConfig,
    HypothesisTestMode,
    create_test,
)

GOOD, BAD = ["2xx", "401", "403", "404", "429"], ["4xx", "207"]  # statuses
# Bounds above these have tests of their own: a request of such a size is large for HTTP too.
_LARGE = {"maxItems": 100, "maxLength": 10_000}
_SETTINGS = settings(
    max_examples=5,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def described(
    document: dict[str, Any], auth: dict[str, dict[str, str]], refused: dict[str, int]
) -> schemathesis.BaseSchema:
    """Make a schema of a document.

    `refused` has by path the status of requests that are good by their form, and are refused for a
    reason that no schema can state.
    """
    checks = {"negative_data_rejection": {"expected-statuses": [*BAD, *refused.values()]}}
    operations = [
        {
            "include-path": path,
            "checks": checks | {"positive_data_acceptance": {"expected-statuses": [*GOOD, status]}},
        }
        for path, status in refused.items()
    ]
    config = {
        "seed": 1,
        "auth": {"openapi": auth},
        "operations": operations,
        "checks": checks,
    }
    return schemathesis.openapi.from_dict(
        _without_large_bounds(document), config=SchemathesisConfig.from_dict(config)
    )


def _without_large_bounds(found: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(found, list):
        return [_without_large_bounds(each) for each in found]
    if not isinstance(found, dict):
        return found
    return {
        name: _without_large_bounds(each)
        for name, each in found.items()
        if not (name in _LARGE and each > _LARGE[name])
    }


def fuzz(schema: schemathesis.BaseSchema, method: str, path: str, url: str) -> None:
    """Send requests to one operation; raises an error for an answer that is not described.

    They are the examples of the document, each bound of each rule, and others by chance, which is
    the same in each run.
    """

    config = HypothesisTestConfig(
        project=schema.config, modes=list(HypothesisTestMode), settings=_SETTINGS
    )
    with Session() as session:
        session.trust_env = False  # it would look for proxies, passwords and authorities each time

        def check(case: "Case[Any]") -> None:
            case.call_and_validate(base_url=url, session=session)

        create_test(operation=schema[path][method], test_func=check, config=config)()
