from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from contracts.documents import documents
from notifier.openapi import Application

OPENAPI = {name: each for name, each in documents().items() if name.startswith("openapi")}
SURFACES = pytest.mark.parametrize("name", sorted(OPENAPI))


async def post(path: str) -> httpx.Response:
    app = Application("title", "description", {"key": {"type": "http", "scheme": "bearer"}})

    async def endpoint() -> None:
        pass

    app.add_api_route("/v1/events", endpoint, methods=["POST"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
        return await http.request("GET" if path == "/openapi.json" else "POST", path)


async def test_the_description_has_the_schemes_of_security_and_the_form_of_a_problem() -> None:
    components = (await post("/openapi.json")).json()["components"]

    assert list(components["securitySchemes"]) == ["key"]
    assert components["schemas"]["Problem"]["required"] == ["type", "title", "status", "detail"]


@pytest.mark.parametrize("path", ["/v1/events/", "/v1/events//"])
async def test_nobody_is_redirected(path: str) -> None:
    assert (await post(path)).status_code == 404


@SURFACES
def test_a_description_is_openapi_3_1(name: str) -> None:
    assert OPENAPI[name]["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(OPENAPI[name]).validate()


@SURFACES
def test_each_example_keeps_the_rules_that_stand_beside_it(name: str) -> None:
    shown = list(examples_in(OPENAPI[name]))

    assert shown
    for schema, example in shown:
        whole = {**schema, "components": OPENAPI[name]["components"]}
        Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
            example
        )


@SURFACES
def test_each_body_and_each_good_answer_in_json_has_an_example(name: str) -> None:
    lacking = [
        (path, status)
        for path, status, content in contents_of(OPENAPI[name])
        if status < "3" and "examples" not in content
    ]

    assert lacking == []


@SURFACES
def test_each_endpoint_says_in_a_sentence_why_it_is_there(name: str) -> None:
    for path, operations in OPENAPI[name]["paths"].items():
        for operation in operations.values():
            assert operation.get("description"), path


def contents_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, status (empty for a body) and description of each body in JSON."""
    for path, operations in document["paths"].items():
        for told in operations.values():
            bodies = {"": told.get("requestBody", {}), **told["responses"]}
            for status, body in bodies.items():
                if content := body.get("content", {}).get("application/json"):
                    yield path, status, content


def examples_in(found: object) -> Iterator[tuple[dict[str, Any], object]]:
    if isinstance(found, dict):
        examples = found.get("examples")
        if isinstance(examples, dict) and "schema" in found:
            yield from ((found["schema"], each["value"]) for each in examples.values())
        elif isinstance(examples, list):
            yield from ((found, each) for each in examples)
        found = list(found.values())
    if isinstance(found, list):
        for each in found:
            yield from examples_in(each)
