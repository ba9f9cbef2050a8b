"""The invariants of every client, under any kills.

Every event of a topic comes once, its offset one more than that of the event before it; or the
client is told of a gap. Nothing else comes. A stream may go on under another epoch, as it does
when Redis was started anew: then the offset tells whether anything is missing.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "lost",
    "twice",
    "disordered",
    "marks wrong",
    "handed back wrongly",
    "reports missing",
    "reports wrong",
    "reports doubled",
    "presence wrong",
]


@dataclass(frozen=True)
class Complaint:
    """A promise that was broken, with what shows it."""

    kind: Kind
    evidence: str


@dataclass
class Followed:
    """The events of one topic that a client has been sent over all its stays, and their faults."""

    position: str
    events: list[str] = field(default_factory=list)
    gaps: int = 0
    gap_due: bool = False
    expired: int = 0  # so many may be left out without a gap: their time was over
    repeats: int = 0  # came again after a gap: Redis without history may have forgotten ids too
    complaints: list[Complaint] = field(default_factory=list)
    _gaps_before: dict[str, int] = field(default_factory=dict)

    def goes_on_at(self, start: Mapping[str, Any]) -> None:
        """Take where the server says that the client, who has come back, goes on."""
        if start.get("resumed"):
            if not self._moves(start["position"], 0):
                self._complain("disordered", f"resumed at {start}, was {self.position}")
        else:
            # Without `resumed` the client gave no position: it chose to miss the events before.
            self.gap_due = "resumed" in start
            self.position = self.position if self.gap_due else start["position"]

    def is_at(self, position: str) -> None:
        """Take where the server's own cursor says that the client is."""
        if not self._moves(position, 0):
            self._complain("disordered", f"a cursor with {position} at {self.position}")
        self.position = position

    def take(self, frame: Mapping[str, Any]) -> None:
        """Take an `event` frame."""
        name = frame["event"]["id"]
        if self.gap_due:
            self._complain("lost", f"an event where a gap was announced: {frame}")
        if not self._moves(frame["position"], 1):
            self._complain("disordered", f"{frame} after {self.position}")
        if self._gaps_before.get(name) == self.gaps:
            self._complain("twice", f"a second time: {frame}")
        self.repeats += self._gaps_before.get(name, self.gaps) != self.gaps
        self._gaps_before[name] = self.gaps
        self.position = frame["position"]
        self.events.append(name)

    def take_gap(self, frame: Mapping[str, Any]) -> None:
        """Take a `gap` frame."""
        self.position, self.gap_due = frame["position"], False
        self.gaps += 1

    def has(self, name: str) -> bool:
        """Whether an event has come."""
        return name in self._gaps_before

    def _moves(self, position: str, by: int) -> bool:
        """Whether a stream goes on so far, past what has expired; which is used up by that."""
        left_out = offset_of(position) - offset_of(self.position) - by
        is_right = 0 <= left_out <= self.expired
        self.expired -= left_out if is_right else 0
        return is_right

    def _complain(self, kind: Kind, evidence: str) -> None:
        self.complaints.append(Complaint(kind, evidence))


def offset_of(position: str) -> int:
    """The number of a position in its topic."""
    return int(position.split(".")[1])


class Streams(dict[str, Followed]):
    """A client's topics, fed with the frames of all its stays."""

    def take(self, frame: Mapping[str, Any]) -> None:
        """Take any frame."""
        match frame["type"]:
            case "hello":
                for topic, start in frame["topics"].items():
                    self.setdefault(topic, Followed(start["position"])).goes_on_at(start)
            case "subscribed":
                start = self.setdefault(frame["topic"], Followed(frame["position"]))
                start.goes_on_at(frame)
            case "event":
                self[frame["topic"]].take(frame)
            case "gap":
                self[frame["topic"]].take_gap(frame)
            case "cursor":  # no frame, but the word of SSE and long-poll beside theirs
                for topic, _, position in (c.partition("@") for c in frame["cursor"].split(",")):
                    self.setdefault(topic, Followed(position)).is_at(position)
            case _:  # the other frames say nothing of streams
                pass

    @property
    def cursor(self) -> str:
        """Up to where the client has read."""
        return ",".join(f"{topic}@{followed.position}" for topic, followed in self.items())


def streams_of(frames: Iterable[Mapping[str, Any]]) -> dict[str, Followed]:
    """Replay a client's frames of all its stays; AssertionError where they break the protocol."""
    streams = Streams()
    for frame in frames:
        assert frame["type"] != "event" or frame["topic"] in streams, f"is not followed: {frame}"
        streams.take(frame)
    for followed in streams.values():
        assert not followed.complaints, followed.complaints
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


# While events flow: the posted ones, and the view of each recipient.


@dataclass
class Lane:
    """The events of one producer to one topic, each posted once the one before was confirmed."""

    events: list[str] = field(default_factory=list)
    confirmed: int = 0


class Ledger:
    """The events posted to each topic, and how many of them are confirmed."""

    def __init__(self) -> None:
        self.lanes: dict[str, dict[Hashable, Lane]] = {}
        self.places: dict[tuple[str, str], tuple[Hashable, int]] = {}
        self.posted: dict[str, float] = {}

    def post(self, name: str, topics: Iterable[str], lane: Hashable, now: float) -> None:
        """Write down that an event is about to be posted."""
        self.posted[name] = now
        for topic in topics:
            found = self.lanes.setdefault(topic, {}).setdefault(lane, Lane())
            self.places[topic, name] = (lane, len(found.events))
            found.events.append(name)

    def confirm(self, topics: Iterable[str], lane: Hashable) -> None:
        """Write down that the last event of a lane was confirmed."""
        for topic in topics:
            found = self.lanes[topic][lane]
            found.confirmed = len(found.events)


class Recipient:
    """A client's frames, held against the ledger as they come in.

    An event that a lane has gone past, or that does not come in the end, is lost, unless the
    client was told of a gap after the event was posted.
    """

    def __init__(self, ledger: Ledger, topics: Iterable[str], clock: Callable[[], float]) -> None:
        self.streams = Streams()
        self.topics = tuple(topics)
        self.complaints: list[Complaint] = []
        self.received: dict[tuple[str, str], float] = {}  # when each topic's event came first
        self._ledger = ledger
        self._clock = clock
        self._reached: dict[tuple[str, Hashable], int] = {}
        self._gap_at: dict[str, float] = {}
        self._skipped: dict[tuple[str, str], None] = {}

    @property
    def gaps(self) -> int:
        """How many gaps this client was told of."""
        return sum(followed.gaps for followed in self.streams.values())

    @property
    def repeats(self) -> int:
        """How many events came again behind a gap."""
        return sum(followed.repeats for followed in self.streams.values())

    def take(self, frame: Mapping[str, Any]) -> None:
        """Take any frame."""
        self.streams.take(frame)
        if frame["type"] == "gap":
            self._gap_at[frame["topic"]] = self._clock()
        if frame["type"] == "event":
            self._place(frame["topic"], frame["event"]["id"])
        for followed in self.streams.values():
            self.complaints += followed.complaints
            followed.complaints.clear()

    def _place(self, topic: str, name: str) -> None:
        if (topic, name) not in self._ledger.places:
            self.complaints.append(Complaint("twice", f"{name} is not meant for {topic}"))
            return
        lane, number = self._ledger.places[topic, name]
        reached = self._reached.get((topic, lane), 0)
        is_first = (topic, name) not in self.received
        if number < reached and is_first:
            self._skipped.pop((topic, name), None)
            self.complaints.append(Complaint("disordered", f"{name} came late in {topic}"))
        for skipped in self._ledger.lanes[topic][lane].events[reached:number]:
            self._skip(topic, skipped)
        self._reached[topic, lane] = max(reached, number + 1)
        if is_first:
            self.received[topic, name] = self._clock()

    def _skip(self, topic: str, name: str) -> None:
        if not self._was_told(topic, name):
            self._skipped[topic, name] = None

    def _was_told(self, topic: str, name: str) -> bool:
        return self._gap_at.get(topic, 0.0) > self._ledger.posted[name]

    def missing(self) -> list[tuple[str, str]]:
        """The confirmed events that have not come, without a gap; by topic."""
        return [*self._skipped, *self._tails()]

    def _tails(self) -> Iterable[tuple[str, str]]:
        for topic in self.topics:
            for lane, found in self._ledger.lanes.get(topic, {}).items():
                reached = self._reached.get((topic, lane), 0)
                for name in found.events[reached : found.confirmed]:
                    if not self._was_told(topic, name):
                        yield topic, name

    def give_up(self) -> None:
        """Call what is missing lost, and wait for it no longer."""
        missing = self.missing()
        self.complaints += [Complaint("lost", f"{name} of {topic}") for topic, name in missing]
        for topic, name in missing:
            lane, number = self._ledger.places[topic, name]
            reached = self._reached.get((topic, lane), 0)
            self._reached[topic, lane] = max(reached, number + 1)
        self._skipped.clear()
