from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, Struct

from notifier.core.errors import Invalid, TooLarge, Unreadable
from notifier.core.reading import NOT_A_MEMBER, check_size, read_json


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
def test_what_is_wrong_is_said_in_our_words(text: bytes, said: str) -> None:
    assert str(refused(text)) == said


def test_nesting_is_bounded() -> None:
    deep = b"[" * 100_000

    with pytest.raises(Unreadable):
        read_json(deep, msgspec.json.Decoder(), len(deep))


def test_more_bytes_than_the_bound_are_not_read() -> None:
    check_size(100, 100)
    with pytest.raises(TooLarge, match="at most 100 bytes"):
        read_json(b" " * 101, THING, 100)
