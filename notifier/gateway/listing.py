"""Reads a topic backwards: the list of a page that loads, and of a user who scrolls."""

from dataclasses import dataclass, field

import msgspec

from notifier.core import frames
from notifier.core.access import Identity
from notifier.core.errors import Invalid
from notifier.core.frames import Gap
from notifier.core.history import PAGE, Before, History
from notifier.core.marks import Mark
from notifier.core.names import personal_topic
from notifier.core.positions import Position
from notifier.core.recovery import recoverable
from notifier.gateway.history import ENOUGH, Now, Read

USUAL_LISTED = 20


@dataclass(slots=True)
class HistoryListing:
    """One page under way: at most `limit` events of a topic, the newest first, before `before`."""

    topic: str
    before: Position | None
    limit: int
    mark: Mark
    _frames: list[bytes] = field(default_factory=list)
    _size: int = 0

    async def answer(self, read: Read, now: Now) -> bytes:
        """Return the body: frames, the position of the last one, and whether there are more.

        There are more only if a next page has an event. `now` is as for `HistoryPage`.
        """
        more = await self._fill(read, int(now() * 1000))
        end = b"null" if self.before is None else msgspec.json.encode(str(self.before))
        return b'{"frames":[%s],"before":%s,"more":%s}' % (
            b",".join(self._frames),
            end,
            b"true" if more else b"false",
        )

    async def _fill(self, read: Read, now: int) -> bool:
        at, most = self.before, self.limit + 1
        while True:
            history = await read(Before(self.topic, at.offset if at else None, most=most))
            if at is not None and (reason := _lost(at, history)):
                self._frames.append(frames.encode(Gap(self.topic, str(history.head), reason)))
                self.before = None
                return False
            if self._is_full_with(history, now):
                return True
            if len(history.publications) < most:
                return False
            at, most = history.publications[0].position, PAGE

    def _is_full_with(self, history: History, now: int) -> bool:
        """Add the events to list; return whether one had no room."""
        mark = self.mark.carried(history)
        for publication in reversed(history.publications):
            if not recoverable(publication, history.newest, now):
                continue
            if len(self._frames) == self.limit or self._size > ENOUGH:
                return True
            read = mark.has_read(publication.position.offset)
            self._frames.append(frames.listed_frame(publication, read=read))
            self._size += len(self._frames[-1])
            self.before = publication.position
        return False


def _lost(at: Position, history: History) -> str | None:
    """Return why the publications before `at` are not those that this history holds, or None."""
    last = history.last_of(at.epoch)
    if last is None:
        return "restarted"
    return "lost" if at.offset > last else None


def listed_topic(identity: Identity, topics: tuple[str, ...]) -> str:
    """Return the one topic to list, by default the personal one; raises Invalid or Forbidden."""
    if len(topics) > 1:
        raise Invalid("topics", "names several; with order=newest give one, and ask for each")
    topic = topics[0] if topics else personal_topic(identity.user)
    identity.check_topic(topic)
    return topic
