import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.errors import Invalid
from notifier.core.positions import Position, format_cursor, parse_cursor

POSITIONS = st.builds(
    Position,
    st.from_regex(r"[0-9a-z]{1,16}", fullmatch=True),
    st.integers(0, 10**16 - 1),
)
TOPICS = st.from_regex(r"(user:)?[A-Za-z0-9\-._~:@/+=|$!&]{1,128}", fullmatch=True)


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
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"^since: a position looks like"):
        Position.parse(text)


def test_a_topic_with_an_at_sign_stands_in_a_cursor() -> None:
    cursor = parse_cursor("user:ann@example.org@k3x9q2.17,news@c8.9")

    assert cursor == {"user:ann@example.org": Position("k3x9q2", 17), "news": Position("c8", 9)}


def test_no_cursor_is_an_empty_one() -> None:
    assert parse_cursor("") == {}


@pytest.mark.parametrize("text", ["k3x9q2.17", "news@", "news@x", "@@"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"^since: "):
        parse_cursor(text)


def test_a_cursor_is_bounded() -> None:
    with pytest.raises(Invalid, match="at most 20000"):
        parse_cursor("a@b.1," * 4000)


def test_a_cursor_of_a_hundred_longest_topics_fits() -> None:
    positions = {f"user:{n:0128}": Position("z" * 16, 10**16 - 1) for n in range(100)}

    assert parse_cursor(format_cursor(positions)) == positions
