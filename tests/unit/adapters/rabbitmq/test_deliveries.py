"""Deliveries, fed with the payloads of frames; and how much of them is held."""

import struct

import pytest
from aiormq import spec

from notifier.adapters.rabbitmq import frames
from notifier.adapters.rabbitmq.deliveries import (
    KEPT_OF_LARGER,
    MOST_HELD,
    MOST_HELD_LONG,
    Deliveries,
    Message,
    UnsettledBytes,
)
from notifier.adapters.rabbitmq.wire import Wire
from notifier.core.entries import LARGEST_ENTRY_BODY
from tests.support.clock import in_virtual_time, pass_time

PIECE = b"x" * 100_000


class Told:
    """Deliveries, and those of them that arrived."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.deliveries = Deliveries(Wire(), 1, self.messages.append)

    def begin(self, size: int, properties: bytes = b"\0\0") -> None:
        method = spec.Basic.Deliver("c", 1, False, "", "user.42")  # noqa: FBT003
        self.deliveries.on_method(frames.DELIVER, b"\0\x3c\0\x3c" + method.marshal())
        self.deliveries.on_header(struct.pack(">HHQ", 60, 0, size) + properties)


async def test_of_the_largest_body_that_may_be_all_is_kept() -> None:
    it = Told()
    it.begin(LARGEST_ENTRY_BODY)

    it.deliveries.on_body(b"x" * (LARGEST_ENTRY_BODY - 1))
    before = len(it.messages)
    it.deliveries.on_body(b"y")

    [message] = it.messages
    assert before == 0
    assert (len(message.body), message.body[-1:], message.size) == (
        LARGEST_ENTRY_BODY,
        b"y",
        LARGEST_ENTRY_BODY,
    )


@pytest.mark.parametrize("size", [LARGEST_ENTRY_BODY + 1, 20_000_000])
async def test_of_a_larger_body_the_beginning_is_kept_and_its_size(size: int) -> None:
    it = Told()
    it.begin(size)

    for start in range(0, size, len(PIECE)):
        assert it.messages == []
        it.deliveries.on_body(PIECE[: size - start])

    [message] = it.messages
    assert (len(message.body), message.size) == (KEPT_OF_LARGER, size)


async def test_a_body_that_never_ends_keeps_no_more_and_the_next_delivery_begins_anew() -> None:
    it = Told()
    it.begin(2**63)

    for _ in range(100):
        it.deliveries.on_body(PIECE)
    kept = sum(map(len, it.deliveries._parts))  # noqa: SLF001  # nobody else ever sees it
    it.begin(3)
    it.deliveries.on_body(b"one")

    assert kept == KEPT_OF_LARGER
    assert [message.body for message in it.messages] == [b"one"]


async def test_more_body_than_was_announced_is_dropped() -> None:
    it = Told()
    it.begin(3)

    it.deliveries.on_body(b"one")
    it.deliveries.on_body(b"two")
    it.begin(0)
    it.deliveries.on_body(b"three")

    assert [message.body for message in it.messages] == [b"one", b""]


async def test_of_a_closed_channel_nothing_is_kept() -> None:
    it = Told()
    it.begin(10)

    it.deliveries.on_body(b"half ")
    it.deliveries.close()
    it.deliveries.on_body(b"a loaf")
    it.begin(3)
    it.deliveries.on_body(b"one")

    assert it.messages == []


# How much is held.


class Paused(Wire):
    """A wire that notes whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = True

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


def of(wire: Wire, size: int) -> Message:
    message = Message(Deliveries(wire, 1, lambda _: None), 1, b"")
    message.body = bytes(size)
    return message


@in_virtual_time
async def test_a_connection_over_the_bound_is_not_read_until_half_is_settled() -> None:
    wire, held = Paused(), UnsettledBytes()
    messages = [of(wire, MOST_HELD // 4) for _ in range(4)]

    for message in messages[:3]:
        held.add(message, wire)
    before = wire.is_read
    held.add(messages[3], wire)
    full = (wire.is_read, held.is_full)
    held.remove(messages[:2])
    still = wire.is_read
    held.remove(messages[2:3])

    assert (before, full, still) == (True, (False, True), False)
    assert (wire.is_read, held.is_full) == (True, False)


@in_virtual_time
async def test_a_pause_that_lasts_is_interrupted_for_one_more_until_far_more_is_held() -> None:
    wire, held, breaths = Paused(), UnsettledBytes(), 0
    held.add(of(wire, MOST_HELD), wire)

    while held.bytes < MOST_HELD_LONG:
        await pass_time(30)  # in which RabbitMQ would cut a connection that takes nothing
        assert wire.is_read
        held.add(of(wire, LARGEST_ENTRY_BODY), wire)
        assert not wire.is_read
        breaths += 1
    await pass_time(3600)

    assert breaths > 30
    assert not wire.is_read


@in_virtual_time
async def test_bytes_held_from_an_earlier_connection_count_on_the_next() -> None:
    held, before, after = UnsettledBytes(), Paused(), Paused()
    held.add(of(before, MOST_HELD), before)

    held.add(of(after, 1), after)

    assert not after.is_read


@in_virtual_time
async def test_while_an_answer_is_awaited_reading_goes_on_past_the_bound() -> None:
    wire, held = Paused(), UnsettledBytes()
    held.add(of(wire, MOST_HELD), wire)

    with held.reading():
        held.add(of(wire, 1), wire)
        meanwhile = wire.is_read
    held.add(of(wire, 1), wire)

    assert (meanwhile, wire.is_read) == (True, False)
