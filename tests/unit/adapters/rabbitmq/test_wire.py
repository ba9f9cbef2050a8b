"""The wire, fed with bytes as RabbitMQ sends them; the loop's own transport is never needed."""

import asyncio
from itertools import pairwise

import pamqp.frame
import pytest
from aiormq import spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from notifier.adapters.rabbitmq import frames, properties
from notifier.adapters.rabbitmq.deliveries import Deliveries, Message
from notifier.adapters.rabbitmq.wire import Wire
from notifier.core.errors import TooLarge
from tests.support.clock import in_virtual_time, pass_time

HOT, COLD = 7, 8


def frame(content: object, channel: int) -> bytes:
    return bytes(pamqp.frame.marshal(content, channel))  # type: ignore[arg-type]


def delivered(tag: int, body: bytes, channel: int = HOT, parts: int = 1) -> bytes:
    size = -(-len(body) // parts)
    starts = range(0, len(body), size or 1)
    return b"".join(
        (
            frame(spec.Basic.Deliver("c", tag, False, "", f"key {tag}"), channel),  # noqa: FBT003
            frame(ContentHeader(0, len(body), spec.Basic.Properties(app_id="shop")), channel),
            *(frame(ContentBody(body[at : at + size]), channel) for at in starts),
        )
    )


class Taken:
    """A wire with one channel that is claimed."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.wire = Wire()
        self.deliveries = Deliveries(self.wire, HOT, self.messages.append)

    @property
    def told(self) -> list[tuple[int, bytes, bytes]]:
        return [(each.tag, each.routing_key, each.body) for each in self.messages]

    async def cold(self) -> bytes:
        """The bytes that were left to aiormq."""
        self.wire.reader.feed_eof()
        return await self.wire.reader.read()


BODIES = [b"", b"one", b"x" * 10_000]
EXPECTED = [(tag, b"key %d" % tag, body) for tag, body in enumerate(BODIES)]


@pytest.mark.parametrize("parts", [1, 3])
async def test_deliveries_arrive_whole_and_in_order(parts: int) -> None:
    it = Taken()

    it.wire.data_received(
        b"".join(delivered(tag, body, parts=parts) for tag, body in enumerate(BODIES))
    )

    assert it.told == EXPECTED


@pytest.mark.parametrize("step", [1, 7, 100, 1000])
async def test_it_does_not_matter_where_tcp_cuts(step: int) -> None:
    it, sent = Taken(), b"".join(delivered(tag, body) for tag, body in enumerate(BODIES))

    for start, end in pairwise([*range(0, len(sent), step), len(sent)]):
        it.wire.data_received(sent[start:end])

    assert it.told == EXPECTED


async def test_methods_of_a_claimed_channel_are_left_to_aiormq() -> None:
    it = Taken()
    consume_ok = frame(spec.Basic.ConsumeOk("c"), HOT)
    close = frame(spec.Channel.Close(404, "gone", 0, 0), HOT)

    it.wire.data_received(consume_ok + delivered(1, b"one") + close)

    assert it.told == [(1, b"key 1", b"one")]
    assert await it.cold() == consume_ok + close


async def test_channels_that_nobody_claimed_are_left_to_aiormq() -> None:
    it = Taken()

    it.wire.data_received(delivered(1, b"one", COLD) + delivered(2, b"two"))

    assert [tag for tag, *_ in it.told] == [2]
    assert await it.cold() == delivered(1, b"one", COLD)


async def test_deliveries_after_closing_are_dropped() -> None:
    it = Taken()

    it.deliveries.close()
    it.wire.data_received(delivered(1, b"one"))

    assert it.told == []


async def test_a_body_without_a_delivery_is_dropped() -> None:
    it = Taken()

    it.wire.data_received(frame(ContentBody(b"half"), HOT) + delivered(1, b"one"))

    assert it.told == [(1, b"key 1", b"one")]


async def test_another_version_of_amqp_is_left_to_aiormq() -> None:
    it = Taken()

    it.wire.data_received(b"AMQP\x00\x00\x09\x01")

    assert await it.cold() == b"AMQP\x00\x00\x09\x01"


async def test_deliveries_alone_keep_aiormq_from_missing_heartbeats() -> None:
    it = Taken()

    it.wire.data_received(delivered(1, b"one"))
    it.wire.data_received(delivered(2, b"two"))  # at once: once a second is enough

    assert await it.cold() == b"\x08\x00\x00\x00\x00\x00\x00\xce"


async def test_that_rabbitmq_blocks_is_heard_of_and_told_to_aiormq() -> None:
    it, heard = Taken(), list[str]()
    it.wire.on_trouble = heard.append
    blocked = frame(spec.Connection.Blocked("low on memory"), 0)
    unblocked = frame(spec.Connection.Unblocked(), 0)

    it.wire.data_received(blocked)
    while_blocked = it.wire.is_blocked
    it.wire.data_received(unblocked)

    assert (while_blocked, it.wire.is_blocked, len(heard)) == (True, False, 1)
    assert await it.cold() == blocked + unblocked


async def test_a_writer_waits_for_room_until_there_is_some_or_the_connection_is_lost() -> None:
    for happens in ("resume_writing", "connection_lost"):
        wire = Wire()
        wire.pause_writing()
        waiting = asyncio.ensure_future(wire.has_room())
        await asyncio.sleep(0)
        before = waiting.done()

        if happens == "resume_writing":
            wire.resume_writing()
        else:
            wire.connection_lost(None)

        await asyncio.wait_for(waiting, 5)
        assert not before


async def test_larger_frames_are_not_agreed_to() -> None:
    it = Taken()

    it.wire.data_received(frame(spec.Connection.Tune(2047, 0, 60), 0))

    assert it.wire.frame_max == 131_072
    assert await it.cold() == frame(spec.Connection.Tune(2047, 131_072, 60), 0)


@pytest.mark.parametrize("step", [1000, 65_536, 262_144, 10_000_000])
async def test_of_properties_over_the_largest_frame_no_more_is_kept(step: int) -> None:
    it = Taken()
    large = spec.Basic.Properties(headers={"x": bytearray(5_000_000)})
    sent = b"".join(
        (
            frame(spec.Basic.Deliver("c", 1, False, "", "key 1"), HOT),  # noqa: FBT003
            frame(ContentHeader(0, 3, large), HOT),
            frame(ContentBody(b"one"), HOT),
            delivered(2, b"two"),
        )
    )

    for start, end in pairwise([*range(0, len(sent), step), len(sent)]):
        it.wire.data_received(sent[start:end])
        assert len(it.wire._rest) <= 131_072 + step  # noqa: SLF001  # no surface tells of kept bytes

    assert it.told == [(1, b"key 1", b"one"), (2, b"key 2", b"two")]
    with pytest.raises(TooLarge, match="at most 131052 bytes"):
        properties.entry_of(b"key 1", it.messages[0].properties, b"one")


@pytest.mark.parametrize(
    ("kind", "channel"), [(1, HOT), (3, HOT), (2, COLD), (1, 0), (8, 0)], ids=str
)
async def test_any_other_frame_over_the_bound_ends_the_connection(kind: int, channel: int) -> None:
    it, heard = Taken(), list[str]()
    it.wire.on_trouble = heard.append
    socket = Socket()
    it.wire.connection_made(socket)

    it.wire.data_received(frames.HEAD.pack(kind, channel, 2**32 - 1) + b"x" * 1000)

    assert socket.is_aborted
    assert "4294967295 bytes" in heard[0]


class Socket(asyncio.Transport):
    """A transport that notes whether it is read."""

    is_read = True
    is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def is_closing(self) -> bool:
        return False


@in_virtual_time
async def test_while_reading_is_paused_aiormq_misses_no_heartbeats() -> None:
    wire, socket = Wire(), Socket()
    wire.connection_made(socket)

    wire.pause_reading()
    await pass_time(10)
    while_paused = socket.is_read
    wire.resume_reading()
    await pass_time(10)

    assert (while_paused, socket.is_read) == (False, True)
    wire.reader.feed_eof()
    assert await wire.reader.read() == b"\x08\x00\x00\x00\x00\x00\x00\xce" * 11


@in_virtual_time
async def test_a_connection_that_is_lost_while_reading_is_paused_beats_no_more() -> None:
    wire = Wire()
    wire.connection_made(Socket())
    wire.pause_reading()

    wire.connection_lost(None)
    await pass_time(10)
    wire.resume_reading()

    assert await wire.reader.read() == b"\x08\x00\x00\x00\x00\x00\x00\xce"
