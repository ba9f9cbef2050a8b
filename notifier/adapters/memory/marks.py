"""Marks in memory: for `notifier dev`, and for tests."""

from collections.abc import Sequence

from notifier.core.errors import Failed, NotifierError, TooMany
from notifier.core.history import Before
from notifier.core.marks import MOST_TOPICS, ORDER, TOO_MANY_TOPICS, UNMARKED, Mark, Move
from notifier.core.names import personal_topic
from notifier.core.ports import Broker
from notifier.core.signals import Kind, Signal

_Kept = dict[str, dict[str, Mark]]


class MemoryMarks:
    """Fulfils `notifier.core.ports.Marks` beside a broker. Several share what is `kept`."""

    def __init__(self, broker: Broker, kept: _Kept | None = None) -> None:
        self._broker = broker
        self._kept: _Kept = {} if kept is None else kept

    async def move(self, moves: Sequence[Move]) -> list[Mark | NotifierError]:
        """See Marks."""
        return [await self._move(move) for move in moves]

    async def _move(self, move: Move) -> Mark | NotifierError:
        [history] = await self._broker.read([Before(move.topic, most=1)])
        marks = self._kept.get(move.user, {})
        old = marks.get(move.topic, UNMARKED)
        if move.topic not in marks and len(marks) >= MOST_TOPICS:
            return TooMany(TOO_MANY_TOPICS)
        try:
            new = old.moved(move, history)
        except NotifierError as error:
            return error
        self._kept[move.user] = {**marks, move.topic: new}
        if new._replace(received=0) != old.carried(history)._replace(received=0):
            topic = personal_topic(move.user)
            await self._broker.signal([Signal(topic, Kind.ORDER, ORDER, move.topic.encode())])
        return new

    async def of(self, users: Sequence[str]) -> list[dict[str, Mark] | Failed]:
        """See Marks."""
        return [self._kept.get(user, {}) for user in users]
