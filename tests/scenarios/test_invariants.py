"""That the checker of the other scenarios notices what it is there for."""

import pytest

from tests.support.invariants import (
    Ledger,
    Recipient,
    Streams,
    assert_delivered,
    assert_in_order,
    streams_of,
)


def hello(position: str = "a.0", **start: bool) -> dict[str, object]:
    return {"type": "hello", "topics": {"news": {"position": position, **start}}}


def event(position: str, name: str) -> dict[str, object]:
    return {"type": "event", "topic": "news", "position": position, "event": {"id": name}}


def gap(position: str) -> dict[str, object]:
    return {"type": "gap", "topic": "news", "position": position}


ONE, TWO = event("a.1", "one"), event("a.2", "two")


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([hello(), TWO], id="a hole"),
        pytest.param([hello(), ONE, event("b.3", "two")], id="another epoch, a hole"),
        pytest.param([hello(), ONE, ONE], id="a position twice"),
        pytest.param([hello(), ONE, event("a.2", "one")], id="an event twice"),
        pytest.param([hello(), TWO, ONE], id="out of order"),
        pytest.param([hello(), ONE, hello("a.2", resumed=True)], id="resumed elsewhere"),
        pytest.param([hello(), ONE, hello("a.5", resumed=False), event("a.6", "x")], id="no gap"),
        pytest.param([ONE], id="a topic that is not followed"),
    ],
)
def test_frames_that_break_the_protocol_are_noticed(frames: list[dict[str, object]]) -> None:
    with pytest.raises(AssertionError):
        streams_of(frames)


def test_a_stream_may_go_on_under_another_epoch() -> None:
    streams = streams_of([hello(), ONE, event("b.2", "two")])

    assert streams["news"].events == ["one", "two"]


def test_as_many_as_have_expired_may_be_left_out_and_no_more() -> None:
    followed = Streams()
    followed.take(hello())
    followed["news"].expired = 1

    followed.take(TWO)
    followed.take(event("a.4", "four"))

    assert [each.kind for each in followed["news"].complaints] == ["disordered"]


def test_a_client_that_resumes_is_followed_over_its_stays() -> None:
    streams = streams_of([hello(), ONE, hello("a.1", resumed=True), TWO])

    assert streams["news"].events == ["one", "two"]


def test_a_client_that_was_told_of_a_gap_goes_on_behind_it() -> None:
    streams = streams_of(
        [hello(), ONE, hello("b.7", resumed=False), gap("b.7"), event("b.8", "later")]
    )

    assert (streams["news"].events, streams["news"].gaps) == (["one", "later"], 1)


@pytest.mark.parametrize(
    ("confirmed", "complaint"),
    [
        ({"one", "two", "three"}, "lost in news"),
        ({"one"}, "not meant for news"),
    ],
)
def test_a_lost_event_and_one_of_another_user_are_noticed(
    confirmed: set[str], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        assert_delivered([hello(), ONE, TWO], {"news": confirmed})


def test_events_in_doubt_may_come_or_not() -> None:
    assert_delivered([hello(), ONE, TWO], {"news": {"one"}}, in_doubt={"two", "three"})


def test_a_gap_is_noticed_unless_it_is_allowed() -> None:
    frames = [hello(), ONE, gap("a.3")]

    assert_delivered(frames, {"news": {"one", "two", "three"}}, gaps_allowed=True)
    with pytest.raises(AssertionError, match="1 gaps"):
        assert_delivered(frames, {"news": {"one", "two", "three"}})


def test_a_lane_out_of_order_is_noticed() -> None:
    places = {"one": ("lane", 1), "two": ("lane", 2), "other": ("another lane", 1)}

    assert_in_order(["one", "other", "two"], places)
    with pytest.raises(AssertionError, match="one of lane"):
        assert_in_order(["two", "other", "one"], places)


# While events flow.


class Flowing:
    """A recipient of `news` and what is posted there, on a clock of its own."""

    def __init__(self, *names: str) -> None:
        self.now = 1.0
        self.ledger = Ledger()
        self.recipient = Recipient(self.ledger, ["news"], lambda: self.now)
        self.post(*names)

    def post(self, *names: str) -> None:
        for name in names:
            self.ledger.post(name, ["news"], "lane", self.now)
            self.ledger.confirm(["news"], "lane")

    def take(self, *frames: dict[str, object]) -> None:
        self.now += 1
        for frame in frames:
            self.recipient.take(frame)

    @property
    def kinds(self) -> list[str]:
        self.recipient.give_up()
        return [complaint.kind for complaint in self.recipient.complaints]


def test_a_confirmed_event_is_missed_until_it_has_come() -> None:
    flowing = Flowing("one", "two")

    flowing.take(hello(), ONE)
    assert flowing.recipient.missing() == [("news", "two")]
    flowing.take(TWO)

    assert flowing.recipient.missing() == []
    assert flowing.kinds == []


@pytest.mark.parametrize(
    ("frames", "kinds"),
    [
        pytest.param([ONE], ["lost"], id="the last one"),
        pytest.param([event("a.1", "two")], ["lost"], id="one that was passed over"),
        pytest.param([ONE, TWO, event("a.3", "one")], ["twice"], id="one that came again"),
        pytest.param([ONE, TWO, event("a.3", "x")], ["twice"], id="another's"),
        pytest.param([event("a.1", "two"), event("a.2", "one")], ["disordered"], id="a late one"),
        pytest.param(
            [ONE, TWO, {"type": "cursor", "cursor": "news@a.3"}], ["disordered"], id="a cursor"
        ),
    ],
)
def test_each_fault_is_counted(frames: list[dict[str, object]], kinds: list[str]) -> None:
    flowing = Flowing("one", "two")

    flowing.take(hello(), *frames)

    assert flowing.kinds == kinds


def test_a_gap_excuses_events_posted_before_it_and_none_after() -> None:
    flowing = Flowing("one", "two")

    flowing.take(hello(), gap("b.2"))
    flowing.now += 1
    flowing.post("three")

    assert flowing.recipient.missing() == [("news", "three")]


def test_an_event_that_comes_again_behind_a_gap_is_no_fault_and_is_counted() -> None:
    flowing = Flowing("one")

    flowing.take(hello(), ONE, gap("b.0"), event("b.1", "one"))

    assert flowing.kinds == []
    assert flowing.recipient.repeats == 1
