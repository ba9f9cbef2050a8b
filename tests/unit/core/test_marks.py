import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.errors import Invalid, TooMany
from notifier.core.history import History
from notifier.core.marks import MOST_SINGLES, UNMARKED, Mark, Move
from notifier.core.positions import Position

HEAD = 30
PRESENT = History(Position("k", HEAD), lineage={"former": 12})


def at(offset: int, epoch: str = "k") -> Position:
    return Position(epoch, offset)


def move(
    read: int | None = None, *singles: int, received: int | None = None, epoch: str = "k"
) -> Move:
    return Move(
        "42",
        "news",
        None if read is None else at(read, epoch),
        None if received is None else at(received, epoch),
        tuple(at(single, epoch) for single in singles),
    )


def moved(*moves: Move, mark: Mark = UNMARKED, history: History = PRESENT) -> Mark:
    for each in moves:
        mark = mark.moved(each, history)
    return mark


def read_of(mark: Mark) -> set[int]:
    return {offset for offset in range(1, 2 * HEAD) if mark.has_read(offset)}


MOVES = st.builds(
    lambda kind, offset, singles: move(
        offset if kind == "read" else None,
        *(singles if kind == "single" else ()),
        received=offset if kind == "received" else None,
    ),
    st.sampled_from(["read", "received", "single"]),
    st.integers(0, HEAD),
    st.lists(st.integers(0, HEAD), max_size=4),
)


@given(moves=st.lists(MOVES, max_size=8), data=st.data())
def test_moves_in_any_order_lead_to_the_same_mark(moves: list[Move], data: st.DataObject) -> None:
    assert moved(*data.draw(st.permutations(moves))) == moved(*moves)


@given(moves=st.lists(MOVES, max_size=8), again=MOVES)
def test_a_move_takes_nothing_away_and_repeating_it_changes_nothing(
    moves: list[Move], again: Move
) -> None:
    before = moved(*moves)
    after = moved(again, mark=before)

    assert read_of(after) >= read_of(before)
    assert after.received >= before.received
    assert moved(again, mark=after) == after


@given(moves=st.lists(MOVES, max_size=8))
def test_the_mark_is_the_furthest_of_its_moves(moves: list[Move]) -> None:
    said: set[int] = set()
    for each in moves:
        said |= set(range(1, each.read.offset + 1)) if each.read else set()
        said |= {single.offset for single in each.read_only} - {0}

    assert read_of(moved(*moves)) == said


@given(moves=st.lists(MOVES, max_size=8))
def test_a_mark_has_one_form_with_no_single_one_that_touches(moves: list[Move]) -> None:
    mark = moved(*moves)

    assert list(mark.singles) == sorted(set(mark.singles))
    assert all(single > mark.read + 1 for single in mark.singles)


@given(moves=st.lists(MOVES, max_size=8), last=st.integers(0, HEAD))
def test_a_new_epoch_takes_a_mark_over_as_far_as_it_continues_the_old_one(
    moves: list[Move], last: int
) -> None:
    before = moved(*moves)
    newer = History(at(HEAD, "new"), lineage={"k": last})

    after = before.carried(newer)

    assert (after.epoch, after.received) == ("new", min(before.received, last))
    assert read_of(after) == {offset for offset in read_of(before) if offset <= last}
    assert after.carried(newer) == after


def test_a_mark_of_a_stream_that_is_gone_has_read_nothing() -> None:
    assert Mark("gone", 7, 7, (9,)).carried(PRESENT) == Mark("k")


def test_a_position_of_a_former_epoch_counts_as_far_as_it_is_continued() -> None:
    assert moved(move(12, epoch="former")) == Mark("k", 12)


@pytest.mark.parametrize(
    ("forged", "field"),
    [
        (move(HEAD + 1), "read"),
        (move(received=HEAD + 1), "received"),
        (move(None, 3, HEAD + 1), "read_only[1]"),
        (move(13, epoch="former"), "read"),
        (move(1, epoch="other"), "read"),
    ],
)
def test_a_position_that_the_stream_does_not_have_is_refused_by_its_field(
    forged: Move, field: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        moved(forged)

    assert refusal.value.field == field


def test_single_ones_are_bounded_until_the_mark_is_moved_up() -> None:
    history = History(at(10 * MOST_SINGLES))
    singles = [2 * number for number in range(1, MOST_SINGLES + 1)]
    mark = moved(move(None, *singles), history=history)

    with pytest.raises(TooMany):
        moved(move(None, singles[-1] + 2), mark=mark, history=history)

    assert moved(move(2, singles[-1] + 2), mark=mark, history=history).read == 2
