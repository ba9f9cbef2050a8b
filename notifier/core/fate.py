"""The fate of an event: how far it came towards one user.

Derived from the streams, the memory of duplicates and the user's marks each time it is asked for:
nothing is recorded for it.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Self

from notifier.core import events
from notifier.core.events import SILENT
from notifier.core.history import PAGE, Before, History
from notifier.core.marks import UNMARKED, Mark
from notifier.core.ports import Broker
from notifier.core.publications import Publication, hex_digest_of


class Fate(StrEnum):
    """How far an event came, the furthest first."""

    READ = "read"
    RECEIVED = "received"
    PUBLISHED = "published"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    BEYOND_HISTORY = "beyond_history"
    NOT_PUBLISHED = "not_published"

    @property
    def reached(self) -> bool:
        """Whether the user has it."""
        return self in (Fate.READ, Fate.RECEIVED)


class Sought(NamedTuple):
    """An event to look for. Without a `source` it is found in history alone, from any source."""

    id: str
    source: str | None = None

    @property
    def identity(self) -> bytes:
        """The beginning of its JSON, behind `PLAIN` or `SILENT`."""
        return events.identity_of(self.id, self.source)

    @property
    def key(self) -> str | None:
        """Its deduplication key, as `key_of` writes it, if its source is known."""
        return None if self.source is None else hex_digest_of(f"{self.source} {self.id}")


class Place(NamedTuple):
    """A topic to look in, and the user's mark there."""

    topic: str
    mark: Mark = UNMARKED


class Found(NamedTuple):
    """The fate of an event in a topic, its publication, and the moment of that in Unix seconds.

    History may hold no publication any more, and the memory of duplicates no moment.
    """

    topic: str
    fate: Fate
    publication: Publication | None = None
    published: float | None = None

    @classmethod
    def of(cls, publication: Publication, mark: Mark, history: History, now: int) -> Self:
        """Judge a publication that history holds."""
        offset, mark = publication.position.offset, mark.carried(history)
        newest = history.newest.get(publication.collapse_key, offset)
        if mark.has_read(offset):
            fate = Fate.READ
        elif offset <= mark.received:
            fate = Fate.RECEIVED
        elif newest > offset:
            fate = Fate.SUPERSEDED
        else:
            fate = Fate.EXPIRED if publication.expired(now) else Fate.PUBLISHED
        return cls(publication.topic, fate, publication)

    @classmethod
    def gone(cls, place: Place, history: History, reaches: int, published: float | None) -> Self:
        """Judge an event that history, which holds nothing up to `reaches`, does not hold.

        With 0 there was nothing: the stream was lost, and no mark speaks of the event.
        """
        if published is None:
            return cls(place.topic, Fate.NOT_PUBLISHED)
        mark, fate = place.mark.carried(history), Fate.BEYOND_HISTORY
        if 0 < reaches <= mark.read:
            fate = Fate.READ
        elif 0 < reaches <= mark.received:
            fate = Fate.RECEIVED
        return cls(place.topic, fate, None, published)


async def fates(broker: Broker, sought: Sought, places: Sequence[Place]) -> list[Found]:
    """Return the fate of an event in each of these places, in their order; raises Unavailable."""
    search = _Search(sought, places)
    while questions := search.questions():
        pages = [page.known() for page in await broker.read(questions)]
        search.take(pages, int(broker.now() * 1000))
    gone = [place.topic for place in search.gone]
    moments = await broker.published_at(gone, sought.key) if gone and sought.key else []
    return search.result(dict(zip(gone, moments, strict=False)))


class _Search:
    """Pages through the history of each place, the newest first, until the event is found."""

    def __init__(self, sought: Sought, places: Sequence[Place]) -> None:
        self._identity = sought.identity
        self._places = places
        self._found: dict[Place, Found] = {}
        self.gone: dict[Place, tuple[History, int]] = {}
        self._before: dict[Place, int | None] = dict.fromkeys(places)

    def questions(self) -> list[Before]:
        """Return the next page to ask for of each place; none when all are done."""
        size = len(SILENT + self._identity)
        return [Before(place.topic, at, beginning=size) for place, at in self._before.items()]

    def take(self, pages: Sequence[History], now: int) -> None:
        """Look through the answers."""
        asked, self._before = self._before, {}
        for (place, before), page in zip(asked.items(), pages, strict=True):
            ours = [p for p in page.publications if p.is_of(self._identity)]
            if ours:
                self._found[place] = Found.of(ours[-1], place.mark, page, now)
                continue
            oldest = _oldest(page, before)
            if len(page.publications) == PAGE:
                self._before[place] = oldest
            else:
                self.gone[place] = page, oldest - 1

    def result(self, published: Mapping[str, float | None]) -> list[Found]:
        """Return the fates, given when topics took an event that history does not hold."""
        gone = {
            place: Found.gone(place, page, reaches, published.get(place.topic))
            for place, (page, reaches) in self.gone.items()
        }
        found = self._found | gone
        return [found[place] for place in self._places]


def _oldest(page: History, before: int | None) -> int:
    if page.publications:
        return page.publications[0].position.offset
    return page.head.offset + 1 if before is None else before
