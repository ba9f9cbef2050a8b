"""Followers of a hub that hold what they get against what was posted."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from notifier.core.frames import Gap, ServerFrame, Start
from notifier.core.hub import Hub
from notifier.core.positions import Position
from notifier.core.publications import Publication
from tests.support.connections import RecordingConnection


@dataclass
class Posted:
    """The publications of one topic, in order; the events' ids are their numbers in here."""

    positions: list[Position] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    excused: set[int] = field(default_factory=set)  # lost by the broker, or expired

    def may_be_missed(self, number: int) -> bool:
        """Whether who comes back need not get this one."""
        key = self.keys[number]
        return number in self.excused or (bool(key) and key in self.keys[number + 1 :])


class Follower(RecordingConnection):
    """One stay in one topic, held against what was posted."""

    def __init__(self, hub: Hub, topic: str, posted: Posted, since: int | None) -> None:
        super().__init__()
        self.topic = topic
        self.refused = False
        self._posted = posted
        self._since = since
        self._next: int | None = None  # the least number that must come, once that is known
        self._offset = -1
        self._gap_due = False
        self._hub = hub
        position = None if since is None else posted.positions[since]
        self._arrival = hub.subscribe(self, {topic: position}, self._answered)

    def _answered(self, starts: Mapping[str, Start] | None) -> None:
        assert self._next is None, "answered twice"
        assert not self.sent, "something came before the answer"
        self.refused = starts is None
        for start in (starts or {}).values():
            self._next = len(self._posted.keys)
            if start.resumed is True:
                assert self._since is not None
                self._next = self._since + 1
            self._gap_due = start.resumed is False
            self._offset = Position.parse(start.position).offset

    def send(self, frame: ServerFrame) -> None:
        """See Connection."""
        super().send(frame)
        assert isinstance(frame, Gap)
        assert self._next is not None, "a gap before the answer"
        self._next, self._gap_due = len(self._posted.keys), False
        self._offset = Position.parse(frame.position).offset

    def write(self, data: bytes, publication: Publication | None = None) -> None:
        """See Connection."""
        super().write(data, publication)
        if publication is not None:
            self._take(publication)

    def _take(self, publication: Publication) -> None:
        number = int(json.loads(publication.event)["id"])
        assert self._next is not None, "an event before the answer"
        assert not self._gap_due, "an event where a gap was announced"
        assert publication.position.offset > self._offset, self.sent
        assert not self._missed(self._next, number), self.sent
        # An event behind a gap may have been posted before it, but nothing comes twice.
        assert number not in self.numbers[:-1], f"{number} came twice: {self.sent}"
        self._next, self._offset = max(self._next, number + 1), publication.position.offset

    def _missed(self, begin: int, end: int) -> list[int]:
        return [n for n in range(begin, end) if not self._posted.may_be_missed(n)]

    @property
    def numbers(self) -> list[int]:
        """The events that came."""
        return [int(frame["event"]["id"]) for frame in self.of_type("event")]

    @property
    def is_answered(self) -> bool:
        """Whether the hub has said where this one starts."""
        return self.refused or self._next is not None

    def leave(self) -> None:
        """Go away."""
        self._arrival.gone = True
        self._arrival.withdraw(self.topic)
        self._hub.unsubscribe(self, [self.topic])

    def make_room(self) -> None:
        """Keep up again."""
        self.has_room = True
        self._hub.resume_replays(self, [self.topic])

    def check_complete(self) -> None:
        """Find nothing missing at the end."""
        if not self.refused:
            assert self._next is not None, "never answered"
            assert not self._gap_due
            assert not self._missed(self._next, len(self._posted.keys)), self.sent
