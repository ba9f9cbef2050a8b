from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from notifier.core.events import SILENT
from notifier.core.history import History
from notifier.core.marks import UNMARKED, Mark, Move
from notifier.core.positions import Position
from notifier.core.publications import Publication
from notifier.core.recovery import newest_of
from notifier.core.unread import Countable, Unread

NOW = 1_000


@dataclass(frozen=True)
class Posted:
    """One publication as its producer wanted it."""

    expires: int = 0
    collapse_key: str = ""
    silent: bool = False

    def at(self, offset: int, epoch: str = "k") -> Publication:
        event = SILENT + b'"id":"x"}' if self.silent else b'{"specversion":"1.0","id":"x"}'
        record = b"0:%d:%s\n%s" % (self.expires, self.collapse_key.encode(), event)
        return Publication("news", epoch, offset, record)


def history(posted: list[Posted], kept: int = 100, epoch: str = "k", **lineage: int) -> History:
    publications = [each.at(number, epoch) for number, each in enumerate(posted, 1)]
    newest = newest_of(History(Position(epoch, 0)), publications)
    head = Position(epoch, len(posted))
    return History(head, publications[len(posted) - min(kept, len(posted)) :], lineage, newest)


def unread(mark: Mark, of: History, now: int = NOW) -> Unread:
    return Countable(of, now).unread(mark)


def test_silent_expired_and_superseded_ones_do_not_count() -> None:
    posted = [
        Posted(),
        Posted(silent=True),
        Posted(expires=NOW),
        Posted(expires=NOW + 1),
        Posted(collapse_key="a"),
        Posted(collapse_key="a"),
    ]

    assert unread(UNMARKED, history(posted)) == Unread(3, more=False)


def test_a_silent_one_with_the_key_of_an_unread_one_supersedes_it() -> None:
    posted = [Posted(collapse_key="a"), Posted(collapse_key="a", silent=True)]

    assert unread(UNMARKED, history(posted)) == Unread(0, more=False)


def test_past_historys_end_there_may_be_more_and_no_guess() -> None:
    of = history([Posted()] * 10, kept=4)

    assert unread(Mark("k", 6), of) == Unread(4, more=False)
    assert unread(Mark("k", 5), of) == Unread(4, more=True)
    assert unread(UNMARKED, history([Posted()] * 3, kept=0)) == Unread(0, more=True)
    assert unread(Mark("k", 3), history([Posted()] * 3, kept=0)) == Unread(0, more=False)


def test_a_mark_of_a_former_epoch_counts_as_far_as_that_is_continued() -> None:
    of = history([Posted()] * 6, former=3)

    assert unread(Mark("former", 2, singles=(5,)), of) == Unread(4, more=False)
    assert unread(Mark("former", 5), of) == Unread(3, more=False)
    assert unread(Mark("gone", 5), of) == Unread(6, more=False)


def test_an_empty_stream_has_nothing_unread() -> None:
    assert unread(UNMARKED, history([])) == Unread(0, more=False)


POSTED = st.builds(
    Posted,
    expires=st.sampled_from([0, NOW - 1, NOW, NOW + 1, NOW + 9]),
    collapse_key=st.sampled_from(["", "", "a", "b"]),
    silent=st.booleans(),
)


@dataclass
class Story:
    """A topic's stream, and the moves of one user's devices, in the order in which all happened."""

    posted: list[Posted]
    moves: list[tuple[int, int]]  # after how many events, and to which offset


@st.composite
def stories(draw: st.DrawFn) -> Story:
    posted = draw(st.lists(POSTED, min_size=1, max_size=20))
    moves = st.integers(1, len(posted)).flatmap(
        lambda after: st.tuples(st.just(after), st.integers(1, after))
    )
    return Story(posted, draw(st.lists(moves, max_size=6)))


@given(story=stories(), data=st.data())
def test_any_order_of_marks_events_expiry_and_epochs_leads_to_one_unread_on_every_device(
    story: Story, data: st.DataObject
) -> None:
    """Devices hear of moves in any order, some only after the epoch has changed."""
    last = len(story.posted)
    now = data.draw(st.integers(NOW - 2, NOW + 10))
    of = history(story.posted, epoch="new", k=last)

    def told(moves: list[tuple[int, int]], changes: int) -> Unread:
        mark = UNMARKED
        for number, (after, offset) in enumerate(moves):
            epoch = "new" if number >= changes else "k"
            present = of if epoch == "new" else history(story.posted[: max(after, last)])
            position = Position(data.draw(st.sampled_from(["k", epoch])), offset)
            move = Move("42", "news", read_only=(position,))
            if offset % 2:
                move = Move("42", "news", read=position)
            mark = mark.moved(move, present)
        return unread(mark, of, now)

    answers = {
        told(data.draw(st.permutations(story.moves)), data.draw(st.integers(0, len(story.moves))))
        for _ in range(3)
    }

    assert answers == {Unread(recount(story, now), more=False)}


def recount(story: Story, now: int) -> int:
    """Count as slowly and plainly as can be."""
    up_to = max((offset for _, offset in story.moves if offset % 2), default=0)
    single = {offset for _, offset in story.moves if not offset % 2}
    number = 0
    for offset, posted in enumerate(story.posted, 1):
        later = story.posted[offset:]
        superseded = posted.collapse_key and any(
            other.collapse_key == posted.collapse_key for other in later
        )
        expired = 0 < posted.expires <= now
        is_read = offset <= up_to or offset in single
        number += not (superseded or expired or posted.silent or is_read)
    return number
