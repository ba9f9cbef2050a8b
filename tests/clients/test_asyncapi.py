"""The AsyncAPI document against the schema that AsyncAPI publishes of its own version."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from contracts.documents import documents

DOCUMENT = documents()["asyncapi.json"]


@pytest.fixture(scope="module")
def rules(js_client: Path) -> Draft7Validator:
    """The rules of the document's version."""
    schemas = js_client / "node_modules/@asyncapi/specs/schemas"
    return Draft7Validator(json.loads((schemas / f"{DOCUMENT['asyncapi']}.json").read_text()))


def complaints(rules: Draft7Validator, document: Any) -> list[str]:  # noqa: ANN401  # JSON
    return [f"{error.json_path}: {error.message[:300]}" for error in rules.iter_errors(document)]


def test_the_document_keeps_the_rules_of_its_version(rules: Draft7Validator) -> None:
    assert complaints(rules, DOCUMENT) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda it: it.update(operation=it.pop("operations")),
        lambda it: it["operations"]["takeFrames"].update(action="take"),
        lambda it: it["operations"]["takeFrames"].update(messages=[{"name": "ping"}]),
        lambda it: next(iter(it["channels"].values())).update(adress="/v1/ws"),
        lambda it: it["info"].pop("version"),
    ],
    ids=["member", "action", "message", "channel", "version"],
)
def test_a_fault_is_found(rules: Draft7Validator, spoil: Callable[[Any], object]) -> None:
    spoilt = deepcopy(DOCUMENT)

    spoil(spoilt)

    assert complaints(rules, spoilt)
