"""The hub: the feeds of this process, and the one worker that asks the broker on their behalf.

Live publications go through `on_publication` and never wait. One worker does everything that has
to wait (the first follower of a topic, a client that reconnects, a hole, a check), in rounds: one
SUBSCRIBE and one pipelined history read for hundreds at a time. A round changes feeds only
between its last `await` and its end, so no lock is needed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol

from notifier.core.errors import Unavailable
from notifier.core.feed import Feed
from notifier.core.frames import Relayed, Start
from notifier.core.ports import Broker, Connection, Observer
from notifier.core.positions import Position
from notifier.core.publications import Publication
from notifier.core.round import Arrival, Entered
from notifier.core.signals import Kind, Signal
from notifier.core.worker import Worker

_ROUND = 256
_REST_TURNS = 4  # of the event loop, in which more clients come in while many do
_LONGEST_REST = 0.005
_LONGEST_TURN = 0.01  # in which a round passes answers on, and the event loop serves nobody else
_LINGER_TICKS = 5
_CHECK_TICKS = 37
_LONGEST_WAIT = 10.0


class Watcher(Protocol):
    """Hears that something happened in a topic. Its methods return at once and never raise."""

    def on_event(self, topic: str) -> None:
        """Hear that a live publication came in."""

    def on_comparison(self, topic: str) -> None:
        """Hear that the topic was compared with history, after a loss or without one."""


class Hub(Worker):
    """The feeds of this process. Fulfils BrokerListener; `run` must be running."""

    def __init__(self, broker: Broker, observer: Observer) -> None:
        super().__init__()
        self._broker = broker
        self._observer = observer
        self._now = broker.now  # once, or each feed would keep a method of its own
        self._feeds: dict[str, Feed] = {}
        self._arrivals: deque[Arrival] = deque()
        self._unsettled: dict[str, Feed] = {}
        self._idle: dict[str, int] = {}
        self._leaving: list[str] = []
        self._checks: deque[str] = deque()
        self._ticks = 0
        self._size = _ROUND
        self._orders: dict[str, Callable[[Signal], None]] = {}
        self._watchers: dict[str, Watcher] = {}
        broker.listen(self)

    def on_order(self, order: str, handler: Callable[[Signal], None]) -> None:
        """Call `handler` with each order of that name for a topic that is followed here.

        It returns at once and never raises.
        """
        self._orders[order] = handler

    def watch(self, topic: str, watcher: Watcher) -> None:
        """Call a watcher for each event in a topic that somebody follows here."""
        self._watchers[topic] = watcher

    def unwatch(self, topic: str) -> None:
        """Tell it no more."""
        self._watchers.pop(topic, None)

    # Called by sessions.

    @property
    def trouble(self) -> str | None:
        """Why no topic can be followed anew at present; None when it can."""
        return self._broker.trouble

    def subscribe(
        self,
        connection: Connection,
        topics: Mapping[str, Position | None],
        answer: Callable[[dict[str, Start] | None], None],
    ) -> Arrival:
        """Let a connection follow topics, each from a position on, or from now on.

        `answer` comes first, then the missed publications, then the live ones. Nothing comes if
        the connection leaves before (`unsubscribe`).
        """
        arrival = Arrival(connection, topics, answer, asyncio.get_running_loop().time())
        self._arrivals.append(arrival)
        self._work.set()
        return arrival

    def unsubscribe(self, connection: Connection, topics: Iterable[str]) -> None:
        """Let a connection follow topics no longer."""
        for topic in topics:
            if feed := self._feeds.get(topic):
                feed.drop(connection)
                if feed.empty:
                    self._idle[topic] = self._ticks + _LINGER_TICKS

    def resume_replays(self, connection: Connection, topics: Iterable[str]) -> None:
        """Go on with the replays that stopped because the connection had no room."""
        for topic in topics:
            feed = self._feeds.get(topic)
            if feed and any(join.connection is connection for join in feed.joins):
                self._unsettle(feed)

    def connections(self, topic: str) -> set[Connection]:
        """Return the connections that follow a topic, or have asked to."""
        found = {each.connection for each in self._arrivals if each.asks_for(topic)}
        found.update(self.followers(topic))
        return found

    def followers(self, topic: str) -> Iterable[Connection]:
        """Return the connections that follow a topic by now."""
        feed = self._feeds.get(topic)
        return feed.connections() if feed else ()

    def position(self, topic: str) -> Position | None:
        """Return the position up to which the followers of a topic are served, or about to be."""
        feed = self._feeds.get(topic)
        return feed.position if feed else None

    def is_followed(self, topic: str) -> bool:
        """Whether a connection of this process follows the topic, or is about to."""
        feed = self._feeds.get(topic)
        return feed is not None and not feed.empty

    # Called by the broker.

    def on_publication(self, publication: Publication) -> None:
        """See BrokerListener."""
        if self._watchers and (watcher := self._watchers.get(publication.topic)):
            watcher.on_event(publication.topic)
        feed = self._feeds.get(publication.topic)
        if feed is None or feed.accept_publication(publication) or feed.position is None:
            return
        if not feed.unsettled and feed.topic not in self._unsettled:
            self._observer.hole()
            self._unsettle(feed)

    def on_signal(self, signal: Signal) -> None:
        """See BrokerListener."""
        if signal.kind is Kind.ORDER:
            if handler := self._orders.get(signal.name):  # else one of a newer version
                handler(signal)
        elif feed := self._feeds.get(signal.topic):
            feed.relay(Relayed(signal.name, signal.body))

    def on_interruption(self, topics: Iterable[str]) -> None:
        """See BrokerListener."""
        for topic in topics:
            if feed := self._feeds.get(topic):
                self._unsettle(feed)

    def _unsettle(self, feed: Feed) -> None:
        self._unsettled[feed.topic] = feed
        self._work.set()

    # Called by the clock.

    def tick(self) -> None:
        """Unsubscribe from idle feeds, and check each feed in its turn; to be called once a second.

        A check finds publications that were lost between broker and gateway although no connection
        was cut. Each feed has a turn every 37 s; with fewer than 37 feeds, one has it each second.
        """
        self._ticks += 1
        for topic in [topic for topic, due in self._idle.items() if due <= self._ticks]:
            del self._idle[topic]
            if self._feeds[topic].empty:
                self._forget(topic)
        for _ in range(-(-len(self._feeds) // _CHECK_TICKS)):
            self._check_next()

    def _forget(self, topic: str) -> None:
        del self._feeds[topic]
        self._unsettled.pop(topic, None)
        self._leaving.append(topic)
        self._work.set()

    def _check_next(self) -> None:
        if not self._checks:
            self._checks.extend(self._feeds)
        if (feed := self._feeds.get(self._checks.popleft())) and feed.position is not None:
            self._unsettle(feed)

    # The worker.

    async def _run_round(self) -> None:
        await self._unsubscribe_idle()
        entered = self._enter(list(islice(self._arrivals, self._size)))
        compared = self._watched_among(entered.feeds)
        # If the round fails, the next ones ask all of them again, with the arrivals or without.
        self._unsettled.update({feed.topic: feed for feed in entered.feeds})
        try:
            answered = await entered.ask(self._broker)
        except Unavailable:
            # The next round may be smaller, and no connection gets anything before its answer.
            self._take_out(entered.arrivals)
            raise
        began = asyncio.get_running_loop().time()
        for _ in entered.arrivals:
            self._arrivals.popleft()
        answered.serve()
        self._finish(entered.feeds, compared)
        took = asyncio.get_running_loop().time() - began
        # As many feeds as fit into a turn: large histories take long.
        fitting = (
            int(len(entered.feeds) * _LONGEST_TURN / took) if took and entered.feeds else _ROUND
        )
        self._size = max(1, min(self._size * 2, fitting, _ROUND))

    def _on_unavailable(self) -> None:
        # It may have been too much at once: large histories of hundreds of clients.
        self._size = max(self._size // 2, 1)
        self._refuse_overdue()

    async def _rest(self) -> None:
        # A round costs much more than one more arrival in it: while many come, let some gather.
        loop = asyncio.get_running_loop()
        until = loop.time() + _LONGEST_REST
        known, turns = -1, 0
        while loop.time() < until:
            if turns % _REST_TURNS == 0:
                if len(self._arrivals) == known:
                    break
                known = len(self._arrivals)
            turns += 1
            await asyncio.sleep(0)

    def _watched_among(self, feeds: Sequence[Feed]) -> list[str]:
        """Return the watched topics that are compared by themselves, not for an arrival."""
        if not self._watchers:
            return []
        topics = (feed.topic for feed in feeds if feed.topic in self._unsettled)
        return [topic for topic in topics if topic in self._watchers]

    def _enter(self, arrivals: list[Arrival]) -> Entered:
        """Put each join into its feed, and find the feeds of this round."""
        feeds: dict[str, Feed] = {}
        for arrival in arrivals:
            for join in () if arrival.gone else arrival.joins:
                feed = self._feeds.get(join.topic) or Feed(join.topic, self._observer, self._now)
                feeds[join.topic] = self._feeds[join.topic] = feed
                feed.join(join)
        feeds.update(islice(self._unsettled.items(), self._size))
        return Entered(arrivals, list(feeds.values()))

    def _take_out(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            for join in arrival.joins:
                if feed := self._feeds.get(join.topic):
                    feed.withdraw(join)

    def _finish(self, feeds: Iterable[Feed], compared: Iterable[str]) -> None:
        for feed in feeds:
            if not feed.unsettled:
                self._unsettled.pop(feed.topic, None)
        for topic in compared:
            if watcher := self._watchers.get(topic):
                watcher.on_comparison(topic)
        if self._arrivals or self._unsettled:
            self._work.set()

    async def _unsubscribe_idle(self) -> None:
        # A topic may have been followed anew since it was forgotten.
        topics = [topic for topic in self._leaving if topic not in self._feeds]
        self._leaving.clear()
        if topics:
            await self._broker.unsubscribe(topics)

    def _refuse_overdue(self) -> None:
        overdue = asyncio.get_running_loop().time() - _LONGEST_WAIT
        while self._arrivals and self._arrivals[0].asked_at < overdue:
            arrival = self._arrivals.popleft()
            self.unsubscribe(arrival.connection, [join.topic for join in arrival.joins])
            if not arrival.gone:
                arrival.answer(None)
