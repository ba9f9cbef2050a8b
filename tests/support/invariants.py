"""What must hold for every client, whatever is killed meanwhile.

Every event of a topic comes once, its offset one more than that of the event before it; or the
client is told of a gap. Nothing else comes.
"""

from collections.abc import Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Followed:
    """What a client has been sent of one topic, over all its stays."""

    position: str
    events: list[str] = field(default_factory=list)
    gaps: int = 0
    gap_due: bool = False

    def goes_on_at(self, start: Mapping[str, Any]) -> None:
        """Take where the server says that the client, who has come back, goes on."""
        if start.get("resumed"):
            assert start["position"] == self.position, f"resumed at {start}, was {self.position}"
        else:
            # Without `resumed` the client gave no position: what it misses it chose to miss.
            self.gap_due = "resumed" in start
            self.position = self.position if self.gap_due else start["position"]

    def take(self, frame: Mapping[str, Any]) -> None:
        """Take an `event` frame."""
        epoch, offset = self.position.split(".")
        assert not self.gap_due, f"an event where a gap was announced: {frame}"
        assert frame["position"] == f"{epoch}.{int(offset) + 1}", f"{frame} after {self.position}"
        assert frame["event"]["id"] not in self.events, f"a second time: {frame}"
        self.position = frame["position"]
        self.events.append(frame["event"]["id"])

    def take_gap(self, frame: Mapping[str, Any]) -> None:
        """Take a `gap` frame."""
        self.position, self.gap_due = frame["position"], False
        self.gaps += 1


def streams_of(frames: Iterable[Mapping[str, Any]]) -> dict[str, Followed]:
    """Replay a client's frames of all its stays; AssertionError where they break the protocol."""
    streams: dict[str, Followed] = {}
    for frame in frames:
        match frame["type"]:
            case "hello":
                for topic, start in frame["topics"].items():
                    streams.setdefault(topic, Followed(start["position"])).goes_on_at(start)
            case "subscribed":
                streams.setdefault(frame["topic"], Followed(frame["position"])).goes_on_at(frame)
            case "event":
                assert frame["topic"] in streams, f"of a topic that is not followed: {frame}"
                streams[frame["topic"]].take(frame)
            case "gap":
                streams[frame["topic"]].take_gap(frame)
            case _:  # the other frames say nothing of streams
                pass
    return streams


def assert_delivered(
    frames: Iterable[Mapping[str, Any]],
    confirmed: Mapping[str, AbstractSet[str]],
    *,
    in_doubt: AbstractSet[str] = frozenset(),
    gaps_allowed: bool = False,
) -> None:
    """Compare a client's frames with the events that were confirmed for each topic.

    `confirmed` has the topics that the client followed from before their first event on.
    `in_doubt` are events whose producers heard neither yes nor no. Where gaps are allowed, a topic
    with one may lack events.
    """
    streams = streams_of(frames)
    for topic, followed in streams.items():
        received, wanted = set(followed.events), confirmed.get(topic, frozenset())
        assert received - wanted - in_doubt == set(), f"not meant for {topic}"
        assert gaps_allowed or not followed.gaps, f"{topic}: {followed.gaps} gaps"
        if not followed.gaps:
            assert wanted - received == set(), f"lost in {topic}"
    assert set(confirmed) - set(streams) == set(), "topics that were never followed"


def assert_in_order(received: Iterable[str], places: Mapping[str, tuple[Hashable, int]]) -> None:
    """Assert that events came in the order in which each lane's were posted.

    A lane is what one producer posts with one routing key; `places` has an event's lane and its
    number there.
    """
    latest: dict[Hashable, int] = {}
    for event in received:
        if event in places:
            lane, number = places[event]
            assert number > latest.get(lane, -1), f"{event} of {lane} came too late"
            latest[lane] = number
