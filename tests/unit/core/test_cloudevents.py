import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from notifier.core.cloudevents import binary, is_one, media_type, structured
from notifier.core.errors import Invalid, TooLarge, Unreadable
from notifier.core.events import Event
from tests.support.events import PRINTABLE
from tests.support.events import given as members_of

REQUIRED: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}


def read(**members: object) -> Event:
    every = {**REQUIRED, **members}
    return structured(json.dumps({n: v for n, v in every.items() if v is not ...}).encode())


def refused(**members: object) -> Invalid:
    with pytest.raises(Invalid) as error:
        read(**members)
    return error.value


def beside(body: bytes = b"", content_type: str = "", /, **attributes: object) -> Event:
    return binary({**REQUIRED, **attributes}, content_type, body)


# Structured.


def test_a_structured_event_becomes_an_event() -> None:
    event = read(user="42", data={"a": 1}, subject="s", time="2026-01-01T00:00:00Z")

    assert members_of(event) == {
        "id": "1",
        "source": "/a",
        "type": "t",
        "users": ["42"],
        "subject": "s",
        "time": event.time,
        "data": b'{"a": 1}',
    }


def test_several_users_are_separated_by_commas() -> None:
    assert read(users="1, 2,3").users == ["1", "2", "3"]


def test_a_single_user_may_not_be_a_list() -> None:
    assert refused(user="1,2").field == "users[0]"


def test_topic_everyone_ttl_and_collapse_key_are_extension_attributes() -> None:
    event = read(topic="news", ttl=60, collapsekey="k", silent=True)

    assert (event.topic, event.ttl, event.collapse_key) == ("news", 60, "k")
    assert event.silent is True
    assert read(everyone=True).everyone is True


def test_other_extension_attributes_are_carried() -> None:
    assert read(user="42", tenant="a", attempt=3).extensions == {"tenant": "a", "attempt": 3}


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_attributes_that_cloudevents_requires_must_be_there(name: str) -> None:
    error = refused(user="42", **{name: ...})

    assert str(error) == f"{name}: is missing; CloudEvents requires it"


@pytest.mark.parametrize("version", ["0.3", "1.1", 1.0, None])
def test_another_version_is_refused(version: object) -> None:
    assert refused(user="42", specversion=version).field == "specversion"


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"user": "1", "users": "2"}, "users"),
        ({"users": ["1"]}, "users"),
        ({"user": 1}, "user"),
        ({"users": "1,,2"}, "users[1]"),
        ({"user": "1", "topic": "news"}, "users"),
        ({"topic": 7}, "topic"),
        ({"user": "1", "ttl": "60"}, "ttl"),
        ({"user": "1", "collapse_key": "k"}, "collapse_key"),
        ({"user": "1", "silent": "true"}, "silent"),
        ({"topic": "news", "undeliveredafter": 60}, "undelivered_after"),
        ({"user": "1", "undelivered_after": 60}, "undelivered_after"),
        ({"user": "1", "report": "true"}, "report"),
        ({"topic": "news", "report": True}, "report"),
        ({"user": "1", "Tenant": "a"}, "extensions.Tenant"),
    ],
)
def test_a_bad_attribute_is_named(members: dict[str, object], field: str) -> None:
    assert refused(**members).field == field


def test_an_attribute_of_null_is_one_that_is_left_out() -> None:
    # JSON format 1.0.2, section 2.2: null must be treated as unset.
    assert read(user="42", subject=None).subject is UNSET


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b'{"specversion":"1.0"} x', b"\xff"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        structured(body)


# Binary.


def test_json_beside_attributes_is_data() -> None:
    event = beside(b'{"a":1}', "application/json", user="42")

    assert members_of(event) == {
        "id": "1",
        "source": "/a",
        "type": "t",
        "users": ["42"],
        "datacontenttype": "application/json",
        "data": b'{"a":1}',
    }


def test_text_is_carried_as_text() -> None:
    event = beside("né".encode(), "text/plain; charset=utf-8", user="42")

    assert isinstance(event.data, Raw)
    assert json.loads(bytes(event.data)) == "né"


@given(st.binary(min_size=1, max_size=100))
def test_anything_else_is_carried_in_base64(body: bytes) -> None:
    event = beside(body, "image/png", user="42")

    assert event.data_base64 == body


def test_no_body_is_no_data() -> None:
    assert beside(b"", "application/json", user="42").data is UNSET


def test_header_texts_become_a_number_and_a_boolean() -> None:
    assert beside(topic="news", ttl="60").ttl == 60
    assert beside(everyone="true").everyone is True
    assert beside(user="1", silent="true").silent is True
    assert beside(user="1", undeliveredafter="60").undelivered_after == 60
    assert beside(user="1", report="true").report is True


SPLICES = ['1,"everyone":true', '1}{"everyone":true', "1 2", "", "[", '1,"ttl":2']


@pytest.mark.parametrize("splice", SPLICES[:3] + SPLICES[4:])
def test_data_cannot_smuggle_in_members(splice: str) -> None:
    with pytest.raises(Unreadable, match=r"^data: not JSON"):
        beside(splice.encode(), "application/json", user="42")


@pytest.mark.parametrize("splice", SPLICES)
@pytest.mark.parametrize("name", ["ttl", "everyone"])
def test_attributes_cannot_smuggle_in_members(name: str, splice: str) -> None:
    with pytest.raises(Invalid, match=f"^{name}: (must|can only) be"):
        beside(user="42", **{name: splice})


@given(st.text(PRINTABLE, max_size=50))
def test_an_attribute_with_any_characters_is_one_text(text: str) -> None:
    assert beside(user="42", tenant=text).extensions == {"tenant": text}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_a_user_with_any_characters_is_one_user(text: str) -> None:
    try:
        event = beside(user=text)
    except Invalid as error:
        assert error.field == "users[0]"  # noqa: PT017  # either way is right
    else:
        assert event.users == [text]


def test_attributes_of_other_types_are_refused() -> None:
    with pytest.raises(Invalid, match="tenant: must be text"):
        beside(user="42", tenant=object())


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "image/png"])
def test_data_has_a_bound_in_each_form(content_type: str) -> None:
    with pytest.raises(TooLarge):
        beside(b"1" * 65_537, content_type, user="42")


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_broken_utf8_is_refused(content_type: str) -> None:
    with pytest.raises(Unreadable):
        beside(b'"\xff"', content_type, user="42")


def test_a_media_type_is_read_without_its_parameters() -> None:
    assert media_type("Application/JSON ; charset=utf-8") == "application/json"


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"dataschema": "not a uri"}, "dataschema"),
        ({"dataschema": "/relative"}, "dataschema"),
        ({"source": "%zz"}, "source"),
        ({"source": ""}, "source"),
        ({"source": "/Grüße"}, "source"),
        ({"type": ""}, "type"),
        ({"id": ""}, "id"),
        ({"subject": ""}, "subject"),
        ({"time": "2026-01-31 9:30"}, "time"),
        ({"time": "2026-01-31T09:30:00"}, "time"),
        ({"tenant": 2**31}, "extensions.tenant"),
        ({"tenant": 1.5}, "extensions.tenant"),
        ({"tenant": ["a"]}, "extensions.tenant"),
        ({"tenant": "a\x01"}, "extensions.tenant"),
        ({"x" * 65: "a"}, "extensions." + "x" * 64),
        ({"data": 1, "data_base64": "AA=="}, "data_base64"),
        ({"data_base64": "AA"}, "data_base64"),
        ({"collapseKey": "k"}, "collapseKey"),
    ],
)
def test_readers_are_spared_events_that_cloudevents_does_not_allow(
    members: dict[str, object], field: str
) -> None:
    assert refused(user="42", **members).field == field


def test_the_topic_of_dapr_is_no_audience() -> None:
    event = read(pubsubname="bus", topic="notifier.events", traceparent="", traceid="")

    assert (event.has_audience, event.traceparent) == (False, UNSET)
    assert event.extensions == {"pubsubname": "bus", "topic": "notifier.events", "traceid": ""}


def test_foreign_names_of_an_audience_are_attributes_like_any_other() -> None:
    body = json.dumps(REQUIRED | {"user": "42", "topic": "news"}).encode()

    event = structured(body, foreign=("user", "topic"))

    assert (event.has_audience, event.extensions) == (False, {"user": "42", "topic": "news"})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"specversion":"1.0"}', True),
        (b'\xef\xbb\xbf {"specversion":7}', True),
        (b'{"data":{"specversion":"1.0"}}', False),
        (b'["specversion"]', False),
        (b'{"specversion"', False),
    ],
)
def test_a_cloudevent_is_known_by_its_specversion(body: bytes, *, expected: bool) -> None:
    assert is_one(body) is expected


@pytest.mark.parametrize("name", ["data", "data_base64"])
def test_data_stands_in_the_body(name: str) -> None:
    with pytest.raises(Invalid, match=f"^{name}: stands in the body"):
        beside(b"1", user="42", **{name: "x"})


def test_the_type_of_data_may_stand_among_the_attributes() -> None:
    assert beside(b"\x00", user="42", datacontenttype="image/png").data_base64 == b"\x00"


def test_an_attribute_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(Invalid, match=r"^subject: is not UTF-8"):
        beside(user="42", subject=b"Gr\xfc\xdfe")
