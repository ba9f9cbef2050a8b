"""Publications: one event in one topic's stream, at a position; and how the broker carries them."""

from datetime import datetime
from hashlib import blake2b

from msgspec import UNSET, Struct

from notifier.core import events
from notifier.core.events import Event
from notifier.core.positions import Position
from notifier.core.routing import topics_of

_END_OF_9999 = 253_402_300_799_999  # in Unix milliseconds


class NewPublication(Struct, frozen=True):
    """One event on its way into one topic.

    Deduplication compares `key` (32 hexadecimal digits), history keeps `record`,
    and of those with one `collapse_key` a client that comes back gets the newest only.
    """

    topic: str
    key: str
    record: bytes
    collapse_key: str = ""


def key_of(event: Event) -> str:
    """Return the deduplication key of an event: of its source and id."""
    return hex_digest_of(event.identity)


def hex_digest_of(text: str) -> str:
    """Return 32 hexadecimal digits that stand for a text, such as an identity."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def record_of(event: Event, accepted: float) -> bytes:
    """Write a record: `accepted:expires:collapse_key`, a line end, and the event.

    Times are Unix milliseconds, 0 meaning never; `+` stands before `accepted` where clients are to
    mark the event received. The gateway reads the first line and copies the
    rest: it never parses an event.
    """
    expires = 0 if event.expires is UNSET else milliseconds(event.expires)
    ack = "+" if event.wants_ack else ""
    head = f"{ack}{int(accepted * 1000)}:{expires}:{event.collapse_key or ''}\n"
    return head.encode() + events.delivered(event)


def milliseconds(moment: datetime) -> int:
    """Return a moment as Unix milliseconds, at least 1: 0 stands for none.

    A zone can put one behind the year 9999, where UTC has no date to write it as.
    """
    return min(max(1, int(moment.timestamp() * 1000)), _END_OF_9999)


def publications_of(event: Event, accepted: float) -> list[NewPublication]:
    """Return one publication for each topic of a complete event; all share one encoded record."""
    key, record, collapse_key = key_of(event), record_of(event, accepted), event.collapse_key or ""
    return [NewPublication(topic, key, record, collapse_key) for topic in topics_of(event)]


class Publication:
    """One event in one topic's stream; `event` is CloudEvents JSON on one line.

    With `ack`, clients are to mark it received.
    """

    __slots__ = (
        "_position",
        "accepted",
        "ack",
        "collapse_key",
        "epoch",
        "event",
        "expires",
        "offset",
        "topic",
    )

    def __init__(self, topic: str, epoch: str, offset: int, record: bytes) -> None:
        accepted, expires, rest = record.split(b":", 2)
        self.collapse_key, _, self.event = rest.partition(b"\n")
        self.topic = topic
        self.epoch = epoch
        self.offset = offset
        self._position: Position | None = None
        self.accepted = int(accepted)
        self.ack = accepted[:1] == b"+"
        self.expires = int(expires)

    def __repr__(self) -> str:
        return f"<Publication {self.topic} {self.position}>"

    @property
    def position(self) -> Position:
        """Its position, made when it is first asked for: a WebSocket never does."""
        if self._position is None:
            self._position = Position(self.epoch, self.offset)
        return self._position

    @property
    def silent(self) -> bool:
        """Whether it never counts as unread."""
        return self.event.startswith(events.SILENT)

    def is_of(self, identity: bytes) -> bool:
        """Whether its event has this identity, as `events.identity_of` writes it."""
        return self.event.startswith((events.PLAIN + identity, events.SILENT + identity))

    def expired(self, now: int) -> bool:
        """Whether it must not be delivered any more; `now` is in Unix milliseconds."""
        return 0 < self.expires <= now
