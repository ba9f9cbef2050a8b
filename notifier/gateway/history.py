"""Reads the events that topics still hold, without following them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from notifier.core import frames
from notifier.core.access import Identity
from notifier.core.frames import Gap
from notifier.core.history import PAGE, History, Question, Since
from notifier.core.names import EVERYONE, personal_topic
from notifier.core.positions import START, Position, format_cursor
from notifier.core.recovery import missed, recoverable

USUAL_LIMIT, LARGEST_LIMIT = 100, PAGE
ENOUGH = 1024 * 1024  # bytes of frames in one answer, give or take an event

Now = Callable[[], float]
Read = Callable[[Question], Awaitable[History]]


@dataclass(slots=True)
class HistoryPage:
    """One answer under way: at most `limit` publications of each topic, those behind the cursor.

    It reads `topics`, or else those of every session, and the topics of the cursor. Raises
    Forbidden.
    """

    identity: Identity
    topics: tuple[str, ...]
    cursor: dict[str, Position]
    limit: int
    _own: tuple[str, ...] = ()
    _frames: list[bytes] = field(default_factory=list)
    _size: int = 0
    _more: bool = False

    def __post_init__(self) -> None:
        # Every session begins these. Others could be any number of unused names.
        self._own = (personal_topic(self.identity.user), EVERYONE)
        wanted = self.topics or self._own
        self.topics = tuple(dict.fromkeys((*wanted, *self.cursor)))
        for topic in self.topics:
            self.identity.check_topic(topic)

    async def answer(self, read: Read, now: Now) -> bytes:
        """Return the body: frames, the cursor behind them, and whether there is more.

        `now` returns Unix seconds by the clock that publications expire by.
        """
        for topic in self.topics:
            # One at a time: a page may be large, and the rest may be for the next request.
            if self._size > ENOUGH:
                self._more = True
                break
            since = self.cursor.get(topic)
            since = None if since == START else since
            question = Since(topic, since.offset if since else 0, begins=topic in self._own)
            history = await read(question)
            self._take(topic, since, history, int(now() * 1000))
        cursor = format_cursor(self.cursor)
        return b'{"frames":[%s],"cursor":%s,"more":%s}' % (
            b",".join(self._frames),
            msgspec.json.encode(cursor),
            b"true" if self._more else b"false",
        )

    def _take(self, topic: str, since: Position | None, history: History, now: int) -> None:
        if since is not None and (reason := missed(since, history)):
            self._add(frames.encode(Gap(topic, str(history.head), reason)))
            self.cursor[topic] = history.head
            return
        position = history.head if since is None else history.head._replace(offset=since.offset)
        for publication in history.publications[: self.limit]:
            if self._size > ENOUGH:
                break
            position = publication.position
            if recoverable(publication, history.newest, now):
                self._add(frames.event_frame(publication))
        self._more = self._more or position != history.head
        self.cursor[topic] = position

    def _add(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._size += len(frame)
