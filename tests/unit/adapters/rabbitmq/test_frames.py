import pamqp.frame
import pytest
from aiormq import spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from notifier.adapters.rabbitmq import frames

CHANNEL = 7


def payload(frame: object) -> bytes:
    """The bytes between a frame's head and its end, as another library writes it."""
    marshalled = pamqp.frame.marshal(frame, CHANNEL)  # type: ignore[arg-type]
    return marshalled[frames.HEAD.size : -1]


def unmarshalled(data: bytes) -> list[object]:
    """The frames in `data`, as another library reads them."""
    found: list[object] = []
    while data:
        consumed, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == CHANNEL
        found.append(frame)
        data = data[consumed:]
    return found


@pytest.mark.parametrize("key", ["", "user.42", "user.andré"])
@pytest.mark.parametrize("consumer", ["", "consumer"])
def test_of_a_delivery_tag_and_routing_key_are_read(key: str, consumer: str) -> None:
    delivery = spec.Basic.Deliver(consumer, 2**40, True, "notifier.events", key)  # noqa: FBT003

    assert frames.delivered(payload(delivery)) == (2**40, key.encode())


def test_of_a_content_header_the_size_and_the_properties_are_read() -> None:
    properties = spec.Basic.Properties(content_type="text/plain", headers={"a": 1})

    size, found = frames.content(payload(ContentHeader(0, 2**33, properties)))

    assert (size, found) == (2**33, properties.marshal())


@pytest.mark.parametrize("multiple", [True, False])
def test_confirms_are_read(multiple: bool) -> None:  # noqa: FBT001
    ack = payload(spec.Basic.Ack(2**40, multiple))
    nack = payload(spec.Basic.Nack(2**40, multiple))

    assert frames.confirmed(ack) == frames.confirmed(nack) == (2**40, multiple)


@pytest.mark.parametrize("up_to", [True, False])
def test_an_ack_is_of_one_or_of_all_up_to_the_tag(up_to: bool) -> None:  # noqa: FBT001
    [ack] = unmarshalled(frames.ack(CHANNEL, 2**40, up_to=up_to))

    assert isinstance(ack, spec.Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (2**40, up_to)


@pytest.mark.parametrize("exchange", ["notifier.events", "notifier.returns"])
@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 300_000])
def test_another_library_reads_a_publication(size: int, exchange: str) -> None:
    properties = spec.Basic.Properties(content_type="text/plain", message_id="1")
    method = frames.address(exchange, "user.42")

    publish, header, *bodies = unmarshalled(
        frames.publication(CHANNEL, method, properties.marshal(), b"x" * size)
    )

    assert isinstance(publish, spec.Basic.Publish)
    assert (publish.exchange, publish.routing_key) == (exchange, "user.42")
    assert (publish.mandatory, publish.immediate) == (True, False)
    assert isinstance(header, ContentHeader)
    assert header.body_size == size
    assert dict(header.properties) == dict(properties)
    parts = [body.value for body in bodies if isinstance(body, ContentBody)]
    assert b"".join(part or b"" for part in parts) == b"x" * size
    assert max((len(part or b"") for part in parts), default=0) <= 131_072 - 8


def test_a_publication_keeps_to_smaller_frames_where_they_are_agreed_on() -> None:
    sent = frames.publication(CHANNEL, frames.address("e", "k"), b"\0\0", b"x" * 10_000, 4096)

    bodies = [body.value for body in unmarshalled(sent) if isinstance(body, ContentBody)]
    assert [len(body or b"") for body in bodies] == [4088, 4088, 1824]


@pytest.mark.parametrize(
    ("proposed", "agreed"), [(0, 131_072), (2**31, 131_072), (131_072, 131_072), (4096, 4096)]
)
def test_larger_frames_than_the_usual_are_not_agreed_to(proposed: int, agreed: int) -> None:
    tune = pamqp.frame.marshal(spec.Connection.Tune(2047, proposed, 60), 0)

    changed, most = frames.tuned(tune)

    _, _, found = pamqp.frame.unmarshal(changed)
    assert isinstance(found, spec.Connection.Tune)
    assert (found.channel_max, found.frame_max, found.heartbeat) == (2047, agreed, 60)
    assert most == agreed


def test_a_text_over_255_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        frames.address("notifier.events", "é" * 128)


def test_a_heartbeat_is_one() -> None:
    assert pamqp.frame.marshal(Heartbeat(), 0) == frames.HEARTBEAT
