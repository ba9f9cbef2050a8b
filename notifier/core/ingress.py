"""Ingress: bodies over HTTP or AMQP, with headers and an audience beside them, become events."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from enum import Enum

import msgspec
from msgspec import Raw

from notifier.core import cloudevents, codings, events
from notifier.core.bounded_json import is_list, read_items, read_json, unmarked
from notifier.core.errors import Invalid, TooLarge, Unsupported
from notifier.core.event_rules import LONGEST_WORD
from notifier.core.events import Event

_AUDIENCE = frozenset({"users", "topic", "everyone"})
_DEFAULT_TYPE = "notification"
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
# An AMQP client states no content type, or its library gives the same one to every body.
_SAYS_NOTHING = frozenset({"", "application/octet-stream", "application/data"})
_LONGEST_SHOWN = 100


class _WithIdAlone(msgspec.Struct):
    id: str = ""


_with_id_alone = msgspec.json.Decoder(_WithIdAlone)
_objects = msgspec.json.Decoder(dict[str, Raw])


class Body(msgspec.Struct, frozen=True):
    """A body from any surface, with the headers and the audience beside it.

    `attributes`: those of a CloudEvent in binary mode.
    `audience`: members of `Event`, not checked yet; `audience_in` names their place in errors.
    Beside an audience, a body may be the data alone, of an event of `type`.
    `is_addressed`: only that audience counts; the body is data, or a CloudEvent that names none.
    `is_stated`: only the content type `application/json` makes a body JSON.
    """

    content: bytes
    content_type: str = ""
    content_encoding: str = ""
    attributes: Mapping[str, object] = msgspec.field(default_factory=dict)
    audience: Mapping[str, object] = msgspec.field(default_factory=dict)
    audience_in: str = ""
    type: str = ""
    is_addressed: bool = False
    is_stated: bool = False


class Form(Enum):
    """The form of an event in a body."""

    BINARY = "a CloudEvent, its attributes beside the data"
    STRUCTURED = "a CloudEvent in JSON"
    OWN = "notifier's own JSON, or a CloudEvent called application/json"


class Parts(msgspec.Struct, frozen=True):
    """A body taken apart into the `bodies` of its events."""

    body: Body
    form: Form
    bodies: list[bytes]
    is_batch: bool = False

    def read(self, content: bytes) -> Event:
        """Make an event of one of `bodies`; raises Invalid."""
        audience, event = self.body.audience, self._event_of(content)
        if not audience or event.has_audience:
            return event
        try:
            return events.addressed(event, audience)
        except Invalid as error:
            raise Invalid(self.body.audience_in or error.field, error.reason) from error

    def _event_of(self, content: bytes) -> Event:
        body = self.body
        if self.form is Form.BINARY:
            no_audience = _no_audience_of(body)
            return cloudevents.binary(body.attributes, body.content_type, content, no_audience)
        if self.form is Form.STRUCTURED or cloudevents.is_one(content):
            return cloudevents.structured(content, _no_audience_of(body))
        return _event_or_data(body, content) if body.audience else events.decode(content)


def parts_of(body: Body) -> Parts:
    """Decide on the form of a body, by its headers and then by its own members.

    Raises Unsupported for an unknown content type or coding; else Invalid.
    """
    media = _checked_media(body.content_type)
    content = codings.decoded(body.content, body.content_encoding, events.LARGEST_BODY)
    if media == cloudevents.BATCHED:
        return Parts(body, Form.STRUCTURED, items(content), is_batch=True)
    if media == cloudevents.STRUCTURED:
        return Parts(body, Form.STRUCTURED, [content])
    if body.attributes and not media.startswith("application/cloudevents"):
        return Parts(body, Form.BINARY, [content])
    if not _carries_json(media, is_stated=body.is_stated):
        raise Unsupported("content_type", f"{media[:_LONGEST_SHOWN]} {_WANTED}")
    if not body.audience and is_list(content):
        return Parts(body, Form.OWN, items(content), is_batch=True)
    return Parts(body, Form.OWN, [content])


_WANTED = (
    "carries no event; send application/json, or a CloudEvent: in binary mode its data may be "
    "of any type"
)


def _checked_media(content_type: str) -> str:
    media, _, parameters = content_type.partition(";")
    media = media.strip().lower()
    if not parameters:
        return media
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.partition("=")
        charset = value.strip().strip("\"'")
        is_text = _carries_json(media, is_stated=False) or media.startswith("application/cloud")
        if name.strip() == "charset" and is_text and charset not in _UTF8:
            raise Unsupported(
                "content_type", f"charset {charset[:_LONGEST_SHOWN]} is not taken; send UTF-8"
            )
    return media


def _carries_json(media: str, *, is_stated: bool) -> bool:
    if is_stated:
        return media == "application/json"
    if media in _SAYS_NOTHING or media == "application/json":
        return True
    return media.startswith("text/") or media.endswith("+json")


def _no_audience_of(body: Body) -> Collection[str]:
    """Return the attributes that name no audience: other systems have a `topic` of their own."""
    if body.is_addressed:
        return cloudevents.AUDIENCE
    return ("topic",) if body.audience else ()


def items(body: bytes) -> list[bytes]:
    """Split a JSON array into its items; raises Unreadable, Invalid without any, or TooLarge."""
    found = read_items(body, events.LARGEST_BATCH)
    if not found:
        raise Invalid("", "the batch is empty")
    if len(found) > events.MOST_IN_BATCH:
        raise TooLarge("", f"a batch has at most {events.MOST_IN_BATCH} events, not {len(found)}")
    return found


def id_in(content: bytes, attributes: Mapping[str, object]) -> str:
    """Return the id that a refused event came with, for the log; empty where none is found."""
    found = attributes.get("id")
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = found or _with_id_alone.decode(unmarked(content)).id
    return found[:LONGEST_WORD] if isinstance(found, str) else ""


def _event_or_data(body: Body, content: bytes) -> Event:
    """Read a body with the audience beside it: an event, or any JSON as an event's data."""
    if body.is_addressed:
        return _event_of_data(body, content)
    try:
        return events.decode(content)
    except Invalid:
        if _is_meant_as_event(content):
            raise
    return _event_of_data(body, content)


def _is_meant_as_event(content: bytes) -> bool:
    """Whether JSON names an audience, or has `type` and either `data` or no member but an event's.

    Anything else is data.
    """
    data = _data_in(content)
    if bytes(data)[:1] != b"{":
        return False
    members = _objects.decode(data).keys()
    known = "type" in members and ("data" in members or members <= set(Event.__struct_fields__))
    return known or not _AUDIENCE.isdisjoint(members)


def _event_of_data(body: Body, content: bytes) -> Event:
    kind = msgspec.json.encode(body.type or _DEFAULT_TYPE)
    return events.decode(b'{"type":' + kind + b',"data":' + bytes(_data_in(content)) + b"}")


def _data_in(content: bytes) -> Raw:
    most = events.LARGEST_EVENT + events.LARGEST_AUDIENCE  # `decode` knows the bounds better
    return read_json(content or b"null", events.RAW, most)
