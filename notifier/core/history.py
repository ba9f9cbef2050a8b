"""Plain values of the broker: its answer to a publication, questions to history, its answers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from notifier.core.errors import Failed
from notifier.core.positions import Position
from notifier.core.publications import Publication

PAGE = 256
"""The most publications of one answer of history's."""


class Published(NamedTuple):
    """The outcome of a new publication: its position, or for a duplicate the stream's head."""

    position: Position
    duplicate: bool = False


class Since(NamedTuple):
    """A question to history: the publications of `topic` behind `offset`. None: only its head.

    `seen` is a position that the broker told this process, never one that a client sent. If the
    stream no longer reaches it, publications were lost: the answer begins an epoch that continues
    no other, so every client gets a gap.

    With `begins` false a topic that has no stream is left without one.
    """

    topic: str
    offset: int | None = None
    seen: Position | None = None
    begins: bool = True


class Before(NamedTuple):
    """A question to history: which are the newest in `topic` before `offset`? None: of all.

    They lie behind `behind`, and are `most` at most. A topic that has no stream is left without.
    With `beginning` their events are cut off behind so many bytes: behind `SILENT`, to know whether
    one is silent.
    """

    topic: str
    offset: int | None = None
    behind: int = 0
    most: int = PAGE
    beginning: int | None = None


Question = Since | Before


class History(NamedTuple):
    """The answer: the stream's head, and the publications asked for.

    They are of the head's epoch, oldest first, without holes between them, at most a page
    (`PAGE`) of them. The first is not the one asked for when history no longer reaches back.
    `lineage` has the epochs that the head's one continues, each with the last offset they share.
    `newest` has, for each collapse key on this page, the offset of its newest in the stream.

    With a `failure` nothing is known of the topic, and the head is an unknown position: followers
    get a gap.
    """

    head: Position
    publications: Sequence[Publication] = ()
    lineage: Mapping[str, int] = {}
    newest: Mapping[bytes, int] = {}
    failure: Failed | None = None

    def last_of(self, epoch: str) -> int | None:
        """Return the last offset that the stream shares with `epoch`, None if it has none."""
        return self.head.offset if epoch == self.head.epoch else self.lineage.get(epoch)

    def known(self) -> Self:
        """Return this answer; raises Failed where it has a `failure`."""
        if self.failure:
            raise self.failure
        return self
