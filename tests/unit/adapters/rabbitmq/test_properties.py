import struct
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from aiormq import spec
from hypothesis import given
from hypothesis import strategies as st
from pamqp.header import ContentHeader

from notifier.adapters.rabbitmq import properties
from notifier.adapters.rabbitmq.header_tables import MOST_HEADERS, UNREAD, Skipped
from notifier.core.entries import Entry
from notifier.core.errors import TooLarge, Unreadable

TEXTS = st.text(max_size=60)
HEADERS = st.dictionaries(
    st.text("abc-", min_size=1, max_size=20), st.integers(-(2**31), 2**31) | TEXTS, max_size=3
)
ENTRIES = st.builds(
    Entry,
    body=st.just(b"{}"),
    routing_key=st.just("user.42"),
    content_type=TEXTS,
    headers=HEADERS,
    app_id=TEXTS,
    type=TEXTS,
    accepted=st.just(0.0)
    | st.integers(1_600_000_000_000, 1_700_000_000_000).map(lambda n: n / 1000),
)


def written(entry: Entry, message_id: str = "7") -> bytes:
    before, after = properties.of_entry(entry)
    return before + bytes((len(message_id),)) + message_id.encode() + after


def foreign(**given: Any) -> bytes:  # noqa: ANN401  # as pamqp takes them
    return bytes(spec.Basic.Properties(**given).marshal())


def read(found: bytes) -> Entry:
    return properties.entry_of(b"user.42", found, b"{}")


@given(ENTRIES)
def test_written_properties_are_read_again(entry: Entry) -> None:
    found = read(written(entry))

    assert found == Entry(
        body=b"{}",
        routing_key="user.42",
        content_type=entry.content_type,
        headers=entry.headers,
        message_id="7",
        app_id=entry.app_id,
        type=entry.type,
        accepted=entry.accepted,
    )


@given(ENTRIES)
def test_another_library_reads_written_properties(entry: Entry) -> None:
    header = ContentHeader()
    header.unmarshal(bytes(12) + written(entry))

    found = header.properties
    assert (found.content_type or "", found.message_id) == (entry.content_type, "7")
    assert (found.app_id or "", found.message_type or "") == (entry.app_id, entry.type)
    assert found.delivery_mode == 2
    accepted = {"notifier-accepted": round(entry.accepted * 1000)} if entry.accepted else {}
    assert found.headers == {**entry.headers, **accepted}
    assert isinstance(found.timestamp, datetime)


def test_every_property_that_a_foreign_producer_may_set_is_passed_over_or_read() -> None:
    found = read(
        foreign(
            content_type="text/plain",
            content_encoding="gzip",
            headers={"a": 1},
            delivery_mode=1,
            priority=3,
            correlation_id="c",
            reply_to="r",
            expiration="60000",
            message_id="m",
            timestamp=datetime.now(UTC),
            message_type="t",
            user_id="guest",
            app_id="shop",
        )
    )

    assert found == Entry(
        b"{}",
        "user.42",
        "text/plain",
        {"a": 1},
        message_id="m",
        app_id="shop",
        type="t",
        content_encoding="gzip",
    )


@pytest.mark.parametrize(
    ("told", "coding"),
    [
        ("application/x-gzip", "application/x-gzip"),
        ("none", "utf-8"),
        (7, "utf-8"),
        (True, "utf-8"),
    ],
)
def test_the_compression_of_kombu_is_the_coding_and_another_header_of_the_name_is_not(
    told: object, coding: str
) -> None:
    found = read(foreign(content_encoding="utf-8", headers={"compression": told}))

    assert found.content_encoding == coding


def test_without_properties_nothing_is_said() -> None:
    assert read(b"\0\0") == Entry(b"{}", "user.42")


def test_a_timestamp_in_nanoseconds_does_not_matter() -> None:
    moment = datetime.fromtimestamp(1_700_000_000, UTC)
    sent = foreign(timestamp=moment, app_id="shop")
    nanoseconds = struct.pack(">Q", 1_700_000_000 * 10**9)

    found = read(sent.replace(struct.pack(">Q", 1_700_000_000), nanoseconds))

    assert found.app_id == "shop"


@pytest.mark.parametrize(
    ("kind", "value"),
    [(b"T", struct.pack(">Q", 1_700_000_000 * 10**9)), (b"A", b"\0\0\0\x02S\xff")],
    ids=["nanoseconds", "damaged"],
)
def test_a_header_that_cannot_be_decoded_costs_no_other(kind: bytes, value: bytes) -> None:
    headers = b"\x01a" + kind + value + b"\x01bt\x01"

    found = read(b"\x20\0" + struct.pack(">I", len(headers)) + headers).headers

    assert found == {"a": UNREAD, "b": True}


@pytest.mark.parametrize(
    "unreadable",
    [
        foreign(content_type="text/plain").replace(b"plain", b"pl\xe9in"),
        foreign(headers={"a": "b"}).replace(b"\x01aS", b"\x01a\xff"),
        foreign(headers={"a": "b"})[:-1],
        foreign(app_id="shop")[:-1],
        b"\x80\x01\x00\x00",
        b"\x80",
        b"",
    ],
    ids=[
        "latin-1",
        "unknown kind",
        "cut off",
        "cut off in a text",
        "more flags",
        "half a flag",
        "nothing",
    ],
)
def test_unreadable_properties_are_reported(unreadable: bytes) -> None:
    with pytest.raises(Unreadable, match=r"^properties: "):
        read(unreadable)


@given(st.binary(max_size=60))
def test_nothing_else_comes_of_any_bytes(garbage: bytes) -> None:
    try:
        read(garbage)
    except Unreadable as error:
        assert error.field == "properties"  # noqa: PT017  # most examples raise, some do not


# The last one is tomorrow: a test that is collected now may run a quarter of an hour later.
@pytest.mark.parametrize(
    "said",
    [True, -1, 10**18, "yesterday", int(time.time() * 1000) + 86_400_000],
    ids=["boolean", "negative", "huge", "text", "tomorrow"],
)
def test_a_moment_of_acceptance_that_cannot_be_is_not_believed(said: object) -> None:
    assert read(foreign(headers={"notifier-accepted": said})).accepted == 0.0


def test_bytes_that_are_no_text_in_a_routing_key_become_question_marks() -> None:
    assert properties.readable(b"user.andr\xe9") == "user.andr?"


def test_a_message_id_is_read() -> None:
    assert properties.message_id_of(foreign(message_id="7", app_id="shop")) == "7"


@pytest.mark.parametrize("without", [b"\0\0", b"", b"\x80\x00\xff"])
def test_a_message_id_that_is_not_there_is_no_value(without: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        properties.message_id_of(without)


# Dead letters.


def dead(original: bytes) -> spec.Basic.Properties:
    header = ContentHeader()
    head = properties.of_dead_letter(original, {"notifier-reason": "invalid"})
    header.unmarshal(bytes(12) + head.before + head.after)
    return header.properties


def test_a_dead_letter_keeps_every_readable_property() -> None:
    letter = dead(foreign(message_id="7", user_id="shop", expiration="9", headers={"attempt": 3}))

    assert (letter.message_id, letter.user_id, letter.expiration) == ("7", None, None)
    assert letter.headers == {"attempt": 3, "notifier-reason": "invalid"}
    assert letter.delivery_mode == 2


def test_a_dead_letter_whose_original_nobody_can_read_has_our_headers() -> None:
    letter = dead(foreign(headers={"a": "b"})[:-1])

    assert letter.headers == {"notifier-reason": "invalid"}


def test_a_dead_letter_keeps_the_readable_part_of_bytes_that_are_no_text() -> None:
    letter = dead(foreign(content_type="text/plain", app_id="a").replace(b"plain", b"pl\xe9in"))

    assert (letter.content_type, letter.app_id) == ("text/pl?in", "a")


def test_a_dead_letter_leaves_out_large_arrays_and_unreadable_headers() -> None:
    headers: Any = {"large": [None] * 100_000, "small": [1], "double": 1e300, "odd": "b"}
    original = foreign(headers=headers | {"double": 1.5}).replace(b"\x03oddS", b"\x03od\xffS")

    letter = dead(original)

    assert letter.headers == {"small": [1], "double": 1.5, "notifier-reason": "invalid"}


def test_a_dead_letter_says_its_own_reason_and_not_that_of_an_earlier_one() -> None:
    letter = dead(foreign(headers={"notifier-reason": "unreadable"}))

    assert letter.headers == {"notifier-reason": "invalid"}


@pytest.mark.parametrize(
    "headers",
    [{"x": "y" * 120_000}, {f"h{number}": 1 for number in range(1_001)}],
    ids=["large", "many"],
)
def test_headers_that_leave_no_room_for_ours_are_left_out_of_a_dead_letter(
    headers: dict[str, Any],
) -> None:
    letter = dead(foreign(headers=headers, app_id="shop"))

    assert letter.headers == {"notifier-reason": "invalid"}


def test_a_dead_letter_has_no_timestamp_that_clients_read_differently() -> None:
    moment = datetime.fromtimestamp(1_700_000_000, UTC)
    nanoseconds = struct.pack(">Q", 1_700_000_000 * 10**9)
    sent = foreign(timestamp=moment, app_id="shop")

    letter = dead(sent.replace(struct.pack(">Q", 1_700_000_000), nanoseconds))

    assert (letter.timestamp, letter.app_id) == (None, "shop")


# Bounds.


def test_large_arrays_and_tables_in_headers_stay_unread() -> None:
    some: Any = {f"s{number}": [None] * 2000 for number in range(9)}
    headers: Any = {"t": {"a": {"b": [1]}}, "array": [None] * 90_000, "table": {"a": "x" * 5000}}

    found = read(foreign(headers={**headers, "text": "x"})).headers
    all_small = read(foreign(headers=some)).headers

    assert (found["t"], found["text"]) == ({"a": {"b": [1]}}, "x")
    assert [type(found[name]) for name in ("array", "table")] == [Skipped, Skipped]
    assert [type(value) for value in all_small.values()] == [list] * 2 + [Skipped] * 7


def test_as_many_headers_as_may_be_are_read() -> None:
    headers: Any = {f"h{number}": number for number in range(MOST_HEADERS)}

    assert read(foreign(headers=headers)).headers == headers


def test_more_headers_are_refused_naming_the_bound() -> None:
    headers: Any = {f"h{number}": None for number in range(MOST_HEADERS + 1)}

    with pytest.raises(TooLarge, match=r"^properties: at most 1000 headers are taken here$"):
        read(foreign(headers=headers))


def test_properties_over_a_frame_are_refused_naming_the_bound() -> None:
    with pytest.raises(TooLarge, match=r"^properties: at most 131052 bytes are taken here$"):
        read(foreign(headers={"x": "y" * 131_052}))


@pytest.mark.parametrize("claimed", [10, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", [b"S", b"A", b"F", b"x"])
def test_a_length_past_the_end_is_unreadable(kind: bytes, claimed: int) -> None:
    table = b"\x01a" + kind + struct.pack(">I", claimed) + b"abc"
    properties = struct.pack(">HI", 1 << 13, len(table)) + table

    with pytest.raises(Unreadable, match="cannot be read"):
        read(properties)


@given(st.binary(max_size=60))
def test_of_any_original_there_is_a_dead_letter(garbage: bytes) -> None:
    assert (dead(garbage).headers or {})["notifier-reason"] == "invalid"
