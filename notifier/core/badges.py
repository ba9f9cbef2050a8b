"""Badges: each client that asks for it gets its user's marks, and how much is unread.

One worker moves marks and reads them, in rounds, as the hub does. It always tells the state that it
has just read, so the last frame that a client got is right, in any order of the moves on other
gateways. Only users with such a client stand here: nobody else costs anything.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Protocol

from msgspec import UNSET

from notifier.core import frames
from notifier.core.errors import Failed, NotifierError, Unavailable
from notifier.core.events import SILENT
from notifier.core.history import Before, History
from notifier.core.hub import Hub
from notifier.core.marks import ORDER, UNMARKED, Mark, Move
from notifier.core.names import is_personal, user_of
from notifier.core.ports import Broker, Marks
from notifier.core.positions import Position
from notifier.core.signals import Signal
from notifier.core.unread import Countable
from notifier.core.worker import Subscriber, Worker, answered

_MOVES = 250  # a round
_USERS = 64  # a round
_MOST_WAITING = 10_000  # moves
Outcome = Mark | NotifierError


class BadgesObserver(Protocol):
    """Counts the outcomes of marks."""

    def marked(self, outcome: str, moves: int) -> None:
        """So many moves ended as `moved`, `refused` or `unavailable`."""

    def recounted(self, users: int) -> None:
        """The unread events of so many users were counted anew."""


class _User:
    """One user's clients here. `sessions` says of each whether it has got nothing yet."""

    __slots__ = ("is_stale", "marks", "sessions", "told", "topics")

    def __init__(self) -> None:
        self.sessions: dict[Subscriber, bool] = {}
        self.topics: set[str] = set()
        self.marks: Mapping[str, Mark] = {}
        self.is_stale = True  # whether `marks` have to be read
        self.told: dict[str, frames.Marks] = {}


class Badges(Worker):
    """Tells clients of this process; `run` must be running, and `tick` be called each second.

    Fulfils `notifier.core.hub.Watcher`.
    """

    def __init__(self, hub: Hub, broker: Broker, marks: Marks, observer: BadgesObserver) -> None:
        super().__init__()
        self._hub = hub
        self._broker = broker
        self._marks = marks
        self._observer = observer
        self._users: dict[str, _User] = {}
        self._users_of: dict[str, set[str]] = {}  # by the topics that their sessions follow
        self._due: dict[str, None] = {}  # users whose clients get frames next
        self._moved_topics: set[str] = set()  # those of many users, due with the next tick
        self._waiting: deque[tuple[Move, Callable[[Outcome], None]]] = deque()
        hub.on_order(ORDER, self._on_order)

    # Called by sessions.

    def tell(self, session: Subscriber) -> None:
        """Tell a session its user's marks in its topics, now and whenever they change."""
        name = session.identity.user
        user = self._users.setdefault(name, _User())
        user.sessions[session] = True
        user.topics.update(session.topics)
        for topic in session.topics:
            self._users_of.setdefault(topic, set()).add(name)
            self._hub.watch(topic, self)
        self._set_due(name)

    def tell_more(self, session: Subscriber) -> None:
        """Tell a session the marks of a topic that it now follows, if it gets marks at all."""
        user = self._users.get(session.identity.user)
        if user is not None and session in user.sessions:
            self.tell(session)

    def leave(self, session: Subscriber) -> None:
        """Tell a session nothing any more."""
        name = session.identity.user
        user = self._users.get(name)
        if user is None or user.sessions.pop(session, None) is None or user.sessions:
            return
        del self._users[name]
        for topic in user.topics:
            self._users_of[topic].discard(name)
            if not self._users_of[topic]:
                del self._users_of[topic]
                self._hub.unwatch(topic)

    def move(self, move: Move, answer: Callable[[Outcome], None]) -> None:
        """Have a move made, then call `answer`; raises Unavailable when too many wait."""
        if len(self._waiting) >= _MOST_WAITING:
            raise Unavailable("gateway", "too many marks wait")
        self._waiting.append((move, answer))
        self._work.set()

    async def moved(self, move: Move) -> frames.Marks:
        """Make a move, and return the topic's marks behind it; raises the error that refused it."""
        mark = await answered(partial(self.move, move))
        question = Before(move.topic, behind=mark.read, beginning=len(SILENT))
        [history] = await self._broker.read([question])
        return _frame(move.topic, mark, history, Countable(history.known(), self._now()))

    # Called by the hub, and by the clock.

    def _on_order(self, signal: Signal) -> None:
        self._set_stale(user_of(signal.topic))

    def on_event(self, topic: str) -> None:
        """See Watcher."""
        if is_personal(topic):
            for name in self._users_of.get(topic, ()):
                self._set_due(name)
        else:
            self._moved_topics.add(topic)

    def on_comparison(self, topic: str) -> None:
        """See Watcher: events may have been missed, and so may orders."""
        self.on_event(topic)
        if is_personal(topic):
            self._set_stale(user_of(topic))

    def _set_stale(self, name: str) -> None:
        if user := self._users.get(name):
            user.is_stale = True
            self._set_due(name)

    def _set_due(self, name: str) -> None:
        self._due[name] = None
        self._work.set()

    def tick(self) -> None:
        """Have those told whose badge an event for many has changed: once a second at most."""
        for topic in self._moved_topics:
            self._due.update(dict.fromkeys(self._users_of.get(topic, ())))
        self._moved_topics.clear()
        if self._due:
            self._work.set()

    # The worker.

    async def _run_round(self) -> None:
        await self._move_some()
        await self._tell_some()
        if self._waiting or self._due:
            self._work.set()

    async def _move_some(self) -> None:
        some = list(islice(self._waiting, _MOVES))
        if not some:
            return
        outcomes: Iterable[Outcome]
        try:
            outcomes = await self._marks.move([move for move, _ in some])
        except Unavailable as error:  # the client knows best whether to repeat it
            outcomes = [error] * len(some)
        for (_, answer), outcome in zip(some, outcomes, strict=True):
            self._waiting.popleft()
            self._observer.marked(_kind_of(outcome), 1)
            answer(outcome)

    async def _tell_some(self) -> None:
        names = list(islice(self._due, _USERS))
        for name in names:
            del self._due[name]  # before anything is asked: later changes are asked again
        users = {name: self._users[name] for name in names if name in self._users}
        try:
            await self._read_marks(users)
            histories = await self._read_histories(users.values())
        except Unavailable:
            self._due.update(dict.fromkeys(users))
            raise
        for user in users.values():
            self._tell_user(user, histories)
        self._observer.recounted(len(users))

    async def _read_marks(self, users: dict[str, _User]) -> None:
        """Read the marks that are stale; take users out of `users` whose marks cannot be read."""
        stale = {name: user for name, user in users.items() if user.is_stale}
        for user in stale.values():
            user.is_stale = False
        try:
            answers = await self._marks.of(list(stale)) if stale else []
        except Unavailable:
            for user in stale.values():
                user.is_stale = True
            raise
        for (name, user), marks in zip(stale.items(), answers, strict=True):
            if isinstance(marks, Failed):  # told with the next sign of a change
                user.is_stale = True
                del users[name]
            else:
                user.marks = marks

    async def _read_histories(self, users: Iterable[_User]) -> dict[str, tuple[History, Countable]]:
        """Read the events that count in each topic, once for all users, behind the lowest mark."""
        lowest: dict[str, int] = {}
        for user in users:
            for topic in user.topics:
                read = user.marks.get(topic, UNMARKED).read
                lowest[topic] = min(read, lowest.get(topic, read))
        histories = await self._ask(lowest)
        # The offsets of a stream that is gone say nothing of the present one.
        gone = {
            topic: 0
            for user in users
            for topic in user.topics & histories.keys()
            if (mark := user.marks.get(topic)) and histories[topic].last_of(mark.epoch) is None
        }
        histories |= await self._ask(gone)
        now = self._now()
        return {topic: (each, Countable(each, now)) for topic, each in histories.items()}

    async def _ask(self, behind: Mapping[str, int]) -> dict[str, History]:
        questions = [
            Before(topic, behind=offset, beginning=len(SILENT)) for topic, offset in behind.items()
        ]
        answers = await self._broker.read(questions) if questions else []
        # A topic that failed is told with its next event, and keeps no other waiting.
        return {t: each for t, each in zip(behind, answers, strict=True) if not each.failure}

    def _now(self) -> int:
        return int(self._broker.now() * 1000)

    def _tell_user(self, user: _User, histories: Mapping[str, tuple[History, Countable]]) -> None:
        for topic in user.topics & histories.keys():
            mark = user.marks.get(topic, UNMARKED)
            frame = _frame(topic, mark, *histories[topic])
            is_news = user.told.get(topic) != frame
            user.told[topic] = frame
            for session, is_new in user.sessions.items():
                if (is_news or is_new) and topic in session.topics:
                    session.connection.send(frame)
        user.sessions.update(dict.fromkeys(user.sessions, False))


def _frame(topic: str, mark: Mark, history: History, countable: Countable) -> frames.Marks:
    unread, more = countable.unread(mark)
    mark = mark.carried(history)
    read = str(Position(mark.epoch, mark.read)) if mark.read else UNSET
    singles = [str(Position(mark.epoch, offset)) for offset in mark.singles]
    return frames.Marks(topic, unread, read, singles or UNSET, more=more or UNSET)


def _kind_of(outcome: Outcome) -> str:
    if isinstance(outcome, Unavailable):
        return "unavailable"
    return "refused" if isinstance(outcome, NotifierError) else "moved"
