"""A crowd: the followers of a topic that has several, and the publications on their way to them.

A publication for thousands takes tens of milliseconds, in which the event loop serves nobody else.
So it goes out as a wave: to some followers in each turn of the loop. The waves of a topic go out
one behind the other, so each follower gets its publications in order.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from notifier.core.ports import Connection, Observer
from notifier.core.publications import Publication

TURN = 500
"""The most followers that are written to in a turn of the event loop: they take about 3 ms."""
MOST_WAVES = 8
"""Waves that wait; past them the first goes out at once, however long it takes."""
_Kinds = dict[Callable[[Publication], bytes], dict[Connection, None]]


class _Wave:
    """A publication on its way, to the connections that followed when it came.

    Those in `gone` have left meanwhile: one that comes back gets the publication from history.
    """

    __slots__ = ("_batches", "count", "gone", "publication")

    def __init__(self, publication: Publication, kinds: _Kinds, count: int) -> None:
        self.publication = publication
        self.count = count
        self.gone: set[Connection] = set()
        self._batches: deque[tuple[bytes, list[Connection]]] = deque()
        for encode, connections in kinds.items():
            data, each = encode(publication), list(connections)
            self._batches += ((data, each[at : at + TURN]) for at in range(0, len(each), TURN))

    def write_some(self) -> bool:
        """Write to TURN connections at most; return whether there are more."""
        data, connections = self._batches.popleft()
        for connection in connections:
            if connection not in self.gone:
                connection.write(data, self.publication)
        return bool(self._batches)


class Crowd:
    """Followers by kind of connection: one kind gets the same bytes. `now` returns Unix seconds.

    A dictionary keeps the order in which they came, which is that of their memory: a set makes a
    broadcast to 10,000 a sixth slower.
    """

    __slots__ = ("_is_due", "_kinds", "_now", "_observer", "_waves")

    def __init__(self, observer: Observer, now: Callable[[], float]) -> None:
        self._kinds: _Kinds = {}
        self._waves: deque[_Wave] = deque()
        self._is_due = False  # the event loop will call `_go_on`
        self._observer = observer
        self._now = now

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def __iter__(self) -> Iterator[Connection]:
        return chain.from_iterable(self._kinds.values())

    def add(self, connection: Connection) -> None:
        """Let a connection have the publications from the next one on."""
        self._kinds.setdefault(connection.encode, {})[connection] = None

    def drop(self, connection: Connection) -> None:
        """Let a connection have nothing more, not even of the waves that are under way."""
        connections = self._kinds.get(connection.encode, {})
        connections.pop(connection, None)
        if not connections:
            self._kinds.pop(connection.encode, None)
        for wave in self._waves:
            wave.gone.add(connection)

    def write(self, publication: Publication) -> None:
        """Send a publication to all, behind those before it."""
        if not (count := len(self)):
            return  # all have left: an empty wave has nothing to write
        if count <= TURN and not self._waves:
            self._write_at_once(publication, count)
            return
        self._waves.append(_Wave(publication, self._kinds, count))
        if len(self._waves) > MOST_WAVES:
            self._finish_first()
        if not self._is_due:
            self._go_on()

    def _write_at_once(self, publication: Publication, count: int) -> None:
        for encode, connections in self._kinds.items():
            data = encode(publication)
            for connection in connections:
                connection.write(data, publication)
        self._passed(publication, count)

    def _go_on(self) -> None:
        self._is_due = False
        if self._waves and not self._waves[0].write_some():
            self._pass_first()
        if self._waves:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def finish(self) -> None:
        """Send all that is under way at once: what comes next must not overtake it."""
        while self._waves:
            self._finish_first()

    def _finish_first(self) -> None:
        while self._waves[0].write_some():
            pass
        self._pass_first()

    def _pass_first(self) -> None:
        wave = self._waves.popleft()
        self._passed(wave.publication, wave.count)

    def _passed(self, publication: Publication, count: int) -> None:
        self._observer.fanned_out(count, self._now() - publication.accepted / 1000)
