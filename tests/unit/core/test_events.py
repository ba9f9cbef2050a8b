import functools
import json
import operator
import secrets
import time
import uuid
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from notifier.core.errors import Invalid, TooLarge, Unreadable
from notifier.core.events import (
    LARGEST_BODY,
    LARGEST_EVENT,
    MOST_AWAITED,
    MOST_USERS,
    Event,
    completed,
    decode,
    delivered,
    encode,
    new_id,
    with_traceparent,
)
from notifier.core.names import LONGEST_NAME
from tests.support.events import EVENTS, JSON
from tests.support.events import given as members_of


def body(**members: object) -> bytes:
    every = {"type": "order.paid", "users": ["42"], **members}
    return json.dumps({name: value for name, value in every.items() if value is not None}).encode()


def refused(text: bytes) -> Invalid:
    with pytest.raises(Invalid) as error:
        decode(text)
    return error.value


def sent(event: Event) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(delivered(completed(event, source="shop", now=1000.5)))
    return read


# Taken.


@given(EVENTS)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    assert members_of(decode(encode(event))) == members_of(event)


@pytest.mark.parametrize("audience", [{"topic": "news"}, {"everyone": True}, {"users": ["1", "2"]}])
def test_each_audience_is_taken(audience: dict[str, object]) -> None:
    event = decode(body(**{"users": None, **audience}))

    assert event.has_audience
    assert members_of(event) == {"type": "order.paid", **audience}


def test_a_whole_number_with_a_fraction_of_zero_is_a_whole_number() -> None:
    extensions = decode(body(extensions={"shop": 7.0, "of": "x"})).extensions

    assert extensions == {"shop": 7, "of": "x"}
    assert isinstance(extensions["shop"], int)


def test_the_audience_may_stand_elsewhere() -> None:
    assert not decode(body(users=None)).has_audience


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "x" * 256),
        ("id", "é" * 256),
        ("type", "x" * 256),
        ("users", ["u" * 128]),
        ("collapse_key", "x" * 256),
        ("source", "x" * 2048),
        ("ttl", 30 * 24 * 3600),
        ("ttl", 0.5),
        ("undelivered_after", 1),
        ("undelivered_after", 24 * 3600),
        ("users", ["u"] * MOST_AWAITED),
        ("extensions", {"a": 2**31 - 1, "b": -(2**31), "c": True, "d": "x" * 2048}),
    ],
)
def test_a_member_at_its_bound_is_taken(name: str, value: object) -> None:
    assert getattr(decode(body(**{name: value})), name) == value


def test_as_many_users_as_the_bound_says_are_taken() -> None:
    crowd = Event(type="t", users=["1"] * MOST_USERS)

    assert decode(encode(crowd)) == crowd


def test_an_event_of_64_kib_is_taken() -> None:
    room = LARGEST_EVENT - len(body(data=""))

    assert decode(body(data="x" * room)).data is not UNSET


# Refused: each error names its field.


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"type": None}, "type"),
        ({"type": ""}, "type"),
        ({"type": 7}, "type"),
        ({"type": "x" * 257}, "type"),
        ({"type": "a\nb"}, "type"),
        ({"id": ""}, "id"),
        ({"id": "x" * 257}, "id"),
        ({"id": "\x00"}, "id"),
        ({"users": "42"}, "users"),
        ({"users": []}, "users"),
        ({"users": ["1", 2]}, "users[1]"),
        ({"users": ["1", "a b"]}, "users[1]"),
        ({"users": ["1", "u" * 129]}, "users[1]"),
        ({"users": None, "topic": "a b"}, "topic"),
        ({"users": None, "topic": "user:"}, "topic"),
        ({"users": None, "everyone": False}, "everyone"),
        ({"users": None, "everyone": "yes"}, "everyone"),
        ({"silent": 1}, "silent"),
        ({"undelivered_after": 0.9}, "undelivered_after"),
        ({"undelivered_after": 24 * 3600 + 1}, "undelivered_after"),
        ({"undelivered_after": "60"}, "undelivered_after"),
        ({"undelivered_after": 60, "users": None, "topic": "news"}, "undelivered_after"),
        ({"undelivered_after": 60, "users": None, "topic": "user:42"}, "undelivered_after"),
        ({"undelivered_after": 60, "users": None, "everyone": True}, "undelivered_after"),
        ({"undelivered_after": 60, "users": ["u"] * (MOST_AWAITED + 1)}, "users"),
        ({"report": 1}, "report"),
        ({"report": True, "users": None, "topic": "news"}, "report"),
        ({"report": True, "users": None, "everyone": True}, "report"),
        ({"report": True, "users": ["u"] * (MOST_AWAITED + 1)}, "users"),
        ({"extensions": {"silent": True}}, "extensions.silent"),
        ({"topic": "news"}, "users"),
        ({"everyone": True}, "users"),
        ({"source": ""}, "source"),
        ({"source": "a b"}, "source"),
        ({"source": "x" * 2049}, "source"),
        ({"subject": "x" * 2049}, "subject"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-01-01T00:00:00"}, "time"),
        ({"expires": 7}, "expires"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": -1}, "ttl"),
        ({"ttl": "60"}, "ttl"),
        ({"ttl": 30 * 24 * 3600 + 1}, "ttl"),
        ({"ttl": 1, "expires": "2026-01-01T00:00:00Z"}, "ttl"),
        ({"data": 1, "data_base64": "eA=="}, "data_base64"),
        ({"data_base64": 7}, "data_base64"),
        ({"collapse_key": "x" * 257}, "collapse_key"),
        ({"extensions": {"UPPER": 1}}, "extensions.UPPER"),
        ({"extensions": {"id": "2"}}, "extensions.id"),
        ({"extensions": {"data": "2"}}, "extensions.data"),
        ({"extensions": {"x" * 65: 1}}, "extensions." + "x" * 64),
        ({"extensions": []}, "extensions"),
        ({"user": "42"}, "user"),
    ],
)
def test_a_bad_member_is_named(members: dict[str, object], field: str) -> None:
    assert refused(body(**members)).field == field


@pytest.mark.parametrize("value", [1.5, [1], {"b": 1}, 2**31, None, "x" * 2049, "a\n"])
def test_an_extension_is_a_short_text_an_integer_or_a_boolean(value: object) -> None:
    assert refused(body(extensions={"good": 1, "a": value})).field == "extensions.a"


@pytest.mark.parametrize(
    "name", ["type", "id", "source", "subject", "datacontenttype", "collapse_key"]
)
@pytest.mark.parametrize("control", ["\n", "\r", "\x00", "\x7f", "\x85", "\ufffe", "\U0010ffff"])
def test_control_characters_are_refused_wherever_they_stand(name: str, control: str) -> None:
    assert refused(body(**{name: "a" + control})).field == name


def test_a_missing_member_is_said_to_be_missing() -> None:
    assert str(refused(b'{"users":["42"]}')) == "type: is missing"


def test_an_unknown_member_is_said_to_be_unknown() -> None:
    assert (
        str(refused(body(colour="red")))
        == "colour: is not a member of an event; members of your own go into data"
    )


def test_too_many_users_are_too_large() -> None:
    error = refused(encode(Event(type="t", users=["1"] * (MOST_USERS + 1))))

    assert isinstance(error, TooLarge)
    assert error.field == "users"


def test_an_event_over_64_kib_is_too_large() -> None:
    room = LARGEST_EVENT - len(body(users=None, everyone=True, data=""))
    largest = body(users=None, everyone=True, data="x" * room)

    decode(largest)
    assert isinstance(refused(largest + b" "), TooLarge)


def test_an_event_of_64_kib_for_most_users_with_the_longest_ids_is_taken() -> None:
    users = [f"{n:0{LONGEST_NAME}}" for n in range(MOST_USERS)]
    # There is one separator less than there are users.
    room = LARGEST_EVENT - len(body(users=[], data="")) + len(", ")
    largest = body(users=users, data="x" * room)

    assert len(largest) == LARGEST_BODY
    assert decode(largest).users == users
    assert isinstance(refused(largest + b" "), TooLarge)


def test_the_list_of_users_does_not_count_towards_the_bytes_of_an_event() -> None:
    users = [f"{n:036}" for n in range(10_000)]
    room = LARGEST_EVENT - len(body(users=[], data=""))

    assert users == decode(body(users=users, data="x" * (room - 10_000))).users
    assert isinstance(refused(body(users=users, data="x" * (room + 10_001))), TooLarge)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"type":"t"}{}',
        b'{"type":"t"}x',
        b'{"type":"t","data":1 2}',
        b'{"type":"t","data":01}',
        b'{"type":"t","data":NaN}',
        b'{"type":"t","data":"a\nb"}',
        b'{"type":"t","data":"\\ud800"}',
        b'{"type":"t","data":[1,]}',
        b'{"type":"\xff"}',
        b'{"type":"t","data":"\xff"}',
        b'{"type":"t","data":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)
def test_a_body_that_is_not_json_in_utf8_is_unreadable(text: bytes) -> None:
    assert isinstance(refused(text), Unreadable)


@pytest.mark.parametrize("text", [b"[]", b"1", b"null", b'"t"'])
def test_json_that_is_no_object_is_invalid(text: bytes) -> None:
    error = refused(text)

    assert not isinstance(error, Unreadable)
    assert error.field == ""


def test_data_in_base64_has_to_be_base64() -> None:
    assert refused(body(data_base64="%%%")).field == "data_base64"


# Completing.


def test_members_that_a_producer_leaves_out_are_filled_in() -> None:
    event = completed(decode(body(data={})), source="shop", now=1767225600.5)

    assert event.source == "shop"
    assert encode(event).count(b'"time":"2026-01-01T00:00:00.500000Z"') == 1
    assert event.datacontenttype == "application/json"
    assert uuid.UUID(str(event.id)).version == 7


def test_members_that_a_producer_gives_stay() -> None:
    given_ = decode(
        body(id="1", source="a", time="2020-01-01T00:00:00Z", datacontenttype="a/b", data=1)
    )

    assert members_of(completed(given_, source="shop", now=1.0)) == members_of(given_)


def test_a_ttl_becomes_a_moment_counted_from_the_acceptance() -> None:
    event = completed(decode(body(ttl=1.5)), source="shop", now=1767225600.0)

    assert event.ttl is UNSET
    assert sent(event)["expires"] == "2026-01-01T00:00:01.500000Z"


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id(now) for now in (1.0, 2.0, 1e9, 2e9)]

    assert ids == sorted(ids)
    assert new_id(1.0) != new_id(1.0)


def test_an_id_carries_the_time_and_its_version() -> None:
    made = uuid.UUID(new_id(1767225600.123))

    assert made.int >> 80 == 1767225600123
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_all_bits_of_an_id_but_time_version_and_variant_are_chance() -> None:
    made = [uuid.UUID(new_id(1767225600.123)).int for _ in range(300)]

    ever, always = functools.reduce(operator.or_, made), functools.reduce(operator.and_, made)
    assert (ever ^ always) == (1 << 80) - 1 - (0xF << 76) - (0b11 << 62)


def test_no_digit_of_chance_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0123456789abcdef0123")

    assert new_id(1767225600.123) == "019b76da-a87b-7012-b456-789abcdef012"


@pytest.mark.parametrize("milliseconds", [123, 124, 999])
def test_a_moment_of_acceptance_is_exact_to_the_millisecond(milliseconds: int) -> None:
    event = completed(decode(body()), source="shop", now=1767225600 + milliseconds / 1000 + 0.0001)

    assert isinstance(event.time, datetime)
    assert event.time.microsecond == milliseconds * 1000


def test_an_id_is_of_now_unless_told_otherwise() -> None:
    before = int(time.time() * 1000)

    assert uuid.UUID(new_id()).int >> 80 >= before


# As clients get them.


@given(EVENTS)
def test_clients_get_one_line_of_json(event: Event) -> None:
    line = delivered(completed(event, source="shop", now=1000.0))

    assert line.splitlines() == [line]
    assert json.loads(line)["specversion"] == "1.0"


@given(EVENTS)
def test_clients_get_the_attributes_that_cloudevents_requires(event: Event) -> None:
    got = sent(event)

    assert {"specversion", "id", "source", "type"} <= got.keys()
    assert got["type"] == event.type


@given(EVENTS)
def test_clients_do_not_learn_whom_else_it_concerns(event: Event) -> None:
    own = set(event.extensions or ())

    assert (sent(event).keys() - own).isdisjoint({"users", "topic", "everyone", "ttl"})


@given(JSON, st.sampled_from([None, 1, "\t"]))
def test_data_arrives_as_it_was_sent(data: object, indent: int | str | None) -> None:
    text = json.dumps(data, indent=indent).encode()

    assert sent(decode(b'{"type":"t","users":["1"],"data":\r\n' + text + b"}"))["data"] == data


@given(EVENTS)
def test_extensions_stand_beside_the_attributes(event: Event) -> None:
    expected = event.extensions or {}

    assert {name: sent(event)[name] for name in expected} == expected


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OWN = TRACEPARENT.replace("4bf9", "0bf9")


def test_a_traceparent_beside_the_body_reaches_the_client() -> None:
    event = with_traceparent(decode(body()), TRACEPARENT)

    assert sent(event)["traceparent"] == TRACEPARENT


def test_a_traceparent_in_the_body_is_the_one_that_counts() -> None:
    event = with_traceparent(decode(body(traceparent=OWN)), TRACEPARENT)

    assert event.traceparent == OWN


@pytest.mark.parametrize(
    "beside",
    [
        None,
        7,
        "",
        "nonsense",
        TRACEPARENT + "-more",
        TRACEPARENT.upper(),
        TRACEPARENT.replace("00-4bf9", "ff-4bf9"),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_a_text_that_is_no_traceparent_is_ignored_beside_the_body(beside: object) -> None:
    assert "traceparent" not in sent(with_traceparent(decode(body()), beside))


def test_binary_data_arrives_in_base64() -> None:
    assert sent(decode(body(data_base64="iVBORw==")))["data_base64"] == "iVBORw=="


def test_line_separators_within_text_stay_as_they_are() -> None:
    assert sent(decode(body(data="a\u2028\n\r\\n")))["data"] == "a\u2028\n\r\\n"


@pytest.mark.parametrize(
    "own", ["", "its own", TRACEPARENT.upper(), TRACEPARENT + "-more", "x" * 5000, "\n"]
)
def test_a_text_that_is_no_traceparent_is_ignored_in_the_body_too(own: str) -> None:
    event = with_traceparent(decode(body(traceparent=own)), TRACEPARENT)

    assert event.traceparent == TRACEPARENT


def test_a_traceparent_of_a_version_to_come_may_have_more() -> None:
    later = TRACEPARENT.replace("00-4bf9", "01-4bf9") + "-more"

    assert decode(body(traceparent=later)).traceparent == later


# In our own words.


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("user", "users"),
        ("userId", "users"),
        ("collapseKey", "collapse_key"),
        ("collapsekey", "collapse_key"),
        ("undeliveredAfter", "undelivered_after"),
        ("deliveryReport", "report"),
        ("dataContentType", "datacontenttype"),
        ("Type", "type"),
        ("payload", "data"),
        ("Data", "data"),
        ("audience", "users"),
        ("idempotency_key", "id"),
        ("timestamp", "time"),
        ("date", "time"),
    ],
)
def test_a_member_by_another_name_is_told_its_name(name: str, meant: str) -> None:
    assert str(refused(body(**{name: "x"}))) == f"{name}: is called {meant} here"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("usres", "users"),
        ("tpye", "type"),
        ("toppic", "topic"),
        ("sorce", "source"),
        ("colapse_key", "collapse_key"),
        ("datta", "data"),
        ("undelivered_aftr", "undelivered_after"),
    ],
)
def test_a_misspelt_member_is_asked_about(name: str, meant: str) -> None:
    reason = str(refused(body(**{name: "x"})))

    assert reason == f"{name}: is not a member of an event; is {meant} meant?"


@pytest.mark.parametrize("name", ["colour", "title", "x" * 5000, "", "__proto__"])
def test_a_member_that_resembles_none_is_none(name: str) -> None:
    assert str(refused(body(**{name: "x"}))).endswith(
        "is not a member of an event; members of your own go into data"
    )


VALUES = st.one_of(
    JSON,
    st.sampled_from(["", "x" * 3000, "\x00", 2**70, -1, 1e300, "2026-01-01", "=", "a b", "%zz"]),
)


@given(st.dictionaries(st.sampled_from(Event.__struct_fields__), VALUES))
def test_no_sentence_of_a_library_says_why_an_event_is_refused(members: dict[str, object]) -> None:
    try:
        decode(json.dumps(members).encode())
    except Invalid as error:
        said = str(error)
        assert not any(word in said for word in ("Expected", "`", "Invalid", "malformed", "regex"))


@pytest.mark.parametrize("text", [b"{", b'{"type":}', b'{"type":"t"} x', b'{"type":1e}'])
def test_where_it_is_no_json_is_said_in_our_words(text: bytes) -> None:
    assert str(refused(text)).startswith(("not JSON from byte ", "not JSON: it ends too early"))


def test_a_byte_order_mark_is_ignored() -> None:
    assert decode(b"\xef\xbb\xbf" + body()).type == "order.paid"
