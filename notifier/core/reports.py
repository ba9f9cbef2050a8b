"""Delivery reports: how far an event has come towards one of its users, told to its producers."""

from enum import StrEnum

import msgspec
from msgspec import Raw, Struct

from notifier.core import events
from notifier.core.events import Event, Reference, Word
from notifier.core.publications import hex_digest_of


class Report(StrEnum):
    """How far an event came; the first three in this order. None follows one of the last four."""

    PUBLISHED = "published"
    RECEIVED = "received"
    READ = "read"
    EXPIRED = "expired"  # it was not received, and its time is over
    SUPERSEDED = "superseded"  # the same, and a later one of its collapse key is there
    BEYOND_HISTORY = "beyond_history"  # the stream lacks it: nothing later can be known


class Reported(Struct, frozen=True):
    """The data of a report: the user, and the event's source and id."""

    user: str
    source: Reference
    id: Word


class DeliveryReport(Struct, frozen=True):
    """A report on its way: CloudEvents JSON, whose `id` is the same each time that it comes."""

    kind: Report
    user: str
    body: bytes
    id: str


def report_of(event: Event, user: str, kind: Report, now: float) -> DeliveryReport:
    """Write a report about an event's way to a user; `now` is in Unix seconds."""
    name = hex_digest_of(f"{event.identity} {user} {kind}")
    about = Reported(user, str(event.source), str(event.id))
    told = Event(
        type=f"notifier.{kind}",
        id=name,
        subject=user,
        traceparent=event.traceparent,
        data=Raw(msgspec.json.encode(about)),
    )
    complete = events.completed(told, source="notifier", now=now)
    return DeliveryReport(kind, user, events.delivered(complete), name)
