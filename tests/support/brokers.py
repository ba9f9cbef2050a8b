"""A broker in memory with a hand on whatever takes time, to force any interleaving."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import count, repeat, takewhile
from typing import Generic, TypeVar

from notifier.adapters.memory.broker import page_of
from notifier.adapters.memory.control import MemoryControl
from notifier.adapters.memory.marks import MemoryMarks
from notifier.adapters.memory.members import MemoryMembers
from notifier.adapters.memory.presence import MemoryPresenceQueries
from notifier.core.errors import Failed, NotifierError, Refused, Unavailable
from notifier.core.history import PAGE, History, Published, Question, Since
from notifier.core.names import GATEWAYS
from notifier.core.ports import Broker, BrokerListener, SharedPorts
from notifier.core.positions import NOWHERE, Position
from notifier.core.publications import NewPublication, Publication
from notifier.core.signals import Signal

T = TypeVar("T")

_EPOCHS = count(1)


def shared_ports_of(broker: Broker) -> SharedPorts:
    """Return a broker with the other ports beside it, in memory."""
    return SharedPorts(
        broker,
        MemoryMarks(broker),
        MemoryMembers(broker),
        MemoryControl(broker),
        MemoryPresenceQueries(broker),
    )


def record(name: str, *, expires: int = 0, collapse_key: str = "") -> bytes:
    """Write a record of an event whose id is `name`."""
    return b'0:%d:%s\n{"id":"%s"}' % (expires, collapse_key.encode(), name.encode())


class Call(Generic[T]):
    """A question on its way: `serve` is when the broker does it, `answer` when we learn of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._work = work
        self._result: list[T] = []

    def serve(self) -> None:
        """Do it now, once; the answer is then on its way."""
        if not self._result:
            self._result.append(self._work())

    def answer(self) -> None:
        """Let the answer arrive."""
        self.serve()
        if not self.done.done():
            self.done.set_result(self._result[0])

    def fail(self) -> None:
        """Let it time out, served or not."""
        if not self.done.done():
            self.done.set_exception(Unavailable("redis", "no answer"))


def _moved(publication: Publication, epoch: str) -> Publication:
    moved = copy(publication)
    moved.epoch, moved._position = epoch, None  # noqa: SLF001 - it was made of the former epoch
    return moved


class Stream:
    """One topic's stream."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Lose everything: another epoch begins."""
        self.epoch = f"e{next(_EPOCHS)}"
        self.offset = 0
        self.log: list[Publication] = []
        self.seen: set[str] = set()
        self.lineage: dict[str, int] = {}

    def go_on(self) -> None:
        """Continue under another epoch, as when the broker's process was replaced."""
        self.lineage[self.epoch] = self.offset
        self._begin_epoch()

    def check(self, seen: Position | None) -> None:
        """Continue no other epoch when `seen` is beyond what there is."""
        if seen is None:
            return
        last = self.offset if seen.epoch == self.epoch else self.lineage.get(seen.epoch)
        if last is not None and seen.offset > last:
            self.lineage.clear()
            self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.epoch = f"e{next(_EPOCHS)}"
        self.log = [_moved(each, self.epoch) for each in self.log]

    @property
    def head(self) -> Position:
        """The position of the newest publication."""
        return Position(self.epoch, self.offset)


class SteeredBroker:
    """Fulfils Broker. `held` keeps calls back, `live_held` live publications, `away` fails all.

    Calls about `failing_topics` fail, and no other. It goes away at the first publication to a
    topic of `away_at`, and answers for those in front of it.
    """

    def __init__(self, *, history_size: int = 100, page: int = PAGE) -> None:
        self.trouble: str | None = None
        self.held = False
        self.live_held = False
        self.away = False
        self.attempts = 0
        self.ahead = 0.0  # seconds of its clock, compared with this process'
        self.calls: deque[Call[object]] = deque()
        self.live: deque[Publication] = deque()
        self.followed: set[str] = set()
        self.follows: list[list[str]] = []
        self.questions: list[Question] = []
        self.published: list[NewPublication] = []
        self.refused_topics: set[str] = set()
        self.failing_topics: set[str] = set()
        self.away_at: set[str] = set()
        self._streams: dict[str, Stream] = {}
        self._history_size = history_size
        self._page = page
        self._called = asyncio.Event()
        self._listener: BrokerListener | None = None

    # The port.

    def now(self) -> float:
        """See Broker."""
        return time.time() + self.ahead

    def listen(self, listener: BrokerListener) -> None:
        """See Broker."""
        self._listener = listener

    async def publish(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        """See Broker."""
        return await self._call(lambda: self._publish_each(batch))

    def _publish_each(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        known = list(takewhile(lambda new: new.topic not in self.away_at, batch))
        if batch and not known:
            raise Unavailable("redis", "away")
        unknown = repeat(Unavailable("redis", "away"), len(batch) - len(known))
        return [*map(self._publish, known), *unknown]

    async def signal(self, signals: Sequence[Signal]) -> list[NotifierError | None]:
        """See Broker."""
        return await self._call(lambda: [self._tell(each) for each in signals])

    def _tell(self, signal: Signal) -> NotifierError | None:
        if signal.topic in self.failing_topics:
            return Failed("redis")
        if self._listener is not None and signal.topic in self.followed:
            self._listener.on_signal(signal)
        return None

    async def subscribe(self, topics: Sequence[str]) -> None:
        """See Broker. The topic of all gateways is never held back."""
        if list(topics) == [GATEWAYS]:
            self.followed.add(GATEWAYS)
            return
        self.follows.append(list(topics))
        await self._call(lambda: self.followed.update(topics))

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """See Broker; it takes its time, but never fails."""
        try:
            await self._call(lambda: self.followed.difference_update(topics))
        except Unavailable:
            self.followed.difference_update(topics)

    async def read(self, questions: Sequence[Question]) -> list[History]:
        """See Broker."""
        self.questions.extend(questions)
        return await self._call(lambda: [self._history(each) for each in questions])

    async def published_at(self, topics: Sequence[str], key: str) -> list[float | None]:
        """See Broker; it took everything at 1.0."""
        return await self._call(lambda: [self._seen_at(topic, key) for topic in topics])

    def _seen_at(self, topic: str, key: str) -> float | None:
        return 1.0 if topic in self._streams and key in self.stream(topic).seen else None

    async def _call(self, work: Callable[[], T]) -> T:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("redis", "away")
        if not self.held:
            return work()
        call = Call(work)
        self.calls.append(call)  # type: ignore[arg-type]  # nobody looks at a held one
        self._called.set()
        result: T = await call.done
        return result

    def _history(self, question: Question) -> History:
        if question.topic in self.failing_topics:
            return History(Position.unknown(), failure=Failed("redis"))
        begins = isinstance(question, Since) and question.begins
        if not begins and question.topic not in self._streams:
            return History(NOWHERE)
        stream = self.stream(question.topic)
        if isinstance(question, Since):
            stream.check(question.seen)
        newest = {p.collapse_key: p.position.offset for p in stream.log if p.collapse_key}
        page = tuple(page_of(stream.log, question)[: self._page])
        return History(stream.head, page, dict(stream.lineage), newest)

    def _publish(self, new: NewPublication) -> Published | NotifierError:
        if new.topic in self.refused_topics:
            return Refused("the key holds something else")
        if new.topic in self.failing_topics:
            return Failed("redis")
        self.published.append(new)
        stream = self.stream(new.topic)
        if new.key in stream.seen:
            return Published(stream.head, duplicate=True)
        stream.seen.add(new.key)
        return Published(self._append(stream, new.topic, new.record).position)

    def _append(self, stream: Stream, topic: str, text: bytes) -> Publication:
        stream.offset += 1
        publication = Publication(topic, *stream.head, text)
        stream.log = [*stream.log, publication][-self._history_size :]
        if topic in self.followed:
            self.live.append(publication)
            if not self.live_held:
                self.deliver()
        return publication

    # The tests' verbs.

    def stream(self, topic: str) -> Stream:
        """Return a topic's stream, begun if there was none."""
        return self._streams.setdefault(topic, Stream())

    def head(self, topic: str) -> str:
        """Return the position of a topic's newest publication, as frames carry it."""
        return str(self.stream(topic).head)

    def post(self, topic: str, name: str = "x", *, expires: int = 0, collapse_key: str = "") -> str:
        """Publish an event at once, and return its position as frames carry it."""
        text = record(name, expires=expires, collapse_key=collapse_key)
        return str(self._append(self.stream(topic), topic, text).position)

    def post_many(self, topic: str, number: int) -> list[str]:
        """Publish events at once, and return their positions."""
        return [self.post(topic) for _ in range(number)]

    def post_unheard(self, topic: str, name: str = "x") -> str:
        """Publish an event whose live publication is lost on the way."""
        held, self.live_held = self.live_held, True
        position = self.post(topic, name)
        if self.live and self.live[-1].position == self.stream(topic).head:
            self.live.pop()
        self.live_held = held
        return position

    def deliver(self, number: int | None = None) -> None:
        """Let live publications arrive, the oldest first."""
        for _ in range(len(self.live) if number is None else min(number, len(self.live))):
            publication = self.live.popleft()
            if self._listener is not None and publication.topic in self.followed:
                self._listener.on_publication(publication)

    def interrupt(self, topics: Iterable[str]) -> None:
        """Cut the connection: what was on its way is lost."""
        wanted = set(topics)
        self.live = deque(each for each in self.live if each.topic not in wanted)
        if self._listener is not None:
            self._listener.on_interruption(wanted)

    def trim(self, topic: str, keep: int) -> None:
        """Let history forget all but the newest."""
        stream = self.stream(topic)
        stream.log = stream.log[len(stream.log) - min(keep, len(stream.log)) :]

    def rewind(self, topic: str, number: int) -> None:
        """Lose the newest publications, as a failover to a lagging replica does."""
        stream = self.stream(topic)
        stream.offset -= number
        stream.log = stream.log[:-number]
        stream.lineage = {e: min(last, stream.offset) for e, last in stream.lineage.items()}

    async def asked(self) -> Call[object]:
        """Wait until a call is held, and return it; it is then no longer among `calls`."""
        while not self.calls:
            self._called.clear()
            await self._called.wait()
        return self.calls.popleft()

    def release(self) -> None:
        """Hold nothing back any more, and answer what was."""
        self.held = False
        while self.calls:
            self.calls.popleft().answer()
