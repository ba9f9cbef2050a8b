"""Deliveries as they come in: bounds for the bytes of each, and of all of them.

The content header tells a body's size before its first byte. RabbitMQ's prefetch counts messages,
not bytes, and AMQP 0-9-1 has no other brake that RabbitMQ knows. So a router that holds enough
stops reading from the socket, which costs no message a delivery.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from notifier.adapters.rabbitmq import frames
from notifier.adapters.rabbitmq.errors import Lost
from notifier.adapters.rabbitmq.wire import Wire
from notifier.core.entries import LARGEST_ENTRY_BODY

MOST_HELD = 64 * 1024 * 1024  # bytes, of all messages that are not settled
MOST_HELD_LONG = 2 * MOST_HELD  # after minutes in which none was settled
_BREATH = 10  # seconds; RabbitMQ's listener has a `send_timeout` of 30
KEPT_OF_LARGER = 64 * 1024  # bytes, of a body over LARGEST_ENTRY_BODY
_OVERHEAD = 512  # bytes that a message takes beside its body and properties


class Message:
    """One delivery of a `source`. Of a body that is too large only the beginning is kept.

    `size` is the size of the whole body.
    """

    __slots__ = ("body", "properties", "routing_key", "size", "source", "tag")

    def __init__(self, source: "Deliveries", tag: int, routing_key: bytes) -> None:
        self.source = source
        self.tag = tag
        self.routing_key = routing_key
        self.properties = b""
        self.size = 0
        self.body = b""

    @property
    def memory(self) -> int:
        """Its bytes in memory, about."""
        return _OVERHEAD + len(self.properties) + len(self.body)


class UnsettledBytes:
    """The bytes of all messages that are not settled, over all connections.

    Past MOST_HELD the connection that brought the last message is not read, until half of them are
    settled. RabbitMQ cuts a connection that takes nothing for 30 seconds, and that counts as one
    delivery of all that was under way. So a pause that lasts is interrupted for one more message
    every ten seconds, up to MOST_HELD_LONG.
    """

    def __init__(self) -> None:
        self._limit = MOST_HELD
        self._paused: set[Wire] = set()
        self._breath: asyncio.TimerHandle | None = None
        self._awaited = 0  # answers of RabbitMQ's
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether a connection is not being read."""
        return bool(self._paused)

    def add(self, message: Message, wire: Wire) -> None:
        """Count a message that `wire` brought."""
        self.bytes += message.memory
        if self.bytes <= self._limit or self._awaited:
            return
        self._paused.add(wire)
        wire.pause_reading()
        if not self._breath:
            self._breath = asyncio.get_running_loop().call_later(_BREATH, self._breathe)

    def _breathe(self) -> None:
        self._breath = None
        if self.bytes < MOST_HELD_LONG:
            self._limit = self.bytes + LARGEST_ENTRY_BODY
            self._resume()

    def remove(self, messages: Iterable[Message]) -> None:
        """Stop counting a message that is settled or forgotten."""
        self.bytes -= sum([message.memory for message in messages])
        if self.bytes <= MOST_HELD // 2:
            self._limit = MOST_HELD
            self._resume()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read on while inside, past the bound: nothing is settled before RabbitMQ's answer."""
        self._awaited += 1
        self._resume()
        try:
            yield
        finally:
            self._awaited -= 1

    def _resume(self) -> None:
        for wire in self._paused:
            wire.resume_reading()
        self._paused.clear()


class Deliveries:
    """The deliveries of one channel, until that is closed."""

    def __init__(self, wire: Wire, channel: int, arrive: Callable[[Message], None]) -> None:
        self.wire = wire
        self._channel = channel
        self._arrive = arrive
        self._message: Message | None = None
        self._to_come = 0  # bytes of the body, kept or not
        self._to_keep = 0
        self._parts: list[bytes] = []
        self._is_closed = False
        wire.claim(channel, self)

    def ack(self, *tags: int, up_to: bool) -> None:
        """Ack these, or all `up_to` them too; raises Lost when that can no longer be."""
        if not self.is_open:
            raise Lost("the connection was lost")
        acks = (frames.ack(self._channel, tag, up_to=up_to) for tag in tags)
        self.wire.write(b"".join(acks))

    @property
    def is_open(self) -> bool:
        """Whether they are this router's to ack, as far as is known here."""
        return not self._is_closed and self.wire.is_open

    def close(self) -> None:
        """Let nothing arrive any more."""
        self._is_closed = True
        self._message = None
        self._parts.clear()

    # Called by the wire; see FrameHandler.

    def on_method(self, method: int, payload: bytes) -> None:
        """Begin a message."""
        if method == frames.DELIVER and not self._is_closed:
            self._message = Message(self, *frames.delivered(payload))
            self._to_come = 0

    def on_header(self, payload: bytes) -> None:
        """Take the properties, and see how much of the body is to be kept."""
        if not self._message:
            return
        size, self._message.properties = frames.content(payload)
        self._message.size = self._to_come = size
        self._to_keep = size if size <= LARGEST_ENTRY_BODY else KEPT_OF_LARGER
        self._parts.clear()
        if not size:
            self._complete()

    def on_body(self, payload: bytes) -> None:
        """Take a part of the body; most have one."""
        if not self._message or not self._to_come:
            return
        self._to_come -= min(len(payload), self._to_come)
        if self._to_keep:
            part = payload[: self._to_keep]
            self._to_keep -= len(part)
            self._parts.append(part)
        if not self._to_come:
            self._complete()

    def _complete(self) -> None:
        message, self._message = self._message, None
        if message:
            message.body = b"".join(self._parts)
            self._parts.clear()
            self._arrive(message)
