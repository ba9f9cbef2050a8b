"""Entries of the event queue: an api makes them of events, a router reads events from them."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from urllib.parse import quote

import msgspec

from notifier.core import events, uris
from notifier.core.errors import Invalid
from notifier.core.events import Event
from notifier.core.ingress import Body, parts_of
from notifier.core.names import EVERYONE, is_personal, user_of
from notifier.core.publications import hex_digest_of, key_of
from notifier.core.routing import topics_of

# The content type of entries that an api puts: each event is accepted, complete, within bounds.
ACCEPTED = "application/vnd.notifier.event+json"
# in bytes; no form of entry has a larger body
LARGEST_ENTRY_BODY = max(events.LARGEST_ENTRY + events.LARGEST_AUDIENCE, events.LARGEST_BATCH)
_NO_AUDIENCE = (
    "no audience: give users, topic or everyone in the body, "
    "or a routing key user.ID, topic.NAME or everyone"
)
# Of the AMQP binding, and of the one for RabbitMQ. The names behind it are in any case, too.
_PREFIX = re.compile("cloudEvents[:_]|ce-", re.IGNORECASE)


class Entry(msgspec.Struct, frozen=True):
    """A message of the event queue: a body, with its properties and headers beside it.

    `accepted` is the moment of acceptance in Unix seconds, 0.0 where the producer gave none.
    """

    body: bytes
    routing_key: str = ""
    content_type: str = ""
    headers: Mapping[str, object] = msgspec.field(default_factory=dict)
    message_id: str = ""
    app_id: str = ""
    type: str = ""
    accepted: float = 0.0
    content_encoding: str = ""


def entry_of(event: Event, accepted: float, content_type: str = ACCEPTED) -> Entry:
    """Make the entry that hands a complete event over to the routers."""
    return Entry(events.encode(event), routing_key_of(event), content_type, accepted=accepted)


def routing_key_of(event: Event) -> str:
    """Return the key that decides on the partition: one topic always has the same one.

    An event for several users has a key of its own, so that such events spread over partitions.
    """
    topics = topics_of(event)
    if len(topics) > 1:
        return f"users.{key_of(event)}"
    if is_personal(topics[0]):
        return f"user.{user_of(topics[0])}"
    return EVERYONE if topics[0] == EVERYONE else f"topic.{topics[0]}"


def events_of(entry: Entry, now: float) -> list[Event]:
    """Read the events of an entry; raises Invalid.

    A body is one event. It is several with `application/cloudevents-batch+json`, or as a JSON
    array under a routing key that names no audience. An event without an id gets one from the
    entry's message id, so a redelivery has the same id. `now` is in Unix seconds.
    """
    source = _source_of(entry.app_id)
    accepted = entry.accepted or now
    traceparent = entry.headers.get("traceparent")
    found = _read(entry)
    for index, event in enumerate(found):
        if not event.has_audience:
            raise Invalid("users", _NO_AUDIENCE)
        id_beside = _id_of(entry.message_id, index, len(found))
        traced = events.with_traceparent(event, traceparent)
        found[index] = events.completed(traced, source=source, now=accepted, id_beside=id_beside)
    return found


@lru_cache(100)  # a producer's entries have the same one
def _source_of(app_id: str) -> str:
    source = app_id or "amqp"
    return source if uris.is_reference(source) else quote(source, safe="")


def _read(entry: Entry) -> list[Event]:
    if entry.content_type == ACCEPTED:
        return [events.decode(entry.body, events.LARGEST_ENTRY)]
    body = Body(
        entry.body,
        entry.content_type,
        entry.content_encoding,
        attributes_in(entry.headers),
        audience_of(entry.routing_key),
        "routing key",
        entry.type,
    )
    parts = parts_of(body)
    if not parts.is_batch:
        return [parts.read(each) for each in parts.bodies]
    return [_at(index, parts.read, each) for index, each in enumerate(parts.bodies)]


def _at(index: int, read: Callable[[bytes], Event], item: bytes) -> Event:
    try:
        return read(item)
    except Invalid as error:
        raise type(error)(f"[{index}].{error.field}".rstrip("."), error.reason) from error


def attributes_in(headers: Mapping[str, object]) -> dict[str, object]:
    """Return the CloudEvents attributes among AMQP headers, their prefix taken off.

    Raises Invalid for an attribute that two headers give different values.
    """
    found: dict[str, object] = {}
    for name, value in headers.items():
        if not (prefix := _PREFIX.match(name)):
            continue
        attribute = name[prefix.end() :].lower()
        if attribute in found and found[attribute] != value:
            raise Invalid(attribute, "stands in two headers with different values; send it once")
        found[attribute] = value
    return found


def audience_of(routing_key: str) -> dict[str, object]:
    """Return the audience that a routing key names, as members of an event; empty for none.

    They are not checked: an audience in the body comes before it.
    """
    kind, separator, name = routing_key.partition(".")
    if routing_key == EVERYONE:
        return {"everyone": True}
    if kind == "user" and separator:
        return {"users": [name]}
    if kind == "topic" and separator:
        return {"topic": name}
    return {}


def _id_of(message_id: str, index: int, count: int) -> str:
    # The id that a body would have given, where it may be one; each event of a batch needs its own.
    if not message_id or (count == 1 and events.is_word(message_id)):
        return message_id
    return hex_digest_of(f"{message_id} {index}")
