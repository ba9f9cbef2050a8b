"""What came in, understood: bodies, headers and routing keys of every ingress become events."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec
from msgspec import UNSET, Raw

from notifier.core import cloudevents, events
from notifier.core.errors import Invalid, TooLarge
from notifier.core.events import Event
from notifier.core.names import (
    EVERYONE,
    LONGEST_NAME,
    checked_name,
    checked_topic,
    is_personal,
    user_of,
)
from notifier.core.publications import key_of
from notifier.core.routing import topics_of

# What an api puts: an event that was accepted within the producers' bounds, and completed.
ACCEPTED = "application/vnd.notifier.event+json"
_PREFIXES = ("cloudEvents:", "cloudEvents_")
_NOT_IN_SOURCE = re.compile(r"[\x00-\x20\x7f]")
_AUDIENCE = frozenset({"users", "topic", "everyone"})
_DEFAULT_TYPE = "notification"
_items = msgspec.json.Decoder(list[Raw])
_objects = msgspec.json.Decoder(dict[str, Raw])


@dataclass(frozen=True, slots=True)
class Entry:
    """What the event queue carries: a body and what stands beside it.

    `accepted` is the moment of acceptance in Unix seconds, 0.0 where the producer did not say.
    """

    body: bytes
    routing_key: str = ""
    content_type: str = ""
    headers: Mapping[str, object] = field(default_factory=dict)
    message_id: str = ""
    app_id: str = ""
    type: str = ""
    accepted: float = 0.0


def entry_of(event: Event, accepted: float) -> Entry:
    """Make the entry that hands a complete event over to the routers."""
    return Entry(events.encode(event), routing_key_of(event), ACCEPTED, accepted=accepted)


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
    """Understand what a delivery of the event queue carries; raises Invalid.

    One body is one event, or with `application/cloudevents-batch+json`, and as a JSON array under
    a routing key that names no audience, several. Missing ids are taken from the delivery's
    message id, so that a redelivery has the same ones.
    """
    source = _source_of(entry)
    accepted = entry.accepted or now
    traceparent = entry.headers.get("traceparent")
    found = [events.with_traceparent(event, traceparent) for event in _read(entry)]
    return [
        events.completed(
            _with_id(_with_audience(event, entry.routing_key), entry.message_id, index, len(found)),
            source=source,
            now=accepted,
        )
        for index, event in enumerate(found)
    ]


def _source_of(entry: Entry) -> str:
    return _NOT_IN_SOURCE.sub("_", entry.app_id) or "amqp"


def _read(entry: Entry) -> list[Event]:  # noqa: PLR0911 - a form each
    media = cloudevents.media_type(entry.content_type)
    if media == ACCEPTED:
        return [events.decode(entry.body, events.LARGEST_ENTRY)]
    if media == cloudevents.STRUCTURED:
        return [cloudevents.structured(entry.body)]
    if media == cloudevents.BATCHED:
        return _each(cloudevents.structured, entry.body)
    if attributes := attributes_in(entry.headers):
        return [cloudevents.binary(attributes, entry.content_type, entry.body)]
    if names_audience(entry.routing_key):
        return [_event_or_data(entry)]
    if entry.body.lstrip()[:1] == b"[":
        return _each(events.decode, entry.body)
    return [events.decode(entry.body)]


def _each(read: Callable[[bytes], Event], body: bytes) -> list[Event]:
    found = [_at(index, read, item) for index, item in enumerate(items(body))]
    if not found:
        raise Invalid("", "the batch is empty")
    return found


def _at(index: int, read: Callable[[bytes], Event], item: bytes) -> Event:
    try:
        return read(item)
    except Invalid as error:
        raise type(error)(f"[{index}].{error.field}".rstrip("."), error.reason) from error


def items(body: bytes) -> list[bytes]:
    """Split a JSON array into its items; raises Unreadable, or TooLarge past the batch's bounds."""
    found = events.read_json(body, _items, events.LARGEST_BATCH)
    if len(found) > events.MOST_IN_BATCH:
        raise TooLarge("", f"a batch has at most {events.MOST_IN_BATCH} events, not {len(found)}")
    return [bytes(item) for item in found]


def attributes_in(headers: Mapping[str, object]) -> dict[str, object]:
    """Return the CloudEvents attributes among AMQP headers, their prefix taken off."""
    return {
        name[len(prefix) :]: value
        for name, value in headers.items()
        for prefix in _PREFIXES
        if name.startswith(prefix)
    }


def names_audience(routing_key: str) -> bool:
    """Whether a routing key can stand for the audience."""
    kind, separator, _ = routing_key.partition(".")
    return routing_key == EVERYONE or (kind in ("user", "topic") and bool(separator))


def _event_or_data(entry: Entry) -> Event:
    """Read a body whose routing key names the audience: an event, or any JSON as an event's data.

    It is an event when it names an audience, when it has `type` and `data`, or when it has `type`
    and nothing that an event has not. Anything else is data.
    """
    most = events.LARGEST_EVENT + events.LARGEST_AUDIENCE  # `decode` knows the bounds better
    data = events.read_json(entry.body or b"null", events.RAW, most)
    members = _objects.decode(data).keys() if bytes(data)[:1] == b"{" else frozenset[str]()
    known = "type" in members and ("data" in members or members <= set(Event.__struct_fields__))
    if known or not _AUDIENCE.isdisjoint(members):
        return events.decode(entry.body)
    kind = msgspec.json.encode(entry.type or _DEFAULT_TYPE)
    return events.decode(b'{"type":' + kind + b',"data":' + bytes(data) + b"}")


def _with_audience(event: Event, routing_key: str) -> Event:
    if event.has_audience:
        return event
    kind, _, name = routing_key.partition(".")
    if routing_key == EVERYONE:
        return msgspec.structs.replace(event, everyone=True)
    if kind == "user":
        return msgspec.structs.replace(event, users=[checked_name(name, "routing key")])
    if kind == "topic":
        return msgspec.structs.replace(event, topic=checked_topic(name, "routing key"))
    raise Invalid(
        "users",
        "no audience: give users, topic or everyone in the body, "
        "or a routing key user.ID, topic.NAME or everyone",
    )


def _with_id(event: Event, message_id: str, index: int, count: int) -> Event:
    if event.id is not UNSET or not message_id:
        return event
    # A property has up to 255 bytes, an id 128 characters; each event of a batch needs its own.
    digest = blake2b(f"{message_id} {index}".encode(), digest_size=16).hexdigest()
    plain = count == 1 and len(message_id) <= LONGEST_NAME and message_id.isprintable()
    return msgspec.structs.replace(event, id=message_id if plain else digest)
