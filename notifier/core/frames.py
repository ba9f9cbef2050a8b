"""The frames of the client protocol, version 1: one type each, a union per direction."""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from notifier.core.bounded_json import TOO_DEEP, is_too_deep, named, not_json, read_json
from notifier.core.errors import Invalid, TooLarge
from notifier.core.publications import Publication

LARGEST_FRAME = 64 * 1024
MOST_READ_ONLY = 100
# JavaScript's largest exact integer: a larger id would come back as another one.
RequestId = Annotated[int, Meta(ge=0, le=2**53 - 1)] | Annotated[str, Meta(max_length=64)]


class _ClientFrame(Struct, frozen=True, tag_field="type"):
    pass


class Subscribe(_ClientFrame, frozen=True, tag="subscribe"):
    """Follow `topic`, from the position `since` if there is one."""

    topic: str
    id: RequestId | None = None
    since: str | None = None


class Unsubscribe(_ClientFrame, frozen=True, tag="unsubscribe"):
    """Follow `topic` no longer."""

    topic: str
    id: RequestId | None = None


class Authenticate(_ClientFrame, frozen=True, tag="auth"):
    """Authenticate by a token, or renew the session before its token expires."""

    token: str
    id: RequestId | None = None

    def __repr__(self) -> str:  # a token must not end up in a log
        return f"<Authenticate {self.id}>"


class Ping(_ClientFrame, frozen=True, tag="ping"):
    """Ask for a `pong`."""


class Mark(_ClientFrame, frozen=True, tag="mark"):
    """Say how far the user has read or received `topic`, which is the personal one if left out.

    `read` and `received` are positions up to which all is; `read_only` has single ones.
    """

    topic: str | None = None
    read: str | None = None
    received: str | None = None
    read_only: Annotated[list[str], Meta(max_length=MOST_READ_ONLY)] = []
    id: RequestId | None = None


class Publish(_ClientFrame, frozen=True, tag="publish"):
    """Publish an event to `topic`; an `ephemeral` one only reaches those who follow it now.

    `event` is JSON of the members that `notifier.core.publishing` takes.
    """

    topic: str
    event: Raw
    ephemeral: bool = False
    id: RequestId | None = None


ClientFrame = Subscribe | Unsubscribe | Authenticate | Ping | Mark | Publish


class _ServerFrame(Struct, frozen=True, omit_defaults=True, tag_field="type"):
    pass


class Start(Struct, frozen=True, omit_defaults=True):
    """A client's position in a topic: the one that it gave, or else the stream's.

    `resumed` is absent when it gave none, and False when a `gap` with the new position follows.
    """

    position: str
    resumed: bool | UnsetType = UNSET


class Hello(_ServerFrame, frozen=True, tag="hello"):
    """The session has begun; `heartbeat` is in seconds."""

    session: str
    user: str
    heartbeat: float
    time: str
    topics: dict[str, Start]


class Subscribed(_ServerFrame, frozen=True, tag="subscribed"):
    """The topic is followed."""

    topic: str
    position: str
    id: RequestId | UnsetType = UNSET
    resumed: bool | UnsetType = UNSET


class Unsubscribed(_ServerFrame, frozen=True, tag="unsubscribed"):
    """The topic is followed no longer."""

    topic: str
    id: RequestId | UnsetType = UNSET


class Gap(_ServerFrame, frozen=True, tag="gap"):
    """The client missed publications before `position`, and must fetch its state anew.

    `reason` is `expired` (history no longer reaches back), `restarted` (another epoch) or `lost`
    (history ends before the client's position).
    """

    topic: str
    position: str
    reason: str


class Marked(_ServerFrame, frozen=True, tag="marked"):
    """The answer to `mark`: the user's mark in the topic, as positions."""

    topic: str
    read: str | UnsetType = UNSET
    received: str | UnsetType = UNSET
    id: RequestId | UnsetType = UNSET


class Marks(_ServerFrame, frozen=True, tag="marks"):
    """How far the user has read a topic, on any device, and how many events are unread.

    `more` is True when the mark lies behind history's end: there may be others.
    """

    topic: str
    unread: int
    read: str | UnsetType = UNSET
    read_only: list[str] | UnsetType = UNSET
    more: bool | UnsetType = UNSET


class Published(_ServerFrame, frozen=True, tag="published"):
    """The answer to `publish`: the event's position, which an ephemeral one has not.

    A repeated one has none either once its topic no longer holds it.
    """

    position: str | UnsetType = UNSET
    id: RequestId | UnsetType = UNSET


class Presence(_ServerFrame, frozen=True, tag="presence"):
    """The members of a topic, or how they changed; of more than are told, `count` alone.

    `members` are all of them; `joined` and `left` changed since the topic's last frame.
    """

    topic: str
    count: int
    members: list[str] | UnsetType = UNSET
    joined: list[str] | UnsetType = UNSET
    left: list[str] | UnsetType = UNSET


class Authenticated(_ServerFrame, frozen=True, tag="authenticated"):
    """The token was accepted; the session lasts until `expires`."""

    expires: str
    id: RequestId | UnsetType = UNSET


class Error(_ServerFrame, frozen=True, tag="error"):
    """A frame was refused; the connection stays."""

    code: str
    message: str
    id: RequestId | UnsetType = UNSET


class Pong(_ServerFrame, frozen=True, tag="pong"):
    """The answer to `ping`."""


class Relayed(NamedTuple):
    """A frame that is encoded once for all its clients, such as one that came as a signal."""

    name: str
    text: bytes


class Bye(_ServerFrame, frozen=True, tag="bye"):
    """The connection is about to be closed with `code`."""

    code: int
    reason: str
    reconnect_after_ms: int | UnsetType = UNSET


ServerFrame = (
    Hello
    | Subscribed
    | Unsubscribed
    | Gap
    | Marked
    | Marks
    | Published
    | Presence
    | Authenticated
    | Error
    | Pong
    | Bye
    | Relayed
)

_decoder: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
_encoder = msgspec.json.Encoder()
_RULES = {
    "id": "must be a whole number from 0 to 2^53 - 1, or text of at most 64 characters",
    "read_only": f"must be a list of at most {MOST_READ_ONLY} positions",
}
_mark_decoder = msgspec.json.Decoder(Mark)
_publish_decoder = msgspec.json.Decoder(Publish)


class _WithId(Struct):
    id: RequestId | UnsetType = UNSET


def decode(text: bytes) -> ClientFrame:
    """Read a client's frame; raises Invalid. Unknown members are ignored."""
    if len(text) > LARGEST_FRAME:
        raise TooLarge("", f"a frame has at most {LARGEST_FRAME} bytes")
    if is_too_deep(text):
        raise Invalid("", TOO_DEEP)
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        invalid = named(error, _RULES)
        if invalid.field == "type":
            raise Invalid(
                "type", "must be subscribe, unsubscribe, auth, ping, mark or publish"
            ) from error
        raise invalid from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("", not_json(error, text)) from error


def decode_mark(body: bytes) -> Mark:
    """Read a `mark` frame that stands alone, so its type may be left out; raises Invalid."""
    return read_json(body, _mark_decoder, LARGEST_FRAME, _RULES)


def decode_publish(body: bytes) -> Publish:
    """Read a `publish` frame that stands alone, so its type may be left out; raises Invalid."""
    return read_json(body, _publish_decoder, LARGEST_FRAME, _RULES)


def request_id_in(text: bytes) -> RequestId | UnsetType:
    """Return the id of a frame that cannot be decoded, so that its sender can match the error."""
    if is_too_deep(text):
        return UNSET
    try:
        return msgspec.json.decode(text, type=_WithId).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNSET


def encode(frame: ServerFrame) -> bytes:
    """Write a frame as JSON."""
    return frame.text if isinstance(frame, Relayed) else _encoder.encode(frame)


def type_of(frame: ServerFrame) -> str:
    """Return a frame's type, as its member `type` has it."""
    return frame.name if isinstance(frame, Relayed) else str(frame.__struct_config__.tag)


def event_frame(publication: Publication) -> bytes:
    """Write the `event` frame of a publication as JSON, around its encoded event."""
    epoch, offset = publication.epoch, publication.offset
    behind = '"ack":true,"event":' if publication.ack else '"event":'
    head = f'{{"type":"event","topic":"{publication.topic}","position":"{epoch}.{offset}",{behind}'
    return head.encode() + publication.event + b"}"


def relayed(frame: Presence) -> Relayed:
    """Write a frame once for all its clients."""
    return Relayed(type_of(frame), _encoder.encode(frame))


EPHEMERAL = "ephemeral"


def ephemeral_frame(topic: str, event: bytes) -> bytes:
    """Write the `ephemeral` frame of an event in `topic`, which has no position."""
    return b'{"type":"ephemeral","topic":"%s","event":%s}' % (topic.encode(), event)


def listed_frame(publication: Publication, *, read: bool) -> bytes:
    """Write the `event` frame of a list, which says whether the user has read it."""
    flag = b'{"type":"event","read":%s,' % (b"true" if read else b"false")
    return flag + event_frame(publication).removeprefix(b'{"type":"event",')
