"""The replies of scripts, as the types of the ports."""

from collections.abc import Iterable
from typing import Any

import structlog

from notifier.core.errors import Failed, NotifierError, Refused, Unavailable
from notifier.core.history import Before, History, Published, Question
from notifier.core.positions import NOWHERE, Position
from notifier.core.publications import Publication

_log = structlog.stdlib.get_logger(__name__)


def accepted(reply: Any) -> Any:  # noqa: ANN401 - any reply
    """Return a reply; raises Unavailable for one that failed or was refused."""
    if isinstance(reply, Refused):  # an operator has to mend it
        raise Unavailable("redis", str(reply))
    if isinstance(reply, Failed):
        raise reply
    return reply


def published_of(reply: Any) -> Published | NotifierError:  # noqa: ANN401 - any reply
    """Return the answer to one publication."""
    if isinstance(reply, NotifierError):
        return reply
    epoch, offset, duplicate, _ = reply
    return Published(Position(epoch.decode(), offset), duplicate=bool(duplicate))


def is_cut(reply: Any) -> bool:  # noqa: ANN401 - any reply
    """Whether ids were forgotten before their time, to make room for this publication's."""
    return not isinstance(reply, NotifierError) and bool(reply[3])


def history_of(question: Question, reply: Any) -> History:  # noqa: ANN401 - any reply
    """Return the answer to one question about a topic."""
    topic = question.topic
    if isinstance(reply, Failed):
        return History(Position.unknown(), failure=reply)
    if isinstance(reply, Refused):
        # Followers of other topics are not affected; those of this one get a gap.
        _log.warning("redis_stream_unusable", topic=topic, reason=str(reply))
        return History(Position.unknown())
    if not reply:
        return History(NOWHERE)
    epoch, offset, lineage, entries, keys = reply
    epoch = epoch.decode()
    oldest_first = reversed(entries) if isinstance(question, Before) else entries
    publications = _publications(topic, epoch, oldest_first)
    newest = dict(zip(keys[::2], map(int, keys[1::2]), strict=True)) if keys else {}
    former = _lineage(lineage) if lineage else {}
    return History(Position(epoch, offset), publications, former, newest)


def _publications(topic: str, epoch: str, entries: Iterable[Any]) -> list[Publication]:
    publications: list[Publication] = []
    for entry, fields in entries:
        try:
            _, record, *_ = fields
            offset = int(entry.removesuffix(b"-0"))
            publications.append(Publication(topic, epoch, offset, record))
        except ValueError:
            # A stranger wrote it, so history reaches back to here.
            _log.warning("redis_foreign_entry", topic=topic)
            publications.clear()
    return publications


def _lineage(text: bytes) -> dict[str, int]:
    pairs = (each.partition(":") for each in text.decode().split())
    return {epoch: int(offset) for epoch, _, offset in pairs}
