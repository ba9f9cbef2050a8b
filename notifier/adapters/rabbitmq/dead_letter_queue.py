"""The queue `notifier.dead`: lists its dead letters, and puts them back where they came from."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from notifier.adapters.rabbitmq.connection import connected
from notifier.adapters.rabbitmq.errors import losses
from notifier.adapters.rabbitmq.topology import DEAD, EVENTS

_PATIENCE = 10.0  # seconds, for each answer of RabbitMQ's
# Headers of a router beside the original's own, and those of RabbitMQ on the way.
_OF_LETTERS = frozenset(
    f"notifier-{name}"
    for name in ("reason", "error", "routing-key", "queue", "time", "truncated", "size")
)
_OF_RABBITMQ = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter, as its headers describe it. `why_not`: why it cannot be put back, if so."""

    time: str
    reason: str
    error: str
    routing_key: str
    queue: str
    message_id: str
    size: int
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """The letters that are meant: they fit all that is given. `error` is a part of one."""

    reason: str = ""
    error: str = ""
    routing_key: str = ""

    def fits(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant."""
        return (
            self.reason in ("", letter.reason)
            and self.error in letter.error
            and self.routing_key in ("", letter.routing_key)
        )


async def dead_letters(url: str, wanted: LetterFilter, most: int) -> AsyncIterator[DeadLetter]:
    """Yield letters without taking them away, the oldest first, of the first `most` in the queue.

    RabbitMQ counts each look as a delivery. Raises Lost.
    """
    async with _opened(url) as (_, queue):
        async for message in _first(queue, most):
            if wanted.fits(letter := _letter_of(message)):
                yield letter


async def put_back(
    url: str, wanted: LetterFilter, most: int, on_put_back: Callable[[DeadLetter], None]
) -> None:
    """Publish letters once more as their producers did, one after another, the oldest first.

    Looks at the first `most` of those that wait when it begins: what is bad still comes back behind
    them. Each is acked once RabbitMQ has confirmed it, and then `on_put_back` is called, as it is
    for those that cannot be put back. Raises Lost; the others then stay, or come twice with the
    same message id.
    """
    async with _opened(url) as (channel, queue):
        exchange = await channel.get_exchange(EVENTS, ensure=False)
        async for message in _first(queue, most):
            letter = _letter_of(message)
            if not wanted.fits(letter):
                continue
            if not letter.why_not:
                original = _original_of(message)
                with losses():
                    await exchange.publish(original, letter.routing_key, timeout=_PATIENCE)
                    await message.ack()
            on_put_back(letter)


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[tuple[AbstractChannel, AbstractQueue]]:
    """Connect to the first node that answers. What is not acked goes back in its order."""
    connection = await connected(url, "letters", _PATIENCE)
    async with connection.closed_within(_PATIENCE):
        with losses():
            channel = await connection.channel(on_return_raises=True)
            queue = await channel.get_queue(DEAD)
        yield channel, queue


async def _first(queue: AbstractQueue, most: int) -> AsyncIterator[AbstractIncomingMessage]:
    there = queue.declaration_result.message_count or 0
    for _ in range(min(most, there)):
        with losses():
            message = await queue.get(fail=False, timeout=_PATIENCE)
        if message is None:
            return
        yield message


def _letter_of(message: AbstractIncomingMessage) -> DeadLetter:
    def said(name: str) -> str:
        return str(message.headers.get(f"notifier-{name}", ""))

    why_not = ""
    if "notifier-truncated" in message.headers:
        why_not = "only the beginning of its body was kept"
    elif "notifier-routing-key" not in message.headers:
        why_not = "it has no header notifier-routing-key"
    return DeadLetter(
        *(said("time"), said("reason"), said("error"), said("routing-key"), said("queue")),
        message_id=message.message_id or "",
        size=int(said("size") or len(message.body)),
        why_not=why_not,
    )


def _original_of(message: AbstractIncomingMessage) -> Message:
    headers: dict[str, Any] = {
        name: value
        for name, value in message.headers.items()
        if name not in _OF_LETTERS and not name.startswith(_OF_RABBITMQ)
    }
    return Message(
        message.body,
        headers=headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        delivery_mode=DeliveryMode.PERSISTENT,
        priority=message.priority,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        message_id=message.message_id or _id_for(message),
        timestamp=message.timestamp,
        type=message.type,
        app_id=message.app_id,
    )


def _id_for(message: AbstractIncomingMessage) -> str:
    """Return the same id at each try: an event without one would be delivered once a try."""
    place = "".join(str(message.headers.get(f"notifier-{name}")) for name in ("time", "queue"))
    return blake2b(place.encode() + message.body, digest_size=16).hexdigest()
