"""Marks as clients send them, and the answers, on every surface."""

from msgspec import UNSET, UnsetType

from notifier.core import frames
from notifier.core.access import Identity
from notifier.core.errors import Invalid
from notifier.core.frames import RequestId
from notifier.core.marks import Mark, Move
from notifier.core.names import checked_topic, personal_topic
from notifier.core.positions import Position


def marked(topic: str, mark: Mark, request_id: RequestId | UnsetType) -> frames.Marked:
    """Return the answer to a client's `mark`."""
    read, received = (
        str(Position(mark.epoch, offset)) if offset else UNSET
        for offset in (mark.read, mark.received)
    )
    return frames.Marked(topic, read, received, request_id)


def move_of(identity: Identity, frame: frames.Mark) -> Move:
    """Return the move that a client's frame asks for; raises Invalid and Forbidden."""
    own = personal_topic(identity.user)
    topic = own if frame.topic is None else checked_topic(frame.topic, "topic")
    identity.check_topic(topic)
    if frame.read is None and frame.received is None and not frame.read_only:
        raise Invalid("read", "is missing: give one of read, read_only and received")
    return Move(
        identity.user,
        topic,
        None if frame.read is None else Position.parse(frame.read, "read"),
        None if frame.received is None else Position.parse(frame.received, "received"),
        tuple(
            Position.parse(text, f"read_only[{index}]")
            for index, text in enumerate(frame.read_only)
        ),
    )
