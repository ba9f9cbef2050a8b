import asyncio
from collections.abc import Sequence

import pytest

from notifier.core import crowd
from notifier.core.feed import Feed, Join
from notifier.core.history import History, Since
from notifier.core.positions import START, Position
from notifier.core.publications import Publication
from notifier.core.recovery import missed, newest_of, recoverable
from tests.support.brokers import record
from tests.support.connections import RecordingConnection
from tests.support.observers import RecordingObserver


def at(offset: int, epoch: str = "k") -> Position:
    return Position(epoch, offset)


def publication(
    offset: int, epoch: str = "k", *, expires: int = 0, collapse_key: str = ""
) -> Publication:
    text = record("x", expires=expires, collapse_key=collapse_key)
    return Publication("news", *at(offset, epoch), text)


def history(head: int, first: int | None = None, epoch: str = "k") -> History:
    offsets = range(head + 1 if first is None else first, head + 1)
    publications = [publication(offset, epoch) for offset in offsets]
    return History(at(head, epoch), publications, {"former": 6})


# When history cannot continue a stream.


@pytest.mark.parametrize(
    ("behind", "answer", "reason"),
    [
        (at(5), history(5), None),
        (at(5), history(8, 6), None),
        (at(5), history(8, 3), None),
        (at(0), history(0), None),
        (at(0), history(2, 1), None),
        (at(5), history(8, 7), "expired"),
        (at(5), history(8), "expired"),
        (at(9), history(8, 8), "lost"),
        (at(5, "old"), history(8, 1), "restarted"),
        (at(9, "old"), history(0), "restarted"),
        (at(5, "former"), history(8, 6), None),
        (at(6, "former"), history(8, 7), None),
        (at(7, "former"), history(8, 7), "lost"),
        (at(4, "former"), history(8, 6), "expired"),
    ],
)
def test_history_continues_a_stream_or_says_why_not(
    behind: Position, answer: History, reason: str | None
) -> None:
    assert missed(behind, answer) == reason


# The demand of a client that reconnects.


def recovered(publications: list[Publication], now: int) -> list[int]:
    newest = newest_of(History(at(0)), publications)
    return [p.position.offset for p in publications if recoverable(p, newest, now)]


def test_of_publications_with_one_collapse_key_only_the_newest_is_recovered() -> None:
    publications = [
        publication(1, collapse_key="a"),
        publication(2),
        publication(3, collapse_key="b"),
        publication(4, collapse_key="a"),
        publication(5),
    ]

    assert recovered(publications, 1) == [2, 3, 4, 5]


def test_an_expired_event_is_not_recovered() -> None:
    publications = [publication(1, expires=10), publication(2, expires=11), publication(3)]

    assert recovered(publications, 10) == [2, 3]


def test_a_newer_publication_of_the_key_on_a_later_page_counts_too() -> None:
    of_the_key = publication(1, collapse_key="a")

    assert not recoverable(of_the_key, newest_of(History(at(9), newest={b"a": 7}), ()), 1)
    assert recoverable(of_the_key, newest_of(History(at(9), newest={b"a": 1}), ()), 1)


# One feed, without a hub.


def followed(feed: Feed, head: int) -> RecordingConnection:
    connection = RecordingConnection()
    feed.join(Join(connection, "news", None))
    answered(feed, history(head))
    return connection


def answered(feed: Feed, answer: History) -> None:
    feed.admit(feed.settle(feed.question(), answer))


def test_a_feed_is_empty_until_somebody_is_about_to_follow() -> None:
    feed, connection = Feed("news", RecordingObserver()), RecordingConnection()
    before = feed.empty

    feed.join(Join(connection, "news", None))

    assert (before, feed.empty) == (True, False)


def test_a_feed_is_empty_once_the_last_has_left() -> None:
    feed = Feed("news", RecordingObserver())
    first, second = followed(feed, 5), followed(feed, 5)

    feed.drop(first)
    between = feed.empty
    feed.drop(second)

    assert (between, feed.empty) == (False, True)


def test_a_connection_that_never_followed_can_be_dropped() -> None:
    feed = Feed("news", RecordingObserver())

    feed.drop(RecordingConnection())

    assert feed.empty


def test_history_is_asked_behind_the_rearmost_of_all() -> None:
    feed = Feed("news", RecordingObserver())
    followed(feed, 5)
    for since in (at(3), at(9), None):
        feed.join(Join(RecordingConnection(), "news", since))

    assert feed.question() == Since("news", 3, seen=at(5))


def test_only_the_head_is_asked_for_when_nobody_has_a_position() -> None:
    feed = Feed("news", RecordingObserver())
    feed.join(Join(RecordingConnection(), "news", None))

    assert feed.question() == Since("news", None)


def test_a_publication_is_encoded_once_for_all_followers_of_a_kind() -> None:
    feed, encoded = Feed("news", RecordingObserver()), list[Publication]()
    connections = [RecordingConnection() for _ in range(3)]
    other = followed(feed, 5)

    def encode(publication: Publication) -> bytes:
        encoded.append(publication)
        return b'{"type":"event"}'

    for connection in connections:
        connection.encode = encode
        feed.add(connection)

    feed.accept_publication(publication(6))

    assert other.types == ["event"]

    assert len(encoded) == 1
    assert [connection.types for connection in connections] == [["event"]] * 3


@pytest.mark.parametrize("number", [1, 2, 3])
def test_followers_that_leave_get_nothing_more_and_the_last_leaves_the_feed_empty(
    number: int,
) -> None:
    feed = Feed("news", RecordingObserver())
    connections = [followed(feed, 5) for _ in range(number)]

    for left, connection in enumerate(connections, 1):
        feed.drop(connection)
        feed.drop(connection)
        feed.accept_publication(publication(5 + left))
        assert feed.empty is (left == number)

    assert [len(each.sent) for each in connections] == list(range(number))


def test_a_client_that_subscribes_after_all_have_left_is_served() -> None:
    feed = Feed("news", RecordingObserver())
    for connection in [followed(feed, 5), followed(feed, 5)]:
        feed.drop(connection)

    one, two = followed(feed, 5), followed(feed, 5)
    feed.accept_publication(publication(6))

    assert (one.types, two.types) == (["event"], ["event"])


def test_the_observer_hears_of_a_publication_once_with_all_its_followers() -> None:
    observer = RecordingObserver()
    feed = Feed("news", observer)
    followed(feed, 5)
    followed(feed, 5)

    feed.accept_publication(publication(6))

    assert observer.told == [("fanned_out", 2)]


def test_a_publication_whose_time_is_over_takes_its_offset_and_is_not_sent() -> None:
    observer = RecordingObserver()
    feed = Feed("news", observer)
    connection = followed(feed, 5)

    taken = [
        feed.accept_publication(publication(6, expires=1)),
        feed.accept_publication(publication(7)),
    ]

    assert taken == [True, True]
    assert connection.positions("news") == ["k.7"]
    assert ("expired", 1) in observer.told


def test_time_is_over_by_the_clock_that_was_given() -> None:
    feed = Feed("news", RecordingObserver(), lambda: 1000.0)
    connection = followed(feed, 5)

    for offset, expires in ((6, 1_000_000), (7, 1_000_001), (8, 999_999)):
        feed.accept_publication(publication(offset, expires=expires))

    assert connection.positions("news") == ["k.7"]


def test_an_answer_older_than_later_events_loses_none_of_them() -> None:
    feed = Feed("news", RecordingObserver())
    connection = followed(feed, 5)

    asked = feed.question()
    feed.accept_publication(publication(6))
    feed.admit(feed.settle(asked, history(5)))

    assert connection.positions("news") == ["k.6"]
    assert not feed.unsettled


def test_a_feed_stays_unsettled_while_something_beyond_its_position_is_known() -> None:
    feed = Feed("news", RecordingObserver())
    followed(feed, 5)

    asked = feed.question()
    feed.accept_publication(publication(8))
    feed.admit(feed.settle(asked, history(5)))

    assert feed.unsettled


def test_events_held_while_history_is_asked_are_bounded() -> None:
    feed = Feed("news", RecordingObserver())
    connection = RecordingConnection()
    feed.join(Join(connection, "news", at(5)))

    asked = feed.question()
    for offset in range(6, 25_000):
        feed.accept_publication(publication(offset))
    feed.admit(feed.settle(asked, history(5)))
    unsettled = feed.unsettled
    answered(feed, history(24_999, 6))

    assert unsettled
    assert connection.positions("news") == [f"k.{n}" for n in range(6, 25_000)]


# A stream that goes on under another epoch.


def test_followers_go_on_where_the_new_epoch_continues_theirs() -> None:
    feed = Feed("news", RecordingObserver())
    connection = followed(feed, 5)

    feed.accept_publication(publication(6, "next"))
    answered(feed, History(at(6, "next"), [publication(6, "next")], {"k": 5}))

    assert connection.positions("news") == ["next.6"]
    assert connection.of_type("gap") == []


def test_followers_ahead_of_the_new_epochs_start_get_a_gap() -> None:
    feed = Feed("news", RecordingObserver())
    connection = followed(feed, 5)

    answered(feed, History(at(6, "next"), [publication(6, "next")], {"k": 4}))

    assert connection.positions("news") == []
    assert connection.only("gap")["position"] == "next.6"


async def test_a_gap_does_not_overtake_an_event_that_is_on_its_way_to_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowd, "TURN", 1)
    feed = Feed("news", RecordingObserver())
    connections = [followed(feed, 5), RecordingConnection()]
    feed.add(connections[1])

    feed.accept_publication(publication(6))
    answered(feed, History(at(9, "next"), [], {"k": 4}))
    await asyncio.sleep(0)

    for connection in connections:
        assert [frame["type"] for frame in connection.sent][-2:] == ["event", "gap"]


def test_a_client_that_reconnects_from_a_former_epoch_is_resumed() -> None:
    feed, connection = Feed("news", RecordingObserver()), RecordingConnection()
    join = Join(connection, "news", at(3))
    feed.join(join)

    answered(
        feed, History(at(5, "next"), [publication(4, "next"), publication(5, "next")], {"k": 4})
    )

    assert connection.positions("news") == ["next.4", "next.5"]
    assert join.start is not None
    assert join.start.resumed is True


def test_the_broker_is_told_the_positions_seen() -> None:
    feed = Feed("news", RecordingObserver())
    followed(feed, 5)
    feed.accept_publication(publication(6))

    assert feed.question().seen == at(6)


# A client that cannot take all of its history at once.


class Narrow(RecordingConnection):
    """Has room for so many frames."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    @property
    def has_room(self) -> bool:
        return len(self.sent) < self.room

    @has_room.setter
    def has_room(self, _: bool) -> None:
        pass


@pytest.fixture
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.core.feed._BUNDLE", 1)


@pytest.mark.usefixtures("_one_at_a_time")
def test_a_replay_stops_when_there_is_no_room_and_goes_on_when_there_is() -> None:
    feed, connection = Feed("news", RecordingObserver()), Narrow(room=2)
    feed.join(Join(connection, "news", at(0)))

    answered(feed, history(5, 1))
    first = connection.positions("news")
    connection.room = 9
    answered(feed, history(5, 3))

    assert first == ["k.1", "k.2"]
    assert connection.positions("news") == ["k.1", "k.2", "k.3", "k.4", "k.5"]


class Bundled(RecordingConnection):
    """Notes how many publications came together."""

    def __init__(self) -> None:
        super().__init__()
        self.bundles: list[int] = []

    def write_all(self, publications: Sequence[Publication]) -> None:
        """See Connection."""
        self.bundles.append(len(publications))
        super().write_all(publications)


def test_missed_publications_come_together_in_bundles_of_so_many_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = len(publication(1).event)
    monkeypatch.setattr("notifier.core.feed._BUNDLE", 2 * event)
    feed, connection = Feed("news", RecordingObserver()), Bundled()
    feed.join(Join(connection, "news", at(0)))

    answered(feed, history(5, 1))

    assert connection.bundles == [2, 2, 1]
    assert connection.positions("news") == [f"k.{offset}" for offset in range(1, 6)]


def test_a_client_without_room_does_not_hold_up_others() -> None:
    feed, connection = Feed("news", RecordingObserver()), Narrow(room=0)
    feed.join(Join(connection, "news", at(0)))
    answered(feed, history(5, 1))

    other = followed(feed, 5)
    feed.accept_publication(publication(6))

    assert not feed.unsettled
    assert other.positions("news") == ["k.6"]
    assert connection.sent == []
    assert feed.question() == Since("news", 6, seen=at(6))


@pytest.mark.usefixtures("_one_at_a_time")
def test_history_trimmed_while_there_was_no_room_is_a_gap() -> None:
    feed, connection = Feed("news", RecordingObserver()), Narrow(room=1)
    feed.join(Join(connection, "news", at(0)))
    answered(feed, history(5, 1))

    connection.room = 9
    answered(feed, history(8, 4))

    assert connection.only("gap")["position"] == "k.8"


# A topic that cannot be read.


def unreadable() -> History:
    return History(Position.unknown())


def test_followers_are_told_once_that_their_topic_cannot_be_read() -> None:
    feed = Feed("news", RecordingObserver())
    connection = followed(feed, 5)

    for answer in (unreadable(), unreadable(), unreadable()):
        answered(feed, answer)

    assert len(connection.of_type("gap")) == 1
    assert not feed.unsettled


def test_followers_are_told_of_events_that_they_miss_while_their_topic_cannot_be_read() -> None:
    feed = Feed("news", RecordingObserver())
    connection = followed(feed, 5)
    answered(feed, unreadable())

    assert not feed.accept_publication(publication(6))
    answered(feed, unreadable())
    asked = feed.question()
    feed.accept_publication(publication(7))
    feed.admit(feed.settle(asked, unreadable()))
    assert feed.unsettled
    answered(feed, unreadable())

    assert len(connection.of_type("gap")) == 3
    assert connection.of_type("event") == []
    assert not feed.unsettled


def test_followers_are_told_when_their_topic_can_be_read_again() -> None:
    feed = Feed("news", RecordingObserver())
    connection = followed(feed, 5)
    answered(feed, unreadable())

    answered(feed, history(8))
    feed.accept_publication(publication(9))

    assert [gap["position"] for gap in connection.of_type("gap")][1:] == ["k.8"]
    assert len(connection.of_type("event")) == 1


@pytest.mark.parametrize("since", [None, START, at(5), Position.unknown()])
def test_a_connection_joins_a_topic_that_cannot_be_read_and_no_other_is_told(
    since: Position | None,
) -> None:
    feed, joining = Feed("news", RecordingObserver()), RecordingConnection()
    connection = followed(feed, 5)
    answered(feed, unreadable())

    feed.join(Join(joining, "news", since))
    answered(feed, unreadable())

    assert not feed.joins
    assert not feed.unsettled
    assert len(joining.of_type("gap")) == (since not in (None, START))
    assert len(connection.of_type("gap")) == 1
