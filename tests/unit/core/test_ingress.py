import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from notifier.core import events
from notifier.core.entries import Entry, entry_of, events_of, routing_key_of
from notifier.core.errors import Invalid, TooLarge, Unreadable
from notifier.core.events import LARGEST_EVENT, Event
from notifier.core.ingress import Body, id_in, items, parts_of
from notifier.core.publications import record_of
from notifier.core.uris import is_reference
from tests.support.events import EVENTS
from tests.support.events import given as members_of

NOW = 1_767_225_600.0
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"


def entry(body: object, routing_key: str = "", **beside: Any) -> Entry:  # noqa: ANN401  # of Entry
    return Entry(json.dumps(body).encode(), routing_key, **beside)


def only(of: Entry) -> Event:
    [event] = events_of(of, NOW)
    return event


def refused(of: Entry) -> Invalid:
    with pytest.raises(Invalid) as error:
        events_of(of, NOW)
    return error.value


def data_of(event: Event) -> object:
    assert isinstance(event.data, Raw)
    return json.loads(bytes(event.data))


# The router understands all that the api puts.


@given(EVENTS)
def test_an_entry_that_was_put_is_understood(event: Event) -> None:
    complete = events.completed(event, source="shop", now=NOW)

    assert members_of(only(entry_of(complete, NOW))) == members_of(complete)


@given(EVENTS)
def test_a_routing_key_fits_into_amqp(event: Event) -> None:
    complete = events.completed(event, source="shop", now=NOW)

    assert len(routing_key_of(complete).encode()) <= 255


def test_the_longest_id_makes_a_routing_key_that_fits_into_amqp() -> None:
    event = Event(type="t", users=["1", "2"], id="é" * 128, source="a")

    assert len(routing_key_of(event).encode()) <= 255


@pytest.mark.parametrize("filler", ["x", "é", "\\u00e9", "\\n"])
def test_an_event_of_the_largest_size_is_understood_once_it_is_complete(filler: str) -> None:
    head = '{"type":"t","users":["1"],"data":"'
    room = (LARGEST_EVENT - len(head) - 2) // len(filler.encode())
    event = events.decode((head + filler * room + '"}').encode())

    put = entry_of(events.completed(event, source="s" * 64, now=NOW), NOW)

    assert only(put).users == ["1"]


def test_one_user_has_one_routing_key() -> None:
    assert routing_key_of(Event(type="t", users=["42"])) == "user.42"


def test_one_topic_has_one_routing_key() -> None:
    assert routing_key_of(Event(type="t", topic="news")) == "topic.news"
    assert routing_key_of(Event(type="t", everyone=True)) == "everyone"


def test_a_personal_topic_has_the_routing_key_of_its_user() -> None:
    # Or with several partitions the order of one stream would be that of two queues.
    named = Event(type="t", topic="user:42", id="1")

    assert routing_key_of(named) == routing_key_of(Event(type="t", users=["42"], id="2"))


def test_events_for_several_users_have_keys_of_their_own() -> None:
    keys = {routing_key_of(Event(type="t", users=["1", "2"], id=id_)) for id_ in "ab"}

    assert len(keys) == 2


# Routing keys stand for the audience.


@pytest.mark.parametrize(
    ("routing_key", "audience"),
    [
        ("user.42", {"users": ["42"]}),
        ("user.ann@example.org", {"users": ["ann@example.org"]}),
        ("topic.news", {"topic": "news"}),
        ("topic.user:42", {"topic": "user:42"}),
        ("everyone", {"everyone": True}),
    ],
)
def test_a_routing_key_names_the_audience(routing_key: str, audience: dict[str, object]) -> None:
    event = only(entry({"type": "t", "data": 1}, routing_key))

    found = {name: members_of(event).get(name) for name in ("users", "topic", "everyone")}
    assert {name: value for name, value in found.items() if value} == audience


def test_an_audience_in_the_body_comes_before_the_routing_key() -> None:
    assert only(entry({"type": "t", "users": ["1"]}, "topic.news")).users == ["1"]


@pytest.mark.parametrize("routing_key", ["", "orders", "user", "users.1", "everyone.else"])
def test_without_any_audience_it_is_refused(routing_key: str) -> None:
    assert refused(entry({"type": "t"}, routing_key)).field == "users"


@pytest.mark.parametrize("routing_key", ["user.", "user.a b", "topic.", "topic.user:", "user.*"])
def test_a_routing_key_with_a_bad_name_is_refused(routing_key: str) -> None:
    assert refused(entry({"type": "t"}, routing_key)).field == "routing key"


# Any JSON under a routing key.


@pytest.mark.parametrize(
    "body", [1, "x", None, [], [{"type": "t"}], {}, {"a": 1}, {"type": "t", "total": 3}]
)
def test_any_json_is_data_where_the_routing_key_names_the_audience(body: object) -> None:
    event = only(entry(body, "user.42", type="order.paid"))

    assert (event.type, data_of(event)) == ("order.paid", body)


def test_data_of_no_stated_type_is_a_notification() -> None:
    assert only(entry(1, "user.42")).type == "notification"


def test_an_empty_body_is_null() -> None:
    assert data_of(only(Entry(b"", "user.42"))) is None


@pytest.mark.parametrize(
    "body", [{"type": "t"}, {"type": "t", "data": 1}, {"type": "t", "id": "1", "ttl": 5}]
)
def test_a_body_with_the_members_of_an_event_is_one(body: dict[str, object]) -> None:
    assert only(entry(body, "user.42", type="order.paid")).type == "t"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"users": ["1"]}, "type"),
        ({"type": "t", "data": 1, "total": 3}, "total"),
        ({"type": 7, "data": 1}, "type"),
    ],
)
def test_a_body_with_members_of_an_event_must_keep_its_rules(
    body: dict[str, object], field: str
) -> None:
    assert refused(entry(body, "user.42")).field == field


def test_white_space_around_a_body_changes_nothing() -> None:
    assert only(Entry(b' \n{"type":"t","data":1} ', "user.42")).type == "t"


# Batches.


def test_an_array_is_a_batch_where_the_routing_key_names_no_audience() -> None:
    found = events_of(entry([{"type": "a", "users": ["1"]}, {"type": "b", "topic": "n"}]), NOW)

    assert [event.type for event in found] == ["a", "b"]


def test_an_array_of_cloudevents_is_a_batch() -> None:
    one = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}

    found = events_of(entry([one, one | {"id": "2"}], "user.42", content_type=BATCHED), NOW)

    assert [(event.id, event.users) for event in found] == [("1", ["42"]), ("2", ["42"])]


@pytest.mark.parametrize("content_type", ["", BATCHED])
def test_an_error_in_a_batch_names_the_item(content_type: str) -> None:
    good: dict[str, object] = {"id": "1", "source": "/a", "type": "t", "topic": "n"}
    good |= {"specversion": "1.0"} if content_type else {}

    error = refused(entry([good, good | {"id": 7}], content_type=content_type))

    assert error.field == "[1].id"


def test_an_item_that_is_no_event_at_all_is_named() -> None:
    assert refused(entry([1])).field == "[0]"


def test_a_batch_is_bounded() -> None:
    assert len(items(json.dumps([1] * 1000).encode())) == 1000
    with pytest.raises(TooLarge, match="at most 1000"):
        items(json.dumps([1] * 1001).encode())


def test_a_batch_is_bounded_in_bytes() -> None:
    with pytest.raises(TooLarge, match="at most 1048576 bytes"):
        items(b"[" + b" " * 1024 * 1024 + b"]")


def test_an_item_that_is_nested_too_deeply_is_refused_and_those_beside_it_are_read() -> None:
    good, nested = b'{"type":"a","users":["u"]}', b"[" * 300 + b"]" * 300
    bad = good[:-1] + b',"data":%s}' % nested

    parts = parts_of(Body(b"[%s,%s,%s]" % (good, bad, good), "application/json"))

    for body in (parts.bodies[0], parts.bodies[2]):
        assert parts.read(body).users == ["u"]
    with pytest.raises(Unreadable, match="nested too deeply: at most 256"):
        parts.read(parts.bodies[1])


def test_a_batch_of_brackets_alone_is_nested_too_deeply() -> None:
    with pytest.raises(Unreadable, match="nested too deeply"):
        items(b"[" * 1_000_000)


def test_an_item_of_a_batch_is_bounded_too() -> None:
    error = refused(entry([{"type": "t", "topic": "n", "data": "x" * LARGEST_EVENT}]))

    assert error.field == "[0]"
    assert "65536" in error.reason


# CloudEvents by the AMQP binding.


def test_a_structured_cloudevent_is_understood() -> None:
    body = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}

    event = only(entry(body, "user.42", content_type=STRUCTURED + "; charset=utf-8"))

    assert (event.id, event.users) == ("1", ["42"])


@pytest.mark.parametrize("prefix", ["cloudEvents:", "cloudEvents_", "ce-", "CLOUDEVENTS:"])
def test_attributes_in_headers_are_understood_in_any_case(prefix: str) -> None:
    attributes = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "ttl": 60}
    headers: dict[str, object] = {prefix + name: value for name, value in attributes.items()}
    if prefix.isupper():
        headers = {name.upper(): value for name, value in headers.items()}

    event = only(entry({"a": 1}, "topic.news", headers=headers | {"x-other": "1"}))

    assert (event.id, event.topic, data_of(event)) == ("1", "news", {"a": 1})
    assert sorted(members_of(event)).count("extensions") == 0


@pytest.mark.parametrize("moment", [10**18, -(10**18), 10**400])
def test_a_number_that_is_no_moment_is_refused_by_its_name(moment: int) -> None:
    attributes = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "time": moment}
    headers: dict[str, object] = {f"cloudEvents:{name}": each for name, each in attributes.items()}

    assert refused(entry({"a": 1}, "topic.news", headers=headers)).field == "time"


@pytest.mark.parametrize("other", ["cloudEvents_id", "cloudEvents:ID", "ce-id"])
def test_attributes_that_two_headers_give_different_values_are_refused(other: str) -> None:
    attributes = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}
    headers: dict[str, object] = {"cloudEvents:" + n: v for n, v in attributes.items()}

    agreed = only(entry({}, "user.42", headers=headers | {other: "1"}))
    with pytest.raises(Invalid, match="id: stands in two headers with different values; send it"):
        only(entry({}, "user.42", headers=headers | {other: "2"}))

    assert agreed.id == "1"


def test_a_byte_order_mark_makes_no_difference_to_an_event_or_a_batch() -> None:
    one = Entry(b'\xef\xbb\xbf{"type":"t","id":"1"}', "user.42")
    batch = Entry(b'\xef\xbb\xbf [{"type":"t","id":"2","topic":"n"}]')

    assert [only(one).id, only(batch).id] == ["1", "2"]
    assert [id_in(one.body, {}), id_in(one.body[3:], {}), id_in(batch.body, {})] == ["1", "1", ""]


@pytest.mark.parametrize("data", [b"[" * 300 + b"]" * 300, b'"\xff"'])
def test_an_event_that_is_refused_for_its_data_has_its_id_in_the_log(data: bytes) -> None:
    assert id_in(b'{"type":"t","id":"1","data":' + data + b"}", {}) == "1"


# Beside the body.


def test_the_message_id_is_the_id_of_an_event_that_has_none() -> None:
    assert only(entry({"type": "t"}, "user.42", message_id="m1")).id == "m1"


def test_an_id_of_its_own_comes_before_the_message_id() -> None:
    assert only(entry({"type": "t", "id": "1"}, "user.42", message_id="m1")).id == "1"


def test_ids_made_of_a_message_id_are_the_same_when_it_comes_again() -> None:
    batch = entry([{"type": "t", "topic": "n"}] * 3, message_id="m1")

    first = [event.id for event in events_of(batch, NOW)]
    again = [event.id for event in events_of(batch, NOW + 60)]

    assert first == again
    assert len(set(first)) == 3


@pytest.mark.parametrize("named", ["m" * 200, "m" * 255, "no\u00a0break", "\u200b", "a b"])
def test_an_id_is_the_same_in_the_body_and_as_the_message_id(named: str) -> None:
    beside = only(entry({"type": "t"}, "user.42", message_id=named))
    within = only(entry({"type": "t", "id": named}, "user.42"))

    assert (beside.id, within.id) == (named, named)


@pytest.mark.parametrize("named", ["m" * 257, "two\nlines", "\x7f"])
def test_a_message_id_that_is_no_id_still_makes_stable_ones(named: str) -> None:
    unfit = entry({"type": "t"}, "user.42", message_id=named)

    assert only(unfit).id == only(unfit).id != named
    assert events.is_word(str(only(unfit).id))


def test_without_a_message_id_an_id_is_made() -> None:
    assert only(entry({"type": "t"}, "user.42")).id is not UNSET


def test_each_event_of_a_batch_needs_an_audience() -> None:
    error = refused(entry([{"type": "t", "topic": "n"}, {"type": "t"}]))

    assert (error.field, error.reason[:11]) == ("users", "no audience")


def test_the_application_is_the_source() -> None:
    assert only(entry({"type": "t"}, "user.42", app_id="https://a/b")).source == "https://a/b"
    assert only(entry({"type": "t"}, "user.42", app_id="my shop")).source == "my%20shop"
    assert only(entry({"type": "t"}, "user.42")).source == "amqp"


def test_a_ttl_counts_from_the_acceptance_where_it_is_known() -> None:
    waited = entry({"type": "t", "ttl": 60}, "user.42", accepted=NOW - 30)
    unknown = entry({"type": "t", "ttl": 60}, "user.42")

    assert only(waited).expires == datetime.fromtimestamp(NOW + 30, UTC)
    assert only(unknown).expires == datetime.fromtimestamp(NOW + 60, UTC)


# Any bytes are understood or refused: anything else would stop the router.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
BODIES = st.one_of(
    st.binary(max_size=50),
    st.recursive(
        st.none() | st.integers() | TEXT | st.sampled_from(["1.0", "news", "user:1"]),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "users",
                        "user",
                        "topic",
                        "everyone",
                        "data",
                        "id",
                        "source",
                        "ttl",
                        "specversion",
                        "time",
                        "expires",
                        "x",
                    ]
                ),
                each,
                max_size=8,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)
TABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | TEXT
    | st.binary(max_size=9)
    | st.decimals(allow_nan=False, allow_infinity=False).map(Decimal)
    | st.datetimes(timezones=st.just(UTC)),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(TEXT, each, max_size=2),
    max_leaves=3,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [f"cloudEvents:{name}" for name in ("specversion", "id", "source", "type", "time", "ttl")]
        + ["cloudEvents_x", "other", "cloudEvents:users", "cloudEvents:data"]
    ),
    TABLE | st.sampled_from(["1.0", "42"]),
    max_size=8,
)


@given(
    body=BODIES,
    routing_key=st.sampled_from(["", "user.42", "topic.n", "everyone", "x"]) | TEXT,
    content_type=st.sampled_from(["", "application/json", "text/plain", STRUCTURED, BATCHED])
    | TEXT,
    content_encoding=st.sampled_from(["", "utf-8", "gzip", "gzip, gzip", "br"]) | TEXT,
    headers=HEADERS,
    message_id=TEXT,
    app_id=TEXT,
    kind=TEXT,
)
def test_any_bytes_are_understood_or_invalid(**of: Any) -> None:  # noqa: ANN401  # drawn
    strange = Entry(of.pop("body"), type=of.pop("kind"), **of)

    try:
        found = events_of(strange, NOW)
    except Invalid as error:
        assert error.reason  # noqa: PT017  # either way is right
    else:
        assert all(json.loads(record_of(each, NOW).split(b"\n", 1)[1]) for each in found)


def test_a_traceparent_among_the_headers_is_that_of_each_event_without_one() -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    own = traceparent.replace("4bf9", "0bf9")
    body = (
        b'[{"type":"t","users":["1"]},{"type":"t","users":["1"],"traceparent":"%s"}]' % own.encode()
    )

    found = events_of(Entry(body, headers={"traceparent": traceparent}), NOW)

    assert [event.traceparent for event in found] == [traceparent, own]


# Foreign bodies.


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-python-serialize", b"\x80\x04K\x01."),
        ("application/x-java-serialized-object", b"\xac\xed\x00\x05t"),
        ("application/x-protobuf", b"\x08\x01"),
        ("application/x-msgpack", b"1"),
        ("application/cloudevents+xml", b"<event/>"),
        ("application/json; charset=iso-8859-1", b'"Gr\xfc\xdfe"'),
        ("text/plain; charset=utf-16", b"\xff\xfe"),
    ],
)
@pytest.mark.parametrize("routing_key", ["user.42", ""])
def test_a_content_type_that_carries_no_event_is_named(
    content_type: str, body: bytes, routing_key: str
) -> None:
    error = refused(Entry(body, routing_key, content_type))

    assert (error.code, error.field) == ("unsupported_type", "content_type")
    assert (content_type.partition("=")[2] or content_type) in error.reason


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/octet-stream", "application/vnd.shop+json; charset=UTF-8"],
)
def test_content_types_that_say_little_are_taken_for_json(content_type: str) -> None:
    assert data_of(only(Entry(b'{"a":1}', "user.42", content_type))) == {"a": 1}


@pytest.mark.parametrize("content_type", ["", STRUCTURED, "image/png"])
def test_a_compressed_body_is_read(content_type: str) -> None:
    one = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", "users": "1"}
    headers = {f"cloudEvents:{k}": v for k, v in one.items()} if "image" in content_type else {}
    body = gzip.compress(json.dumps(one).encode())

    event = only(Entry(body, "", content_type, headers, content_encoding="gzip"))

    assert (event.id, event.users) == ("1", ["1"])
    assert event.data_base64 == (json.dumps(one).encode() if headers else UNSET)


def test_a_coding_that_is_not_undone_is_named() -> None:
    error = refused(Entry(b"\x1b\x00", "user.42", content_encoding="br"))

    assert (error.code, error.field) == ("unsupported_coding", "content_encoding")


ONE = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}


@pytest.mark.parametrize("routing_key", ["user.42", "orders"])
@pytest.mark.parametrize("content_type", ["", "application/json"])
def test_a_cloudevent_is_known_without_its_content_type(
    routing_key: str, content_type: str
) -> None:
    event = only(entry(ONE | {"user": "42", "data": 7}, routing_key, content_type=content_type))

    assert (event.id, event.users, data_of(event)) == ("1", ["42"], 7)


def test_cloudevents_and_events_of_ours_may_stand_in_one_array() -> None:
    found = events_of(entry([ONE | {"user": "1"}, {"type": "t", "users": ["2"]}]), NOW)

    assert [event.users for event in found] == [["1"], ["2"]]


def test_a_cloudevent_that_lacks_something_is_not_taken_for_data() -> None:
    assert refused(entry({"specversion": "1.0", "type": "t"}, "user.42")).field == "id"


def test_a_routing_key_comes_before_the_topic_of_a_cloudevent() -> None:
    event = only(entry(ONE | {"topic": "orders"}, "user.42", content_type=STRUCTURED))

    assert (event.users, event.extensions) == (["42"], {"topic": "orders"})


def test_a_routing_key_that_names_nobody_leaves_the_topic_to_the_cloudevent() -> None:
    assert only(entry(ONE | {"topic": "news"}, "any", content_type=STRUCTURED)).topic == "news"


def test_without_another_audience_dapr_is_told() -> None:
    dapr = ONE | {"topic": "notifier.events", "pubsubname": "bus", "traceparent": ""}

    assert refused(entry(dapr, "", content_type=STRUCTURED)).field == "users"


@pytest.mark.parametrize("app_id", ["10% off", "a|b", "1:2", "Grüße", "//"])
@pytest.mark.parametrize("other", ["x"])
def test_the_source_made_of_an_application_is_a_uri_reference(app_id: str, other: str) -> None:
    sources = {str(only(entry(1, "user.42", app_id=each)).source) for each in (app_id, other)}

    assert all(map(is_reference, sources))
    assert len(sources) == 2


# An audience that alone counts, as a query may name it.


def addressed(content: bytes, content_type: str = "application/json", **members: Any) -> Event:  # noqa: ANN401  # of Body
    body = Body(
        content, content_type, audience={"users": ["42"]}, is_addressed=True, is_stated=True
    )
    parts = parts_of(msgspec.structs.replace(body, **members))
    [each] = parts.bodies
    return parts.read(each)


@pytest.mark.parametrize(
    "body", [{"everyone": True, "type": "t"}, {"users": ["1"]}, {"type": "t", "data": 1}, [1], 7]
)
def test_a_body_cannot_choose_another_audience_than_the_one_beside_it(body: object) -> None:
    event = addressed(json.dumps(body).encode(), type="order.paid")

    assert (event.users, event.type, data_of(event)) == (["42"], "order.paid", body)


def test_a_cloudevent_cannot_choose_another_audience_either() -> None:
    event = addressed(json.dumps(ONE | {"everyone": True, "topic": "news"}).encode())

    assert (event.id, event.users, event.everyone) == ("1", ["42"], UNSET)
    assert event.extensions == {"everyone": True, "topic": "news"}


def test_a_bad_audience_beside_a_body_is_named() -> None:
    with pytest.raises(Invalid, match=r"^users\[1\]: must be 1 to 128"):
        addressed(b"1", audience={"users": ["1", "a b"]})
