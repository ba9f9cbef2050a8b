"""A round of the hub: many topics are subscribed to, asked of history, and served, at once.

Each step returns the next one, and has the only method that goes on from it. So nothing is asked
before it is certain that live publications come in, and no client gets one before its answer.
Between `ask` and the last step nothing waits, so no other round and no publication comes between.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from notifier.core.feed import Asked, Feed, Join, Settled
from notifier.core.frames import Start
from notifier.core.ports import Broker, Connection, History
from notifier.core.positions import Position


class Arrival:
    """Topics that one connection asked for at once, to be answered by one frame.

    `answer` is called with where each topic starts, or with None when the broker stayed away too
    long.
    """

    __slots__ = ("answer", "asked_at", "connection", "gone", "joins")

    def __init__(
        self,
        connection: Connection,
        topics: Mapping[str, Position | None],
        answer: Callable[[dict[str, Start] | None], None],
        asked_at: float,
    ) -> None:
        self.connection = connection
        self.joins = [Join(connection, topic, since) for topic, since in topics.items()]
        self.answer = answer
        self.asked_at = asked_at
        self.gone = False

    def withdraw(self, topic: str) -> None:
        """Ask for one topic no longer; `Hub.unsubscribe` leaves its feed."""
        self.joins = [join for join in self.joins if join.topic != topic]

    def starts(self) -> dict[str, Start]:
        """Return the start of each topic; complete before `answer` is called."""
        return {join.topic: join.start for join in self.joins if join.start is not None}


@dataclass(frozen=True, slots=True)
class Entered:
    """The joins of `arrivals` are in their feeds; `feeds` are all that have to ask history."""

    arrivals: Sequence[Arrival]
    feeds: Sequence[Feed]

    async def subscribe(self, broker: Broker) -> "Subscribed":
        """Subscribe to the topics that are not yet; raises Unavailable."""
        new = [feed for feed in self.feeds if not feed.subscribed]
        if new:
            await broker.subscribe([feed.topic for feed in new])
        for feed in new:
            feed.subscribed = True
        return Subscribed(self.arrivals, self.feeds)


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Live publications of all topics come in from now on."""

    arrivals: Sequence[Arrival]
    feeds: Sequence[Feed]

    async def ask(self, broker: Broker) -> "Answered":
        """Ask history for all topics in one read; raises Unavailable."""
        questions = [feed.question() for feed in self.feeds]
        histories = await broker.read(questions) if questions else []
        return Answered(self.arrivals, self.feeds, questions, histories)


@dataclass(frozen=True, slots=True)
class Answered:
    """History has answered."""

    arrivals: Sequence[Arrival]
    feeds: Sequence[Feed]
    questions: Sequence[Asked]
    histories: Sequence[History]

    def settle(self) -> "Current":
        """Bring the followers up to date, and find the start of each join."""
        answers = zip(self.feeds, self.questions, self.histories, strict=True)
        return Current(self.arrivals, self.feeds, [feed.settle(q, h) for feed, q, h in answers])


@dataclass(frozen=True, slots=True)
class Current:
    """Followers are up to date, and the start of each join is known."""

    arrivals: Sequence[Arrival]
    feeds: Sequence[Feed]
    settled: Sequence[Settled]

    def answer(self) -> "Welcomed":
        """Answer the arrivals whose client is still there."""
        for arrival in self.arrivals:
            if not arrival.gone:
                arrival.answer(arrival.starts())
        return Welcomed(self.feeds, self.settled)


@dataclass(frozen=True, slots=True)
class Welcomed:
    """Each arrival has its answer."""

    feeds: Sequence[Feed]
    settled: Sequence[Settled]

    def admit(self) -> None:
        """Replay what the joins missed, and let them follow."""
        for feed, settled in zip(self.feeds, self.settled, strict=True):
            feed.admit(settled)
