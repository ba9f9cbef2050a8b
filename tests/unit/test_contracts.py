from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from contracts.documents import documents
from contracts.generate import promises, released
from contracts.promises import breaches, of_frames, of_http
from notifier.schemas import schemas

DOCUMENTS = documents()
ASYNCAPI = DOCUMENTS["asyncapi.json"]
Change = Callable[[dict[str, Any]], object]


def test_the_code_keeps_each_promise_of_the_last_release() -> None:
    assert breaches(released(), promises()) == [], "tell it in CHANGELOG; make contracts RELEASE=1"


def test_asyncapi_refers_to_channels_messages_and_schemas_that_exist() -> None:
    for target in references_in(ASYNCAPI):
        found: Any = ASYNCAPI
        for step in target.removeprefix("#/").split("/"):
            found = found[step.replace("~1", "/")]


def test_asyncapi_has_the_members_that_its_version_3_requires() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= ASYNCAPI["info"].keys()
    for channel in ASYNCAPI["channels"].values():
        assert channel["address"]
        assert channel["messages"]
    for operation in ASYNCAPI["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert all(each["$ref"].startswith(channel) for each in operation["messages"])


def test_asyncapi_has_each_frame_in_its_direction() -> None:
    taken = ASYNCAPI["operations"]["takeFrames"]["messages"]
    sent = ASYNCAPI["operations"]["sendFrames"]["messages"]

    assert len(taken) == len(schemas()["ClientFrame"]["oneOf"])
    assert len(sent) == len(schemas()["ServerFrame"]["oneOf"])


def test_the_schemas_of_frames_stand_by_themselves() -> None:
    validator = Draft202012Validator(DOCUMENTS["frames.json"])

    Draft202012Validator.check_schema(DOCUMENTS["frames.json"])
    assert validator.is_valid({"type": "ping"})
    assert not validator.is_valid({"type": "subscribe"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d["paths"].pop("/v1/presence"), "POST /v1/presence | is called"),
        (
            lambda d: d["paths"]["/v1/events"]["post"]["responses"].pop("202"),
            "POST /v1/events | answers 202 is lost",
        ),
        (
            lambda d: d["components"]["schemas"]["Event"]["properties"].pop("ttl"),
            "Event | takes ttl: number is lost",
        ),
        (
            lambda d: d["components"]["schemas"]["Event"]["required"].append("id"),
            "demand | Event | requires id is new",
        ),
        (
            lambda d: d["components"]["schemas"]["Seen"]["required"].remove("since"),
            "Seen | always sends since is lost",
        ),
        (
            lambda d: d["components"]["schemas"]["Event"]["properties"]["ttl"].update(
                type="string"
            ),
            "Event | takes ttl: number is lost",
        ),
    ],
    ids=["path", "answer", "member", "required", "answered", "type"],
)
def test_a_change_that_breaks_clients_is_told(change: Change, sentence: str) -> None:
    before = DOCUMENTS["openapi-api.json"]
    after = deepcopy(before)
    change(after)

    told = breaches(set(of_http(before)), set(of_http(after)))

    assert any(sentence in each for each in told), told


def test_a_frame_that_is_no_longer_sent_is_told() -> None:
    after = deepcopy(ASYNCAPI)
    after["operations"]["sendFrames"]["messages"].pop(0)

    assert breaches(set(of_frames(ASYNCAPI)), set(of_frames(after)))


def test_a_new_endpoint_a_new_frame_and_a_new_member_break_nobody() -> None:
    before = set(of_http(DOCUMENTS["openapi-api.json"]))
    after = deepcopy(DOCUMENTS["openapi-api.json"])
    after["paths"]["/v2/events"] = after["paths"]["/v1/events"]
    after["components"]["schemas"]["Event"]["properties"]["new"] = {"type": "string"}
    after["paths"]["/v1/new"] = {
        "post": {
            "operationId": "new",
            "parameters": [{"name": "x", "in": "query", "required": True}],
            "responses": {},
        }
    }

    assert breaches(before, set(of_http(after))) == []


def references_in(found: object) -> list[str]:
    if isinstance(found, list):
        return [target for each in found for target in references_in(each)]
    if not isinstance(found, dict):
        return []
    own = [found["$ref"]] if isinstance(found.get("$ref"), str) else []
    return own + [target for each in found.values() for target in references_in(each)]
