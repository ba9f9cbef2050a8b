import json
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec import UNSET

from notifier.core import events, frames
from notifier.core.errors import Invalid
from notifier.core.names import checked_topic, is_name
from notifier.core.positions import Position, parse_cursor
from notifier.gateway.entrance import _topics
from notifier.schemas import PLACE, names_in, referenced, schemas

NAMES = st.text(alphabet="aZ0-._~:@/+=|$!&,*{ é", max_size=6) | st.just("user:")
DOTTED = st.sampled_from(
    ["", ".", "..", "...", "a", "b", "user:", "user:.", ".@a", "a@", "a.", "é"]
)
LISTS = st.lists(DOTTED | NAMES, max_size=4).map(",".join)
PLACES = st.from_regex(r"([k3K.@ ]{0,4}|k{15,17})\.?(start|[0-9]{0,2}|1\d{15,16})", fullmatch=True)
GOOD_PLACES = st.sampled_from(["k3.1", "start", "k.0"]) | PLACES
CURSORS = st.lists(st.tuples(DOTTED | NAMES, GOOD_PLACES).map("@".join), max_size=4).map(",".join)


def takes(name: str, value: object) -> bool:
    whole = {"$ref": PLACE + name, "components": {"schemas": schemas()}}
    checker = Draft202012Validator.FORMAT_CHECKER
    return bool(Draft202012Validator(whole, format_checker=checker).is_valid(value))


def test_each_schema_is_one_of_2020_12_and_refers_to_others_that_exist() -> None:
    for name, schema in schemas().items():
        Draft202012Validator.check_schema(schema)
        assert set(names_in(schema)) <= schemas().keys(), name


def test_each_frame_of_the_unions_has_a_schema() -> None:
    tags = [
        each.__struct_config__.tag
        for union in (frames.ClientFrame, frames.ServerFrame)
        for each in get_args(union)
        if each is not frames.Relayed
    ]

    described = [
        tag
        for name in ("ClientFrame", "ServerFrame")
        for tag in schemas()[name]["discriminator"]["mapping"]
    ]
    assert described == [*tags, "event", "ephemeral"]


def test_a_document_takes_along_the_schemas_that_its_schemas_refer_to() -> None:
    found = referenced({"schema": {"$ref": PLACE + "EventFrame"}})

    assert {"EventFrame", "CloudEvent", "Position", "Topic"} <= found.keys()
    assert "Event" not in found


@given(NAMES)
def test_a_name_is_good_in_the_schema_if_it_is_in_the_code(text: str) -> None:
    assert takes("Name", text) == is_name(text)


@given(NAMES | NAMES.map("user:{}".format))
def test_a_topic_is_good_in_the_schema_if_it_is_in_the_code(text: str) -> None:
    assert takes("Topic", text) == is_taken(lambda: checked_topic(text, "topic"))


@given(LISTS)
def test_topics_are_good_in_the_schema_if_they_are_in_the_code(text: str) -> None:
    assert takes("Topics", text) == is_taken(lambda: _topics(text))


@given(PLACES)
def test_a_position_is_good_in_the_schema_if_it_is_in_the_code(text: str) -> None:
    assert takes("Since", text) == is_taken(lambda: Position.parse(text))
    assert takes("Position", text) == (takes("Since", text) and text != "start")


@given(CURSORS)
@example("")
@example(".@k3.1")
@example("user:..@k3.1,a@k3.1")
@example(".@a@k3.1")
@example("a@k3.1,b@k3.1,a@start")
@example("a@k3.1,b@a@k3.1")
@example(",".join(f"{n}@k3.1" for n in range(2_200)))
def test_a_cursor_is_good_in_the_schema_if_it_is_in_the_code(text: str) -> None:
    assert takes("Cursor", text) == is_taken(lambda: parse_cursor(text))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"topic": "news"},
        {"users": []},
        {"users": ["a b"]},
        {"type": ""},
        {"type": "a\x00b"},
        {"type": "t" * 257},
        {"source": "a b"},
        {"source": "/orders?a=%20"},
        {"dataschema": "/relative"},
        {"ttl": 0},
        {"ttl": 5},
        {"ttl": 5, "expires": "2026-01-31T09:30:00Z"},
        {"data": 1, "data_base64": "AA=="},
        {"data_base64": "AA="},
        {"data_base64": "AA=="},
        {"extensions": {"Shop": "x"}},
        {"extensions": {"source": "x"}},
        {"extensions": {"shop": 2**31}},
        {"extensions": {"shop": True}},
        {"extensions": {"shop": 7.0}},
        {"extensions": {"shop": 7.5}},
        {"unknown": 1},
        {"everyone": True},
        {"undelivered_after": 60},
        {"undelivered_after": 0.5},
        {"undelivered_after": 86_401},
        {"undelivered_after": 60, "users": UNSET, "topic": "news"},
        {"undelivered_after": 60, "users": UNSET, "everyone": True},
        {"undelivered_after": 60, "users": ["u"] * 1_001},
        {"report": True},
        {"report": "yes"},
        {"report": True, "users": UNSET, "topic": "news"},
        {"report": False, "users": UNSET, "topic": "news"},
        {"report": True, "users": UNSET, "everyone": True},
        {"report": True, "users": ["u"] * 1_001},
        {"report": False, "users": ["u"] * 1_001},
    ],
    ids=lambda changes: str(changes)[:80],
)
def test_an_event_is_good_in_the_schema_if_it_is_in_the_code(changes: dict[str, Any]) -> None:
    given = {"type": "t", "users": ["42"], **changes}
    event = {name: value for name, value in given.items() if value is not UNSET}

    assert takes("Event", event) == is_taken(lambda: events.decode(json.dumps(event).encode()))


def is_taken(read: Any) -> bool:  # noqa: ANN401 - any reader
    try:
        read()
    except Invalid:
        return False
    return True
