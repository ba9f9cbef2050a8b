"""Publishing under confirms: many letters in one write, and one future for all of them."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count, islice
from secrets import token_hex
from typing import NamedTuple

from notifier.adapters.rabbitmq import frames
from notifier.adapters.rabbitmq.errors import Lost, Vanished
from notifier.adapters.rabbitmq.properties import LetterProperties, message_id_of, of_entry
from notifier.adapters.rabbitmq.wire import Wire
from notifier.core.entries import Entry

_IN_ONE_WRITE = 64


class Letter(NamedTuple):
    """A message to publish.

    `address` names exchange and routing key. Where `is_numbered`, each try gets a message id of its
    own; others are to be published one at a time, as nothing distinguishes two returned ones.
    """

    address: bytes
    properties: LetterProperties
    body: bytes
    is_numbered: bool


def letter_of(entry: Entry, exchange: str, routing_key: str) -> Letter:
    """Return the letter that publishes an entry."""
    address = frames.address(exchange, routing_key)
    return Letter(address, of_entry(entry), entry.body, is_numbered=True)


class _Try:
    """Letters published together; `done` once the outcome of each is known."""

    def __init__(self, indices: Iterable[int]) -> None:
        self.failed: dict[int, Lost] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = set(indices)
        if not self._left:
            self.done.set_result(None)

    def settle(self, index: int) -> None:
        """Take note that RabbitMQ has answered for one."""
        self._left.discard(index)
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def fail(self, index: int, why: Lost) -> None:
        """Take note that RabbitMQ would not have one; the first reason counts."""
        self.failed.setdefault(index, why)

    def give_up(self, why: Lost) -> None:
        """Wait for no further answer."""
        for index in tuple(self._left):
            self.fail(index, why)
            self.settle(index)


class Confirms:
    """The publications of one channel, which is in confirm mode."""

    def __init__(self, wire: Wire, channel: int) -> None:
        self._wire = wire
        self._channel = channel
        self._tags = count(1)
        self._awaited: dict[int, tuple[_Try, int]] = {}  # by tag, the oldest first
        self._is_returned = False
        # With the tag behind it, a message id that was never there before.
        self._name = token_hex(12)
        wire.claim(channel, self)

    async def publish(self, letters: Mapping[int, Letter], seconds: float) -> Mapping[int, Lost]:
        """Return by its index each that is not persisted and routed within the time, and why."""
        attempt = _Try(letters)
        remaining = iter(letters.items())
        try:
            async with asyncio.timeout(seconds):
                while some := tuple(islice(remaining, _IN_ONE_WRITE)):
                    await self._wire.has_room()
                    self._write(some, attempt)
                await attempt.done
        except TimeoutError:
            attempt.give_up(Lost("it does not answer in time"))
        return attempt.failed

    def _write(self, letters: Iterable[tuple[int, Letter]], attempt: _Try) -> None:
        parts: list[bytes] = []
        for index, letter in letters:
            tag = next(self._tags)
            self._awaited[tag] = (attempt, index)
            before, after = letter.properties
            message_id = frames.short(f"{self._name}{tag}") if letter.is_numbered else b""
            properties = before + message_id + after
            parts.append(
                frames.publication(
                    *(self._channel, letter.address, properties, letter.body),
                    self._wire.frame_max,
                )
            )
        self._wire.write(b"".join(parts))

    def give_up(self, why: Lost) -> None:
        """Wait for no confirm any more."""
        awaited, self._awaited = self._awaited, {}
        for attempt, _ in awaited.values():
            attempt.give_up(why)

    # Called by the wire; see FrameHandler.

    def on_method(self, method: int, payload: bytes) -> None:
        """Settle the letters that are confirmed or refused."""
        self._is_returned = method == frames.RETURN
        if method not in (frames.ACK, frames.NACK):
            return
        last, multiple = frames.confirmed(payload)
        for tag in self._up_to(last) if multiple else (last,):
            if awaited := self._awaited.pop(tag, None):
                attempt, index = awaited
                if method == frames.NACK:
                    attempt.fail(index, Lost("it refuses the publication: is the queue full?"))
                attempt.settle(index)

    def _up_to(self, last: int) -> list[int]:
        tags: list[int] = []
        for tag in self._awaited:
            if tag > last:
                break
            tags.append(tag)
        return tags

    def on_header(self, payload: bytes) -> None:
        """Note that a letter was returned; its confirm follows."""
        if not self._is_returned:
            return
        _, properties = frames.content(payload)
        tag = min(self._awaited, default=0)  # of the only one that is not numbered
        with suppress(ValueError):
            tag = int(message_id_of(properties).removeprefix(self._name))
        if awaited := self._awaited.get(tag):
            attempt, index = awaited
            attempt.fail(index, Vanished("it has no queue for the publication"))

    def on_body(self, payload: bytes) -> None:
        """Ignore the body: the letter is known."""
