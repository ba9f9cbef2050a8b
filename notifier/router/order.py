"""The order of publications: each topic keeps its order, and other topics may overtake.

Publications go to the broker in chunks, several at a time. A chunk that shares a topic with an
earlier one waits for it. Later events pass a large audience. If one of them goes to a topic that
the audience has not reached, its chunk first takes the audience's own publication to that topic.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from notifier.core.publications import NewPublication
from notifier.router.batch_reader import Progress

CHUNK = 125  # publications in one round trip: no slower than 500, and others wait less
CHUNK_BYTES = 1024 * 1024  # of records, after which a chunk takes no further publication
LARGE = 500  # topics of one event; an event with more is passed by later ones
# More of them hold up later events: each takes a few MB of memory.
MOST_AUDIENCES = 4


class Audience:
    """An event for many topics, and its publications that still wait.

    `published` is set once the last one is published, whichever chunk took it.
    """

    def __init__(self, progress: Progress, publications: Iterable[NewPublication]) -> None:
        self.progress = progress
        self.batch = progress.batch
        self.refuse = progress.refuse
        self.waiting = {new.topic: new for new in publications}
        record = next(iter(self.waiting.values())).record  # all share it: it is one event
        self._step = min(CHUNK, -(-CHUNK_BYTES // len(record)))
        self.published = asyncio.Event()
        self._unpublished = len(self.waiting)

    def pop_chunk(self) -> "list[Item]":
        """Remove and return the publications of the next chunk; none when none waits."""
        return self.pop(list(islice(self.waiting, self._step)))

    def pop(self, topics: Iterable[str]) -> "list[Item]":
        """Remove and return the waiting publications to these topics."""
        return [(self, self.waiting.pop(topic)) for topic in topics]

    def count_down(self) -> None:
        """Note that one is published or refused, or that its batch is no longer this router's."""
        self._unpublished -= 1
        if not self._unpublished:
            self.published.set()


Item = tuple[Audience | Progress, NewPublication]
"""A publication, and its owner: an audience, or a delivery."""


class Cut:
    """Publications that are cut into chunks, in their order."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._size = 0

    def add(
        self, progress: Progress, publications: Iterable[NewPublication]
    ) -> Iterator[list[Item]]:
        """Add the publications of an event; yield each chunk that is full."""
        for new in publications:
            self._items.append((progress, new))
            self._size += len(new.record)
            if len(self._items) == CHUNK or self._size >= CHUNK_BYTES:
                yield self.rest()

    def rest(self) -> list[Item]:
        """Remove and return the publications that are in no chunk yet."""
        items, self._items, self._size = self._items, [], 0
        return items


class Chunk:
    """Publications that go in one round trip, after the earlier chunks that share a topic."""

    def __init__(
        self, items: Sequence[Item], topics: frozenset[str], earlier: Sequence["Chunk"]
    ) -> None:
        self.items = items
        self.waiting = items  # those without an answer
        self.topics = topics
        self.published = asyncio.get_running_loop().create_future()
        self._earlier = [chunk.published for chunk in earlier]

    async def wait_for_earlier(self) -> None:
        """Return once the earlier chunks that share a topic are published."""
        if self._earlier:
            await asyncio.wait(self._earlier)

    async def still_ours(self) -> Sequence[Item]:
        """Return those waiting whose batch is still this router's; another one gets the others."""
        batches = {owner.batch for owner, _ in self.waiting}
        lost = {batch for batch in batches if not await batch.is_ours()}
        if not lost:
            return self.waiting
        return [item for item in self.waiting if item[0].batch not in lost]


class Order:
    """The chunks and audiences under way. Nothing here awaits, so no race is possible."""

    def __init__(self) -> None:
        self._audiences: list[Audience] = []  # the oldest first
        self._chunks: list[Chunk] = []

    @property
    def has_room(self) -> bool:
        """Whether one more audience may be passed."""
        return len(self._audiences) < MOST_AUDIENCES

    def add(self, audience: Audience) -> None:
        """Let later events pass an audience from now on."""
        self._audiences.append(audience)

    def remove(self, audience: Audience) -> None:
        """Remove an audience that is published."""
        self._audiences.remove(audience)

    def chunk(self, items: Sequence[Item]) -> Chunk:
        """Return the chunk of these items, with the audiences' publications that must precede."""
        return self._chunk(items, self._audiences)

    def next_chunk_of(self, audience: Audience) -> Chunk | None:
        """Return the next chunk of an audience; None when nothing of it waits."""
        older = self._audiences[: self._audiences.index(audience)]
        items = audience.pop_chunk()
        return self._chunk(items, older) if items else None

    def _chunk(self, items: Sequence[Item], audiences: Sequence[Audience]) -> Chunk:
        topics = frozenset([new.topic for _, new in items])
        along = [item for each in audiences for item in each.pop(each.waiting.keys() & topics)]
        earlier = [chunk for chunk in self._chunks if not chunk.topics.isdisjoint(topics)]
        chunk = Chunk([*along, *items], topics, earlier)
        self._chunks.append(chunk)
        return chunk

    def finish(self, chunk: Chunk) -> None:
        """Remove a chunk that Redis has answered, and let the chunks behind it go.

        A chunk that failed holds them up for good: its batch comes again, and publishes it then.
        """
        for owner, _ in chunk.items:
            if isinstance(owner, Audience):
                owner.count_down()
        self._chunks.remove(chunk)
        chunk.published.set_result(None)
