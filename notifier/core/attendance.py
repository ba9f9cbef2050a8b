"""Attendance: each client that asks for it is a member of its topics, and sees the others.

Each gateway tells the others its own members of a topic as a whole, and reads those of all. So
nothing is counted, and a message that is lost is made good by the next one. Only topics with such
a client stand here: nobody else costs anything.
"""

import asyncio
from collections import Counter, deque
from functools import cached_property
from typing import NamedTuple, Protocol

from msgspec import UNSET

from notifier.core import frames
from notifier.core.frames import Presence
from notifier.core.hub import Hub
from notifier.core.ports import Members
from notifier.core.signals import Signal
from notifier.core.worker import Subscriber, Worker

ORDER = "members"
"""The order (`notifier.core.signals`) to read the members of a topic anew."""
MOST_LISTED = 1_000  # members; where there are more, clients get the number alone
LAPSE = 5.0  # seconds after which a gateway that was not heard of has no members any more
LINGER = 5  # ticks for which a member stays whose connection is gone: it may reconnect
_RENEWAL = 30  # ticks in which each topic is exchanged once, even without a sign of a change
_LARGE_TICKS = 10  # between two readings of a topic whose members are only counted
_CAUTION = 3.0  # seconds in which gateways are heard again that could not be for a while
_ROUND = 64  # topics


class AttendanceObserver(Protocol):
    """Counts the work of presence in topics."""

    def exchanged(self, outcome: str) -> None:
        """One exchange with the other gateways ended as `done` or `unavailable`."""

    def presence_told(self, clients: int) -> None:
        """So many clients got frames about members."""


class _Topic:
    """One topic's members. `told` says of each attendant here whether it has the newest list."""

    __slots__ = ("members", "own", "told")

    def __init__(self) -> None:
        self.own = Counter[str]()  # the connections of each user here
        self.told: dict[Subscriber, bool] = {}
        self.members: frozenset[str] = frozenset()


class _News:
    """The frames about one change of a topic's members, each encoded once, if it is needed."""

    def __init__(self, topic: str, before: frozenset[str], now: frozenset[str]) -> None:
        self._topic = topic
        self._before = before
        self._now = now
        self.is_change = before != now
        self.is_small_again = len(now) <= MOST_LISTED < len(before)

    @cached_property
    def whole(self) -> frames.Relayed:
        members = sorted(self._now) if len(self._now) <= MOST_LISTED else UNSET
        return frames.relayed(Presence(self._topic, len(self._now), members))

    @cached_property
    def change(self) -> frames.Relayed:
        if len(self._now) > MOST_LISTED:
            return self.whole
        joined, left = sorted(self._now - self._before), sorted(self._before - self._now)
        return frames.relayed(Presence(self._topic, len(self._now), UNSET, joined, left))


class _Leaving(NamedTuple):
    """A member whose connection is gone, and stays until a tick."""

    tick: int
    topic: str
    user: str


class Attendance(Worker):
    """Tells clients of this process; `run` must be running, and `tick` be called each second."""

    def __init__(self, hub: Hub, members: Members, observer: AttendanceObserver) -> None:
        super().__init__()
        self._members = members
        self._observer = observer
        self._topics: dict[str, _Topic] = {}
        self._topics_of: dict[Subscriber, frozenset[str]] = {}
        self._leaving: deque[_Leaving] = deque()
        self._changed: set[str] = set()  # topics that are due with the next tick
        self._due: dict[str, None] = {}
        self._renewals: deque[str] = deque()
        self._ticks = 0
        self._gateways: frozenset[str] = frozenset()
        self._backend = ""  # its life that was heard of last
        self._heard_at: float | None = None  # by the event loop's clock
        self._careful_until = 0.0
        hub.on_order(ORDER, self._on_order)

    # Called by sessions.

    def attend(self, session: Subscriber) -> None:
        """Make a session a member of the topics that its token allows, and tell it the members.

        To be repeated (`refresh`) when its topics or its token have changed.
        """
        before = self._topics_of.get(session, frozenset())
        now = frozenset(filter(session.identity.may_attend, session.topics))
        self._topics_of[session] = now
        for topic in before - now:
            self._topics[topic].told.pop(session, None)
            self._withdraw(topic, session.identity.user)
        for topic in now - before:
            self._enter(topic, session)

    def refresh(self, session: Subscriber) -> None:
        """See `attend`; nothing for a session that has not asked for it."""
        if session in self._topics_of:
            self.attend(session)

    def leave(self, session: Subscriber) -> None:
        """Tell a session nothing any more; its user stays a member for a while."""
        for topic in self._topics_of.pop(session, ()):
            self._topics[topic].told.pop(session, None)
            self._leaving.append(_Leaving(self._ticks + LINGER, topic, session.identity.user))

    def _enter(self, name: str, session: Subscriber) -> None:
        topic = self._topics.get(name)
        if topic is None:  # nothing is known of it yet: it does not wait for the tick
            topic = self._topics[name] = _Topic()
            self._due[name] = None
            self._work.set()
        topic.own[session.identity.user] += 1
        topic.told[session] = False
        self._changed.add(name)

    def _withdraw(self, name: str, user: str) -> None:
        own = self._topics[name].own
        own[user] -= 1
        if not own[user]:
            del own[user]
        self._changed.add(name)

    # Called by the hub, and by the clock.

    def _on_order(self, signal: Signal) -> None:
        if signal.topic in self._topics:
            self._changed.add(signal.topic)

    def tick(self) -> None:
        """Have members told of all that has changed within the last second."""
        if not self._topics:
            self._heard_at = None  # nobody expects to hear of this gateway
            return
        self._ticks += 1
        while self._leaving and self._leaving[0].tick <= self._ticks:
            _, topic, user = self._leaving.popleft()
            self._withdraw(topic, user)
        for _ in range(-(-len(self._topics) // _RENEWAL)):
            self._renew_next()
        changed, self._changed = self._changed, set()
        for name in changed & self._topics.keys():
            self._set_due(name, self._topics[name])
        self._work.set()  # also without any of them: the others hear that this gateway is there

    def _renew_next(self) -> None:
        if not self._renewals:
            self._renewals.extend(self._topics)
        self._changed.add(self._renewals.popleft())

    def _set_due(self, name: str, topic: _Topic) -> None:
        if len(topic.members) > MOST_LISTED and self._ticks % _LARGE_TICKS:
            self._changed.add(name)
            self._tell(name, topic, _News(name, topic.members, topic.members))
        else:
            self._due[name] = None

    # The worker.

    async def _run_round(self) -> None:
        await self._exchange_some()
        if self._due:
            self._work.set()

    def _on_unavailable(self) -> None:
        self._observer.exchanged("unavailable")

    async def _exchange_some(self) -> None:
        some = list(self._due)[:_ROUND]
        own = {name: list(self._topics[name].own) for name in some if name in self._topics}
        exchanged = await self._members.exchange(own)
        self._observer.exchanged("done")
        for name in some:
            del self._due[name]
        if not self._is_to_be_believed(exchanged.backend):
            self._changed.update(own)
            return
        if exchanged.gateways != self._gateways:  # with or without members, in any topic
            self._gateways = exchanged.gateways
            self._changed.update(self._topics)
        for name, members in exchanged.members.items():
            self._settle(name, members, is_told=bool(own[name]))

    def _is_to_be_believed(self, backend: str) -> bool:
        """Whether gateways that are missing are gone, rather than yet to be heard again.

        They are where the backend was away, as nobody could say anything, and where it has
        forgotten everything.
        """
        now = asyncio.get_running_loop().time()
        was_away = self._heard_at is not None and now - self._heard_at > LAPSE - 1
        if was_away or self._backend not in ("", backend):
            self._careful_until = now + _CAUTION
            self._changed.update(self._topics)
        self._heard_at, self._backend = now, backend
        return now >= self._careful_until

    def _settle(self, name: str, members: frozenset[str], *, is_told: bool) -> None:
        topic = self._topics[name]
        news = _News(name, topic.members, members)
        topic.members = members
        self._tell(name, topic, news)
        if not (topic.own or topic.told or is_told):  # else the others have yet to hear of it
            del self._topics[name]

    def _tell(self, name: str, topic: _Topic, news: _News) -> None:
        clients = 0
        for session, is_told in topic.told.items():
            if is_told and not news.is_change:
                continue
            has_room = topic.told[session] = session.connection.has_room
            if has_room:
                is_current = is_told and not news.is_small_again
                session.connection.send(news.change if is_current else news.whole)
                clients += 1
            else:  # it gets the whole list once it has
                self._changed.add(name)
        self._observer.presence_told(clients)
