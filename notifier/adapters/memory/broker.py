"""The broker in memory: for `notifier dev`, and for tests of all that needs a broker."""

import secrets
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from math import inf
from time import monotonic, time

from notifier.core.errors import NotifierError
from notifier.core.history import PAGE, History, Published, Question, Since
from notifier.core.names import is_personal
from notifier.core.ports import BrokerListener
from notifier.core.positions import NOWHERE, Position
from notifier.core.publications import NewPublication, Publication
from notifier.core.signals import Signal

_MOST_KEYS = 10_000


class _Stream:
    """One topic's stream."""

    def __init__(self) -> None:
        self.head = Position(secrets.token_hex(4), 0)
        self.log: deque[Publication] = deque()
        self.seen: dict[str, float] = {}  # oldest first

    def remember(self, key: str, now: float, window: float) -> None:
        self.seen.pop(key, None)
        self.seen[key] = now
        while self.seen[oldest := next(iter(self.seen))] <= now - window or (
            len(self.seen) > _MOST_KEYS
        ):
            del self.seen[oldest]

    def check(self, seen: Position | None) -> None:
        """Begin an epoch that continues no other if `seen` is beyond the head."""
        if seen is not None and seen.epoch == self.head.epoch and seen > self.head:
            self.head = Position(secrets.token_hex(4), self.head.offset)
            self.log.clear()

    def append(self, new: NewPublication, history_size: int) -> Publication:
        self.head = self.head._replace(offset=self.head.offset + 1)
        publication = Publication(new.topic, *self.head, new.record)
        self.log.append(publication)
        while len(self.log) > history_size:
            self.log.popleft()
        return publication


class MemoryStreams:
    """The streams that brokers share, as two processes share one Redis.

    A topic's history is bounded in number, not in time, and topics are never forgotten.
    """

    def __init__(self) -> None:
        self._streams = defaultdict[str, _Stream](_Stream)
        self._followers: dict[str, dict[BrokerListener, None]] = {}

    def lose(self) -> None:
        """Lose all streams, for tests: each begins anew when it is asked for."""
        self._streams.clear()

    def __contains__(self, topic: str) -> bool:
        return topic in self._streams

    def stream(self, topic: str) -> _Stream:
        """Return a topic's stream, new if it has none."""
        return self._streams[topic]

    def subscribe(self, listener: BrokerListener, topics: Iterable[str]) -> None:
        """Send a listener the publications of topics."""
        for topic in topics:
            self._followers.setdefault(topic, {})[listener] = None

    def unsubscribe(self, listener: BrokerListener, topics: Iterable[str]) -> None:
        """Send it no more of them."""
        for topic in topics:
            followers = self._followers.get(topic, {})
            followers.pop(listener, None)
            if not followers:
                self._followers.pop(topic, None)

    def fan_out(self, publication: Publication) -> None:
        """Send a publication to all followers, at once."""
        for listener in tuple(self._followers.get(publication.topic, ())):
            listener.on_publication(publication)

    def tell(self, signal: Signal) -> None:
        """Tell a signal to all followers of its topic, at once."""
        for listener in tuple(self._followers.get(signal.topic, ())):
            listener.on_signal(signal)


class MemoryBroker:
    """Fulfils `notifier.core.ports.Broker`. No method of it ever suspends.

    Listeners get a publication while it is being published.
    """

    trouble = None

    def __init__(
        self,
        streams: MemoryStreams | None = None,
        *,
        history_size: int = 100,
        inbox_size: int = 200,
        deduplication_seconds: float = 3600,
    ) -> None:
        self._streams = streams or MemoryStreams()
        self._history_size = history_size
        self._inbox_size = inbox_size
        self._deduplication_seconds = deduplication_seconds

    def now(self) -> float:
        """See Broker."""
        return time()

    def listen(self, listener: BrokerListener) -> None:
        """See Broker."""
        self._listener = listener

    async def publish(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        """See Broker."""
        return [self._publish(new) for new in batch]

    def _publish(self, new: NewPublication) -> Published:
        stream, now = self._streams.stream(new.topic), monotonic()
        if stream.seen.get(new.key, -inf) > now - self._deduplication_seconds:
            return Published(stream.head, duplicate=True)
        stream.remember(new.key, now, self._deduplication_seconds)
        size = self._inbox_size if is_personal(new.topic) else self._history_size
        publication = stream.append(new, size)
        self._streams.fan_out(publication)
        return Published(publication.position)

    async def signal(self, signals: Sequence[Signal]) -> list[NotifierError | None]:
        """See Broker; none fails here."""
        for signal in signals:
            self._streams.tell(signal)
        return [None] * len(signals)

    async def subscribe(self, topics: Sequence[str]) -> None:
        """See Broker."""
        self._streams.subscribe(self._listener, topics)

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """See Broker."""
        self._streams.unsubscribe(self._listener, topics)

    async def read(self, questions: Sequence[Question]) -> list[History]:
        """See Broker."""
        return [self._read(question) for question in questions]

    def _read(self, question: Question) -> History:
        begins = isinstance(question, Since) and question.begins
        if not begins and question.topic not in self._streams:
            return History(NOWHERE)
        stream = self._streams.stream(question.topic)
        if isinstance(question, Since):
            stream.check(question.seen)
        newest = {p.collapse_key: p.position.offset for p in stream.log if p.collapse_key}
        return History(stream.head, page_of(stream.log, question), newest=newest)

    async def published_at(self, topics: Sequence[str], key: str) -> list[float | None]:
        """See Broker."""
        return [self._published_at(topic, key) for topic in topics]

    def _published_at(self, topic: str, key: str) -> float | None:
        seen = self._streams.stream(topic).seen.get(key) if topic in self._streams else None
        return None if seen is None else time() - (monotonic() - seen)


def page_of(log: Iterable[Publication], question: Question) -> list[Publication]:
    """Return the publications of a log, the oldest first, that answer a question to history."""
    if isinstance(question, Since):
        since = question.offset
        return [p for p in log if since is not None and p.position.offset > since][:PAGE]
    last = inf if question.offset is None else question.offset
    return [p for p in log if question.behind < p.position.offset < last][-question.most :]
