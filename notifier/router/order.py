"""The order of publications: of one topic each goes after those before it, others may overtake.

Publications go to the broker in chunks, several at a time. A chunk that shares a topic with an
earlier one waits for it. A large audience is passed by what comes behind it; what shares a topic
with its rest takes the audience's own publication along, before itself.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice

from notifier.core.errors import NotifierError
from notifier.core.ports import Batch
from notifier.core.publications import NewPublication

CHUNK = 125  # publications in one round trip: no slower than 500, and others wait less
CHUNK_BYTES = 1024 * 1024  # of records, after which a chunk takes no further publication
LARGE = 500  # topics of one event, from which on it is passed
# More of them hold up what is behind: each takes a few MB of memory.
MOST_AUDIENCES = 4


class Audience:
    """An event for many topics, and its publications that still wait.

    `index` is that of its delivery in `batch`. `published` is set once the last one is, whoever
    took it along; `refusal` is then why one of them could not be.
    """

    def __init__(self, index: int, batch: Batch, publications: Iterable[NewPublication]) -> None:
        self.index = index
        self.batch = batch
        self.waiting = {new.topic: new for new in publications}
        record = next(iter(self.waiting.values())).record  # of all: it is one event
        self._step = min(CHUNK, -(-CHUNK_BYTES // len(record)))
        self.refusal: NotifierError | None = None
        self.published = asyncio.Event()
        self._unpublished = len(self.waiting)

    def next(self) -> "list[Item]":
        """Take those of the next chunk; nothing when none waits."""
        return [(self, self.waiting.pop(topic)) for topic in list(islice(self.waiting, self._step))]

    def taken_along(self, topics: frozenset[str]) -> "list[Item]":
        """Take those that have to go before anything else to these topics."""
        return [(self, self.waiting.pop(topic)) for topic in self.waiting.keys() & topics]

    def was_published(self) -> None:
        """Note that one of them is published, was refused, or is somebody else's by now."""
        self._unpublished -= 1
        if not self._unpublished:
            self.published.set()


# A publication, and whose it is: an audience's, or that of a delivery, by its number in its batch.
Item = tuple[Audience | int, NewPublication]


class Chunk:
    """Publications that go in one round trip, once those that it has to follow have gone.

    Those of no audience are of `batch`.
    """

    def __init__(
        self,
        items: Sequence[Item],
        batch: Batch,
        topics: frozenset[str],
        earlier: Sequence["Chunk"],
    ) -> None:
        self.items = items
        self._batch = batch
        self.topics = topics
        self.published = asyncio.get_running_loop().create_future()
        self._earlier = [chunk.published for chunk in earlier]

    async def turn(self) -> None:
        """Return when it may go."""
        if self._earlier:
            await asyncio.wait(self._earlier)

    async def ours(self) -> Sequence[Item]:
        """Return those whose batch is still this router's; others come to another one."""
        batches = {self._batch_of(owner) for owner, _ in self.items}
        lost = {batch for batch in batches if not await batch.is_ours()}
        if not lost:
            return self.items
        return [item for item in self.items if self._batch_of(item[0]) not in lost]

    def _batch_of(self, owner: Audience | int) -> Batch:
        return owner.batch if isinstance(owner, Audience) else self._batch


class Order:
    """What is under way in this process. Nothing here waits, so nothing can come in between."""

    def __init__(self) -> None:
        self._audiences: list[Audience] = []  # the oldest first
        self._chunks: list[Chunk] = []

    @property
    def has_room(self) -> bool:
        """Whether one more audience may be passed."""
        return len(self._audiences) < MOST_AUDIENCES

    def begin(self, audience: Audience) -> None:
        """Let an audience be passed by what comes from now on."""
        self._audiences.append(audience)

    def end(self, audience: Audience) -> None:
        """Let go of an audience that is published."""
        self._audiences.remove(audience)

    def chunk(self, items: Sequence[Item], batch: Batch) -> Chunk:
        """Let a chunk of a batch be under way, with what it has to take along."""
        return self._chunk(items, batch, self._audiences)

    def next_of(self, audience: Audience) -> Chunk | None:
        """Let the next chunk of an audience be under way; None when there is none."""
        older = self._audiences[: self._audiences.index(audience)]
        items = audience.next()
        return self._chunk(items, audience.batch, older) if items else None

    def _chunk(self, items: Sequence[Item], batch: Batch, audiences: Sequence[Audience]) -> Chunk:
        topics = frozenset([new.topic for _, new in items])
        along = [item for audience in audiences for item in audience.taken_along(topics)]
        earlier = [chunk for chunk in self._chunks if not chunk.topics.isdisjoint(topics)]
        chunk = Chunk([*along, *items], batch, topics, earlier)
        self._chunks.append(chunk)
        return chunk

    def went(self, chunk: Chunk) -> None:
        """Let those that have to follow a chunk go.

        One that failed holds them up for good: what it has is published when it comes again.
        """
        self._chunks.remove(chunk)
        chunk.published.set_result(None)
