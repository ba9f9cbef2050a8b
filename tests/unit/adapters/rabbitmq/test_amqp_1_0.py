import struct
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.rabbitmq.amqp_1_0 import (
    PROPERTIES,
    body_of,
    type_of,
    unwrapped,
)
from notifier.adapters.rabbitmq.header_tables import UNDECODABLE, UNREAD
from notifier.core.errors import Unsupported


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"\xa1" + bytes((len(encoded),)) + encoded


def mapping(*pairs: tuple[str, bytes]) -> bytes:
    content = b"".join(text(name) + value for name, value in pairs)
    head = struct.pack(">II", len(content) + 4, 2 * len(pairs))
    return b"\x00St\xd1" + head + content


def read(value: bytes) -> object:
    return unwrapped({PROPERTIES: mapping(("n", value), ("last", b"\x41"))})


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (text("Grüße"), "Grüße"),
        (b"\xb1\0\0\0\1a", "a"),
        (b"\xa3\1a", "a"),
        (b"\xa0\1\xff", b"\xff"),
        (b"\xa1\1\xff", b"\xff"),
        (b"\x40", None),
        (b"\x42", False),
        (b"\x56\x01", True),
        (b"\x43", 0),
        (b"\x54\xff", -1),
        (b"\x71\xff\xff\xff\xfe", -2),
        (b"\x80\0\0\0\0\0\0\0\7", 7),
        (b"\x82" + struct.pack(">d", 1.5), 1.5),
        (b"\x83" + struct.pack(">q", 1500), datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)),
        (b"\x98" + bytes(15) + b"\1", "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_application_properties_are_read(encoded: bytes, value: object) -> None:
    assert read(encoded) == {"n": value, "last": True}


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x73\0\0\0a",
        b"\x74" + bytes(4),
        b"\x84" + bytes(8),
        b"\x94" + bytes(16),
        b"\x83\x7f" + bytes(7),
        b"\x45",
        b"\xc0\x02\x01\x41",
        b"\xd1\0\0\0\4\0\0\0\0",
        b"\xe0\x03\x01\x56\x01",
    ],
    ids=["char", *("decimal 32", "64", "128"), "moment", "no list", "list", "map", "array"],
)
def test_a_property_that_no_attribute_can_be_costs_no_other(encoded: bytes) -> None:
    found = read(encoded)

    assert found == {"n": UNREAD, "last": True}


def test_headers_beside_them_are_kept() -> None:
    encoded = mapping(("a", b"\x41"), ("b", b"\x41"))

    assert unwrapped({PROPERTIES: encoded, "a": 1}) == {"a": 1, "b": True}


def test_a_small_map_is_one_too() -> None:
    assert unwrapped({PROPERTIES: b"\x00St\xc1\x05\x02\xa1\x01a\x41"}) == {"a": True}


@pytest.mark.parametrize(
    "encoded",
    [b"\xa1\x09a", b"\xc1\x02\0", b"\x94", b"\0" * 4_000, b"\x10", b"\xff", b"", b"\x80"],
)
def test_bytes_that_are_no_property_are_an_error_with_a_sentence(encoded: bytes) -> None:
    with pytest.raises(UNDECODABLE):
        unwrapped({PROPERTIES: b"\x00St\xd1\0\0\0\0\0\0\0\x02" + text("n") + encoded})


@given(st.binary(max_size=60))
def test_any_bytes_are_read_to_an_end(tail: bytes) -> None:
    with suppress(*UNDECODABLE):
        assert isinstance(unwrapped({PROPERTIES: b"\x00St\xd1" + tail}), dict)


@pytest.mark.parametrize(
    ("encoded", "body"),
    [
        (b'\x00Sw\xa1\x07{"a":2}', b'{"a":2}'),
        (b"\x00Sw\xa0\x01\xff", b"\xff"),
        (b"\x00Su\xb0\0\0\0\x011", b"1"),
    ],
)
def test_text_and_bytes_are_a_body(encoded: bytes, body: bytes) -> None:
    assert body_of(encoded) == body


@pytest.mark.parametrize(
    "encoded",
    [b"\x00Sw\x54\x07", b"\x00Sv\xd0\0\0\0\0", b'\x00Su\xa0\x03:6}\x00Su\xa0\x04{"a"', b"", b"{}"],
)
def test_any_other_body_is_refused_by_name(encoded: bytes) -> None:
    with pytest.raises(Unsupported, match=r"^body: .* AMQP 1\.0"):
        body_of(encoded)


@pytest.mark.parametrize(
    ("stated", "headers", "found"),
    [
        ("amqp-1.0", {}, ""),
        ("binary", {PROPERTIES: b""}, ""),
        ("binary", {"x": 1}, "binary"),
    ],
)
def test_a_type_that_rabbitmq_wrote_is_none(
    stated: str, headers: dict[str, Any], found: str
) -> None:
    assert type_of(stated, headers) == found
