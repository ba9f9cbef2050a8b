"""A feed: one followed topic in this process, its position, and its followers.

The rule of delivery is here and nowhere else. Offset = position + 1: fan out. Offset <= position:
drop the duplicate. Anything else: the hub asks history, and the feed fans out its publications or
tells a gap. Plain state and plain functions: nothing here waits, so nothing can come in between.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import NewType

from notifier.core.crowd import Crowd
from notifier.core.frames import Gap, Relayed, Start
from notifier.core.history import History, Since
from notifier.core.ports import Connection, Observer
from notifier.core.positions import START, Position
from notifier.core.publications import Publication
from notifier.core.recovery import missed, newest_of, recoverable

# A feed keeps so many while history is read, which takes a round trip. Past it, it asks again.
_MOST_RECENT = 10_000
_BUNDLE = 16 * 1024  # bytes of events; the connection is asked for room between two bundles

Asked = NewType("Asked", Since)
"""The question that a feed has asked last."""

Settled = NewType("Settled", History)
"""An answer that has brought a feed's followers up to date, and has given each join its start."""


class Join:
    """A connection on its way into a feed, from the position `since` if it has one."""

    __slots__ = ("asked", "connection", "gap", "served", "since", "start", "topic")

    def __init__(self, connection: Connection, topic: str, since: Position | None) -> None:
        self.connection = connection
        self.topic = topic
        self.since = since
        self.served: Position | None = since
        self.start: Start | None = None
        self.gap: str | None = None
        self.asked = False


class _Bundle:
    """Missed publications that a connection gets together: a system call for each costs as much."""

    def __init__(self, connection: Connection) -> None:
        self.count = 0  # of all that were added
        self._connection = connection
        self._publications: list[Publication] = []
        self._size = 0

    @property
    def has_room(self) -> bool:
        """Whether the connection takes more."""
        return bool(self._publications) or self._connection.has_room

    def add(self, publication: Publication) -> None:
        self._publications.append(publication)
        self._size += len(publication.event)
        self.count += 1
        if self._size >= _BUNDLE:
            self.send()

    def send(self) -> None:
        if self._publications:
            self._connection.write_all(self._publications)
            self._publications, self._size = [], 0


class Feed:
    """The state of one followed topic. `position` is None until history was first read.

    `now` returns Unix seconds. Publications expire by that clock.
    """

    __slots__ = (
        "_crowd",
        "_epoch",
        "_now",
        "_observer",
        "_offset",
        "_only",
        "_recent",
        "joins",
        "subscribed",
        "topic",
        "unsettled",
    )

    def __init__(
        self, topic: str, observer: Observer, now: Callable[[], float] = time.time
    ) -> None:
        self.topic = topic
        self._epoch, self._offset = "", 0
        self.joins: tuple[Join, ...] = ()
        self.subscribed = False
        self.unsettled = False
        # Most topics are a user's, with one follower: a crowd of one would double its cost.
        self._only: Connection | None = None
        self._crowd: Crowd | None = None
        self._recent: list[Publication] | None = []  # None when nothing has to be kept
        self._observer = observer
        self._now = now

    @property
    def position(self) -> Position | None:
        """The position up to which followers are served."""
        return Position(self._epoch, self._offset) if self._epoch else None

    @position.setter
    def position(self, position: Position) -> None:
        self._epoch, self._offset = position

    @property
    def empty(self) -> bool:
        """Whether it has neither followers nor joins."""
        return self._only is None and not self._crowd and not self.joins

    def join(self, join: Join) -> None:
        """Add a connection on its way in."""
        self.joins = (*self.joins, join)

    def withdraw(self, join: Join) -> None:
        """Remove a connection on its way in; a follower stays."""
        self.joins = tuple(each for each in self.joins if each is not join)

    def add(self, connection: Connection) -> None:
        """Make a connection a follower, from `position` on."""
        if self._crowd is None:
            if self._only is None:
                self._only = connection
                return
            self._crowd = Crowd(self._observer, self._now)
            self._crowd.add(self._only)
            self._only = None
        self._crowd.add(connection)

    def drop(self, connection: Connection) -> None:
        """Remove a connection: a follower, or one on its way in."""
        if self._only is connection:
            self._only = None
        elif self._crowd is not None:
            self._crowd.drop(connection)
        self.joins = tuple(join for join in self.joins if join.connection is not connection)

    def connections(self) -> Iterator[Connection]:
        """Yield its followers, and the connections on their way in."""
        yield from self._followers()
        for join in self.joins:
            yield join.connection

    def _followers(self) -> Iterable[Connection]:
        return (self._only,) if self._only is not None else self._crowd or ()

    def accept_publication(self, publication: Publication) -> bool:
        """Take a live publication; False when history must be asked before anything goes on."""
        if self._recent is not None:
            self._recent.append(publication)
            if len(self._recent) > _MOST_RECENT:
                del self._recent[:-1]  # the one that stays has history asked once more
        is_taken = self._accept_next(publication)
        if not is_taken and (at := self.position) and at.is_unknown:
            self._offset += 1  # it counts those that were missed since followers got a gap
        return is_taken

    def _accept_next(self, publication: Publication) -> bool:
        if publication.epoch != self._epoch:
            return False
        if publication.offset != self._offset + 1:
            return publication.offset <= self._offset
        self._offset = publication.offset
        if publication.expires and publication.expired(int(self._now() * 1000)):
            self._observer.expired(1)
        elif (only := self._only) is not None:  # without a loop, as most topics are a user's
            only.write(only.encode(publication), publication)
            self._observer.fanned_out(1, self._now() - publication.accepted / 1000)
        elif self._crowd is not None:
            self._crowd.write(publication)
        return True

    def relay(self, frame: Relayed) -> None:
        """Hand a frame to each connection with room: followers, and joins in their replay."""
        joining = (join.connection for join in self.joins if join.start is not None)
        for connection in chain(self._followers(), joining):
            if connection.has_room:
                connection.send(frame)

    # Asking history: the value that each step returns is needed for the next one.

    def question(self) -> Asked:
        """Return the question to history that lets followers and joins go on.

        It leaves out a join whose client does not keep up: that one goes on once it has room.
        """
        # Publications that came in before the question are in history when it is answered.
        self._recent, self.unsettled = [], True
        offsets = [] if self.position is None else [self.position.offset]
        for join in self.joins:
            join.asked = join.start is None or join.connection.has_room
            if join.asked and join.served is not None:
                offsets.append(join.served.offset)
        return Asked(Since(self.topic, min(offsets, default=None), self.position))

    def settle(self, asked: Asked, history: History) -> Settled:
        """Bring the followers up to date with the answer, and set the start of each join."""
        self._advance(asked.seen, history)
        for publication in self._recent or ():
            self._accept_next(publication)
        for join in self.joins:
            if not join.asked:
                continue
            if join.start is None:
                self._begin(join, history)
            elif join.served is not None and (reason := missed(join.served, history)):
                join.gap, join.served = reason, self.position  # between two pages
            elif join.served is not None:
                join.served = history.head._replace(offset=join.served.offset)
        return Settled(history)

    def _advance(self, asked: Position | None, history: History) -> None:
        head, position = history.head, self.position
        if position is None or asked is None:
            self.position = head
            return
        if position.epoch == head.epoch and asked.offset <= head.offset <= position.offset:
            return
        if reason := missed(position, history):
            # That the topic cannot be read is told once, and again where more was missed.
            is_told = head.is_unknown and position.is_unknown and position.offset == 0
            self.position = head
            if not is_told:
                self._tell_gap(reason, head)
            return
        self.position = head._replace(offset=position.offset)
        for publication in history.publications:
            self._accept_next(publication)

    def _tell_gap(self, reason: str, head: Position) -> None:
        gap = Gap(self.topic, str(head), reason)
        if self._crowd is not None:
            self._crowd.finish()
        followers = list(self._followers())
        self._observer.gap(reason, len(followers))
        for connection in followers:
            connection.send(gap)

    def _begin(self, join: Join, history: History) -> None:
        assert self.position is not None  # noqa: S101 - `_advance` has set it
        if join.since is None:
            join.served, join.start = self.position, Start(str(self.position))
            return
        if join.since == START:
            first = history.publications[0].position if history.publications else None
            offset = first.offset - 1 if first else history.head.offset
            join.since = history.head._replace(offset=offset)
        join.gap = missed(join.since, history)
        if join.gap:
            # The answer has the position that the client gave, and only the gap moves it on: a
            # client whose connection breaks in between reconnects with the old one.
            join.served, join.start = self.position, Start(str(join.since), resumed=False)
        else:
            join.served = history.head._replace(offset=join.since.offset)
            join.start = Start(str(join.served), resumed=True)

    def admit(self, history: Settled) -> None:
        """Replay missed publications to each join; a join that is up to date then follows."""
        waiting, recent = [], self._recent or ()
        newest = newest_of(history, recent)
        for join in self.joins:
            if join.gap:
                self._observer.gap(join.gap, 1)
                join.connection.send(Gap(self.topic, str(self.position), join.gap))
                join.gap = None
            if join.asked and join.served != self.position:
                self._replay(join, chain(history.publications, recent), newest)
            if join.served == self.position:
                self.add(join.connection)
            else:
                waiting.append(join)
        self.joins = tuple(waiting)
        self._calm(history.head)

    def _replay(
        self, join: Join, publications: Iterable[Publication], newest: Mapping[bytes, int]
    ) -> None:
        assert join.served is not None  # noqa: S101 - `_begin` has set it
        now, bundle = int(self._now() * 1000), _Bundle(join.connection)
        expired = 0
        for publication in publications:
            if publication.position != (join.served.epoch, join.served.offset + 1):
                continue
            if not bundle.has_room:
                break
            join.served = publication.position
            if recoverable(publication, newest, now):
                bundle.add(publication)
            else:
                expired += publication.expired(now)
        bundle.send()
        self._observer.recovered(bundle.count)
        self._observer.expired(expired)

    def _calm(self, head: Position) -> None:
        """Stop keeping live publications, unless history has to be asked again."""
        # Lists: for the few that there are, a generator takes longer, and each connect comes here.
        heads = [head, *[publication.position for publication in self._recent or ()]]
        going_on = [join for join in self.joins if join.connection.has_room]
        self.unsettled = bool(going_on) or any(map(self._beyond, heads))
        if not self.unsettled:
            self._recent = None

    def _beyond(self, position: Position) -> bool:
        epoch, offset = position
        assert self.position is not None  # noqa: S101 - settled
        return epoch != self.position.epoch or offset > self.position.offset
