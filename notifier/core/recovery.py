"""The rules of recovery: whether history continues a stream, and which of it a client wants."""

from collections.abc import Iterable, Mapping

from notifier.core.history import History
from notifier.core.positions import Position
from notifier.core.publications import Publication


def missed(at: Position, history: History) -> str | None:
    """Return why `history` cannot continue the stream behind `at`, or None when it can."""
    last = history.last_of(at.epoch)
    if last is None:
        return "restarted"
    if at.offset > last:
        return "lost"
    publications = history.publications
    first = publications[0].position.offset if publications else history.head.offset + 1
    return "expired" if first > at.offset + 1 else None


def newest_of(history: History, recent: Iterable[Publication]) -> dict[bytes, int]:
    """Return the newest offset of each collapse key, in history and in `recent`."""
    newest = dict(history.newest)
    for publication in recent:
        if publication.collapse_key:
            newest[publication.collapse_key] = publication.position.offset
    return newest


def recoverable(publication: Publication, newest: Mapping[bytes, int], now: int) -> bool:
    """Whether a replay includes it: it has not expired, and is the newest of its collapse key.

    `now` is in Unix milliseconds.
    """
    offset = publication.position.offset
    superseded = newest.get(publication.collapse_key, offset) > offset
    return not superseded and not publication.expired(now)
