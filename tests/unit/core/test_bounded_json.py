from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from notifier.core.bounded_json import NOT_A_MEMBER, check_size, is_too_deep, read_json
from notifier.core.errors import Invalid, TooLarge, Unreadable


class Thing(Struct, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    names: list[str] = []
    word: Annotated[str, Meta(pattern="^a")] = "a"


THING = msgspec.json.Decoder(Thing)


def refused(text: bytes) -> Invalid:
    with pytest.raises(Invalid) as error:
        read_json(text, THING, 100, {"word": "must begin with a"})
    return error.value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"count":"1"}', "count: must be a whole number, not a string"),
        (b'{"count":0}', "count: must be at least 1"),
        (b'{"count":1e300}', "count: must be a whole number, not a number"),
        (b'{"count":10}', "count: must be at most 9"),
        (b'{"names":["a",null]}', "names[1]: must be a string, not null"),
        (b'{"word":"b"}', "word: must begin with a"),
        (b'{"colour":1}', f"colour: {NOT_A_MEMBER}"),
        (b"[]", "must be an object, not a list"),
        (b"", "not JSON: there is nothing in it"),
        (b"{", "not JSON: it ends too early"),
        (b'{"count":x}', "not JSON from byte 9 on"),
        (b'"\xff"', "not UTF-8 at byte 1"),
    ],
)
def test_a_fault_is_described_in_our_words(text: bytes, said: str) -> None:
    assert str(refused(text)) == said


@pytest.mark.parametrize(
    "text", [b'{"a":1e400}', b'{"a":' + b"9" * 5000 + b"}", b'{"a":[[1e400]]}']
)
def test_a_number_that_is_too_large_is_told_where_no_name_is_known(text: bytes) -> None:
    with pytest.raises(Invalid) as error:
        read_json(text, msgspec.json.Decoder(dict[str, object]), len(text))

    assert (error.value.field, error.value.reason) == ("", "a number is too large to be read")


def test_the_rule_of_a_member_goes_before_one_bound_of_it() -> None:
    with pytest.raises(Invalid, match=r"^count: must be from 1 to 9$"):
        read_json(b'{"count":10}', THING, 100, {"count": "must be from 1 to 9"})


def nested(times: int, inner: bytes = b"") -> bytes:
    return b'{"a":[' * (times // 2) + inner + b"]}" * (times // 2)


@pytest.mark.parametrize("text", [b"[" * 100_000, nested(258), nested(2_900), nested(20_000)])
def test_nesting_is_bounded(text: bytes) -> None:
    with pytest.raises(Unreadable, match="nested too deeply: at most 256"):
        read_json(text, msgspec.json.Decoder(), len(text))


@pytest.mark.parametrize(
    "text",
    [
        nested(256),
        b"[" + b",".join([b'{"a":[[]]}'] * 1_000) + b"]",
        b'"' + b"[" * 1_000 + b'"',
        rb'["\\", "\"' + b"[" * 300 + rb'\"", "' + b"{" * 300 + b'"]',
    ],
)
def test_shallow_json_is_read_with_any_number_of_brackets(text: bytes) -> None:
    decoder = msgspec.json.Decoder()

    assert read_json(text, decoder, len(text)) == decoder.decode(text)


def test_depth_does_not_hide_behind_brackets_in_strings() -> None:
    hidden = b"[" + b",".join([rb'"\"]]]]]\\"'] * 100) + b"," + b"[" * 256 + b"]" * 257

    assert is_too_deep(hidden)


@given(st.recursive(st.text(alphabet='[]{}"\\a', max_size=5) | st.none(), st.lists, max_leaves=20))
def test_depth_is_that_of_the_value(value: object) -> None:
    padding = b"[" + b",".join([b"[]"] * 300) + b","  # so that it is looked at closely
    text = padding + b"[" * 250 + msgspec.json.encode(value) + b"]" * 251

    assert is_too_deep(text) is (251 + depth(value) > 256)


def depth(value: object) -> int:
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize("half", [rb"\ud83d", rb"\uDE00", rb"\\\ud83d", rb"\ud83d\ude00\ude00"])
def test_half_of_a_character_is_named(half: bytes) -> None:
    with pytest.raises(Unreadable, match=r"^\\u[dD]..[0d] is half of a character") as refusal:
        read_json(b'"%s and more"' % half, THING, 100)

    assert "send both halves" in str(refusal.value)


def test_whole_characters_are_no_halves() -> None:
    with pytest.raises(Unreadable, match="not JSON from byte"):
        read_json(rb'"\ud83d\ude00 \\ud83d" x', msgspec.json.Decoder(), 100)


def test_half_of_a_character_behind_the_place_where_json_ends_is_not_the_reason() -> None:
    with pytest.raises(Unreadable, match="not JSON from byte 6 on"):
        read_json(rb'{"a": x, "b": "\ud83d"}', msgspec.json.Decoder(), 100)


def test_more_bytes_than_the_bound_are_not_read() -> None:
    check_size(100, 100)
    with pytest.raises(TooLarge, match="at most 100 bytes"):
        read_json(b" " * 101, THING, 100)
