from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.errors import Invalid
from notifier.core.positions import Position, format_cursor, parse_cursor
from tests.support.events import TOPICS

POSITIONS = st.builds(
    Position,
    st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=16),
    st.integers(0, 10**16 - 1),
)


@given(POSITIONS)
def test_a_position_is_read_as_it_was_written(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(st.dictionaries(TOPICS, POSITIONS, max_size=100))
def test_a_cursor_is_read_as_it_was_written(positions: dict[str, Position]) -> None:
    assert parse_cursor(format_cursor(positions)) == positions


def test_a_position_is_written_as_the_protocol_says() -> None:
    assert str(Position("k3x9q2", 17)) == "k3x9q2.17"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17",
        "k.",
        ".17",
        "k.017",
        "k.-1",
        "k.1.2",
        "K.1",
        "k.1 ",
        "k.1\n",
        "k.\u0661",
        "k" * 17 + ".1",
    ],
)
def test_a_malformed_position_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"^since: a position looks like"):
        Position.parse(text)


def test_a_place_that_is_unknown_is_no_other_and_stands_in_a_cursor() -> None:
    one, other = Position.unknown(), Position.unknown()

    assert one != other
    assert one.is_unknown
    assert parse_cursor(f"news@{one}") == {"news": one}
    assert not Position("unknown2", 1).is_unknown


def test_a_topic_with_an_at_sign_stands_in_a_cursor() -> None:
    cursor = parse_cursor("user:ann@example.org@k3x9q2.17,news@c8.9")

    assert cursor == {"user:ann@example.org": Position("k3x9q2", 17), "news": Position("c8", 9)}


def test_no_cursor_is_an_empty_one() -> None:
    assert parse_cursor("") == {}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("k3x9q2.17", "a cursor looks like"),
        ("user:ann@example.org", "a position looks like"),
        ("news@", "a position looks like"),
        ("news@x", "a position looks like"),
        ("@@", "a position looks like"),
        ("news@K3X.1", "a position looks like"),
        ("news@k.017", "a position looks like"),
        ("news@k.1 ", "a position looks like"),
        ("news@k.99999999999999999", "a position looks like"),
        ("@k.1", "a topic's name must be 1 to 128"),
        ("user:@k.1", "a topic's name must be 1 to 128"),
        ("user:ann news@example.org@k.1", "a topic's name must be 1 to 128"),
        ("news@k.1, everyone@k.1", "a topic's name must be 1 to 128"),
        ("user:\u00e9@k.1", "a topic's name must be 1 to 128"),
        ("n" * 129 + "@k.1", "a topic's name must be 1 to 128"),
        ("news@k.1,news@k.2", "has two positions for topic news"),
        ("news@k.1,", "a cursor looks like"),
        (",news@k.1", "a cursor looks like"),
        ("news@k.1,,everyone@k.1", "a cursor looks like"),
        (",", "a cursor looks like"),
        (" ", "a cursor looks like"),
    ],
)
def test_a_malformed_cursor_is_refused_by_the_rule(text: str, rule: str) -> None:
    with pytest.raises(Invalid, match=f"^since: {rule}"):
        parse_cursor(text)


@given(st.dictionaries(TOPICS, POSITIONS, max_size=20))
def test_a_cursor_comes_through_a_url_as_it_was_written(positions: dict[str, Position]) -> None:
    query = parse_qs(urlencode({"since": format_cursor(positions)}), keep_blank_values=True)

    assert parse_cursor(query["since"][0]) == positions


@given(st.text(max_size=40), st.dictionaries(TOPICS, POSITIONS, min_size=1, max_size=3))
def test_no_item_of_a_cursor_is_passed_over(text: str, positions: dict[str, Position]) -> None:
    mixed = f"{format_cursor(positions)}{text}"
    try:
        cursor = parse_cursor(mixed)
    except Invalid:
        return

    assert format_cursor(cursor) == mixed


def test_a_cursor_is_bounded() -> None:
    with pytest.raises(Invalid, match="at most 20000"):
        parse_cursor("a@b.1," * 4000)


def test_a_cursor_of_a_hundred_longest_topics_fits() -> None:
    positions = {f"user:{n:0128}": Position("z" * 16, 10**16 - 1) for n in range(100)}

    assert parse_cursor(format_cursor(positions)) == positions
