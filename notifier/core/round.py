"""A round of the hub: many topics are subscribed to, asked of history, and served, at once.

`Entered.ask` returns the only thing that can be served, and a feed takes what its last step
returned: no other order type-checks. Nothing waits in `serve`, so nothing comes in between.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from notifier.core.feed import Asked, Feed, Join
from notifier.core.frames import Start
from notifier.core.history import History
from notifier.core.ports import Broker, Connection
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

    def asks_for(self, topic: str) -> bool:
        """Whether a topic is among those asked for."""
        return not self.gone and any(join.topic == topic for join in self.joins)

    def starts(self) -> dict[str, Start]:
        """Return the start of each topic; complete before `answer` is called."""
        return {join.topic: join.start for join in self.joins if join.start is not None}


@dataclass(frozen=True, slots=True)
class Entered:
    """The joins of `arrivals` are in their feeds; `feeds` are all that have to ask history."""

    arrivals: Sequence[Arrival]
    feeds: Sequence[Feed]

    async def ask(self, broker: Broker) -> "Answered":
        """Subscribe to the topics that are not yet, then ask history; raises Unavailable."""
        new = [feed for feed in self.feeds if not feed.subscribed]
        if new:
            await broker.subscribe([feed.topic for feed in new])
        for feed in new:
            feed.subscribed = True
        questions = [feed.question() for feed in self.feeds]
        histories = await broker.read(questions) if questions else []
        return Answered(self.arrivals, self.feeds, questions, histories)


@dataclass(frozen=True, slots=True)
class Answered:
    """History has answered each feed's question."""

    arrivals: Sequence[Arrival]
    feeds: Sequence[Feed]
    questions: Sequence[Asked]
    histories: Sequence[History]

    def serve(self) -> None:
        """Bring followers up to date, answer the arrivals, and replay missed events."""
        answers = zip(self.feeds, self.questions, self.histories, strict=True)
        settled = [feed.settle(question, history) for feed, question, history in answers]
        for arrival in self.arrivals:
            if not arrival.gone:
                arrival.answer(arrival.starts())
        for feed, history in zip(self.feeds, settled, strict=True):
            feed.admit(history)
