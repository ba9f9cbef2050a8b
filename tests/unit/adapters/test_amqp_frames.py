import struct
from datetime import UTC, datetime

import pamqp.frame
import pytest
from aiormq import spec
from pamqp.header import ContentHeader

from notifier.adapters.amqp_frames import UNREADABLE, readable

CHANNEL = 7
METHOD, HEADER, BODY = 1, 2, 3


def delivery(routing_key: str) -> bytes:
    frame = spec.Basic.Deliver("consumer", 300, True, "notifier.events", routing_key)  # noqa: FBT003
    return pamqp.frame.marshal(frame, CHANNEL)


def header(**properties: object) -> bytes:
    content = spec.Basic.Properties(**properties)  # type: ignore[arg-type]
    return pamqp.frame.marshal(ContentHeader(0, 1234, content), CHANNEL)


def unmarshalled(frame: bytes) -> object:
    consumed, channel, content = pamqp.frame.unmarshal(frame)
    assert (consumed, channel) == (len(frame), CHANNEL)
    return content


@pytest.mark.parametrize("key", ["", "user.42", "user.andré"])
def test_a_readable_delivery_stays_as_it_is(key: str) -> None:
    assert readable(delivery(key), METHOD, CHANNEL) == delivery(key)


def test_readable_properties_stay_as_they_are() -> None:
    frame = header(message_id="42", timestamp=datetime.now(UTC))

    assert readable(frame, HEADER, CHANNEL) == frame


def test_other_frames_are_not_looked_at() -> None:
    assert readable(b"\xff" * 20, BODY, CHANNEL) == b"\xff" * 20


def test_what_is_no_text_in_a_routing_key_becomes_question_marks() -> None:
    frame = delivery("user.andre").replace(b"andre", b"andr\xe9")

    content = unmarshalled(readable(frame, METHOD, CHANNEL))

    assert isinstance(content, spec.Basic.Deliver)
    assert (content.routing_key, content.delivery_tag) == ("user.andr?", 300)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (struct.pack(">Q", 1_700_000_000), struct.pack(">Q", 1_700_000_000 * 10**9)),
        (struct.pack(">Q", 1_700_000_000), b"\xff" * 8),
        (b"text/plain", b"text/pl\xe9in"),
    ],
    ids=["nanoseconds", "end-of-time", "latin-1"],
)
def test_unreadable_properties_give_way_to_what_is_wrong_with_them(good: bytes, bad: bytes) -> None:
    sent = header(content_type="text/plain", timestamp=datetime.fromtimestamp(1_700_000_000, UTC))

    content = unmarshalled(readable(sent.replace(good, bad), HEADER, CHANNEL))

    assert isinstance(content, ContentHeader)
    assert content.body_size == 1234
    assert list(content.properties.headers or {}) == [UNREADABLE]
