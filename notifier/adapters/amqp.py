"""RabbitMQ as the event queue: AMQP 0-9-1, RabbitMQ 3.10 or newer.

Publishing and consuming have a connection each: when memory or disk run low, RabbitMQ stops
reading from connections that publish, and would not see their acks either.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Any
from uuid import uuid4

import pamqp.encode
from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection, ArgumentsType, DeliveredMessage

from notifier.adapters.amqp_backlog import watched_backlog
from notifier.adapters.amqp_frames import UNREADABLE
from notifier.adapters.amqp_link import Keeping, Link, Lost, Vanished, losses
from notifier.adapters.amqp_partitions import Partition, Sharing
from notifier.adapters.topology import DEAD, EVENTS, declare
from notifier.core.errors import Unavailable, Unreadable
from notifier.core.ingress import Entry
from notifier.core.ports import Batch, Delivery, Roster
from notifier.telemetry.metrics import Metrics

# In seconds.
_TRY = 3
_PUT = 10
_PATIENCE = 1  # of a put without a connection, since that was lost
_ALARM_CHECK = 0.1

_TRIES = 3
_LONGEST_REASON = 500
_LARGEST_HEADERS = 100_000  # bytes; a frame has at most 131,072

_ACCEPTED = "notifier-accepted"  # the header with the moment of acceptance, in milliseconds
_YEAR_2001 = 1_000_000_000
_CLOCKS_DIFFER = 60
_PERSISTENT = 2


# The producers' end.


@dataclass(frozen=True, slots=True)
class _Letter:
    """What is published; without a `message_id` each try makes one of its own."""

    body: bytes
    exchange: str
    routing_key: str
    properties: spec.Basic.Properties
    message_id: str | None = None


class _Publisher:
    """Publishes under confirms, over a link of its own."""

    def __init__(self, url: str, purpose: str, partitions: int, metrics: Metrics) -> None:
        self.link = Link(url, purpose, metrics, self._use)
        self._partitions = partitions
        self._tries: set[asyncio.Timeout] = set()
        self._open = asyncio.Event()
        self._shut_at: float | None = None

    @property
    def trouble(self) -> str | None:
        """See Dependency."""
        if self._open.is_set() and _is_blocked(self._connection):
            return "blocked by RabbitMQ: its memory or its disk runs low"
        return self.link.trouble

    async def publish(self, letter: _Letter, tries: int) -> None:
        """Return once it is persisted and routed, else raise Unavailable; a try has 3 seconds."""
        reason = ""
        for _ in range(tries):
            try:
                with losses():
                    return await self._try(letter)
            except Lost as lost:
                reason = str(lost)
                if isinstance(lost, Vanished):
                    self._shut()
                    self.link.give_up(lost)
        raise Unavailable("rabbitmq", reason)

    async def _try(self, letter: _Letter) -> None:
        channel = await self._channel_in_use()
        # With one id in flight twice, aiormq takes the return of one for that of the other.
        letter.properties.message_id = letter.message_id or uuid4().hex
        async with asyncio.timeout(_TRY) as limit:
            self._tries.add(limit)
            try:
                await channel.basic_publish(
                    letter.body,
                    exchange=letter.exchange,
                    routing_key=letter.routing_key,
                    properties=letter.properties,
                    mandatory=True,
                )
            finally:
                self._tries.discard(limit)

    async def _channel_in_use(self) -> AbstractChannel:
        now = asyncio.get_running_loop().time()
        if self._shut_at is None:
            self._shut_at = now
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._shut_at + _PATIENCE):
                await self._open.wait()
        if not self._open.is_set() or self.trouble:
            raise Unavailable("rabbitmq", self.trouble or "the connection was just lost")
        return self._channel

    async def _use(self, connection: AbstractConnection) -> None:
        await declare(connection, self._partitions)
        self._channel = await connection.channel()
        self.link.watch(self._channel)
        self._connection = connection
        self.link.is_up()
        self._open.set()
        try:
            every = (_ALARM_CHECK, self._end_tries_when_blocked)
            await self.link.until_lost(connection, every)
        finally:
            self._shut()

    def _shut(self) -> None:
        if self._open.is_set():
            self._open.clear()
            self._shut_at = asyncio.get_running_loop().time()

    def _end_tries_when_blocked(self) -> None:
        if _is_blocked(self._connection):
            for limit in self._tries:
                if not limit.expired():
                    limit.reschedule(0)


def _is_blocked(connection: AbstractConnection) -> bool:
    # aiormq tells nobody, but `ready` waits exactly while the connection is blocked.
    ready = connection.ready().__await__()
    try:
        next(ready)
    except StopIteration:
        return False
    ready.close()
    return True


class AmqpEventQueue(Keeping):
    """Puts entries on exchange `notifier.events`; enter it with `async with`.

    `url` may be several, separated by commas, tried in turn. Entering does not wait for RabbitMQ;
    `trouble` tells. A put that fails has been tried for at most ten seconds, and fails at once
    when there has been no connection for a second, or when RabbitMQ's memory or disk runs low.
    An entry's message id is replaced.
    """

    def __init__(self, url: str, *, partitions: int, metrics: Metrics) -> None:
        self._publisher = _Publisher(url, "events in", partitions, metrics)
        super().__init__(self._publisher.link)

    @property
    def trouble(self) -> str | None:
        """See Dependency."""
        return self._publisher.trouble

    async def put(self, entry: Entry) -> None:
        """See EventQueue."""
        letter = _Letter(entry.body, EVENTS, entry.routing_key, _properties_of(entry))
        try:
            async with asyncio.timeout(_PUT):
                await self._publisher.publish(letter, _TRIES)
        except TimeoutError:
            raise Unavailable("rabbitmq", f"not confirmed within {_PUT} seconds") from None


def _properties_of(entry: Entry) -> spec.Basic.Properties:
    headers: dict[str, Any] = dict(entry.headers)
    if entry.accepted:
        headers[_ACCEPTED] = round(entry.accepted * 1000)
    return spec.Basic.Properties(
        content_type=entry.content_type,
        headers=headers,
        delivery_mode=_PERSISTENT,
        timestamp=datetime.fromtimestamp(entry.accepted or time(), UTC),
        message_type=entry.type,
        app_id=entry.app_id,
    )


# The routers' end.


@dataclass(frozen=True, slots=True)
class _Delivery:
    message: DeliveredMessage

    @property
    def entry(self) -> Entry:
        """See Delivery; raises Invalid for properties that cannot be read."""
        return _entry_of(self.message)


class _DeadLetters(_Publisher):
    """Keeps what cannot be understood in the queue `notifier.dead`."""

    def __init__(self, url: str, partitions: int, metrics: Metrics) -> None:
        super().__init__(url, "dead letters", partitions, metrics)
        self._one_at_a_time = asyncio.Lock()

    async def keep(self, letter: _Letter) -> None:
        """Return once it is kept, else raise Unavailable."""
        # Message ids are the producers' own here, and need not differ: see `_try`.
        async with self._one_at_a_time:
            await self.publish(letter, tries=1)


class _Batch:
    """See Batch. RabbitMQ does not answer to an ack, so even what was acked may come again."""

    def __init__(
        self, partition: Partition, messages: list[DeliveredMessage], dead_letters: _DeadLetters
    ) -> None:
        self._partition = partition
        self._dead_letters = dead_letters
        self._deliveries = [_Delivery(message) for message in messages]

    @property
    def deliveries(self) -> Sequence[_Delivery]:
        """See Batch."""
        return self._deliveries

    async def dead_letter(self, delivery: Delivery, code: str, reason: str) -> None:
        """See Batch."""
        if not isinstance(delivery, _Delivery):
            raise TypeError("this delivery is another adapter's")
        queue = self._partition.queue
        await self._dead_letters.keep(_dead_letter_of(delivery.message, queue, code, reason))

    async def ack(self) -> None:
        """See Batch."""
        last = self._deliveries[-1].message
        try:
            with losses():
                async with asyncio.timeout(_TRY):
                    await last.channel.basic_ack(last.delivery_tag or 0, multiple=True)
        except Lost as lost:
            raise Unavailable("rabbitmq", f"not acked, so it comes again: {lost}") from lost
        finally:
            self._partition.settle()


class AmqpEventSource(Keeping):
    """Takes from its share of the partitions and the unroutable; enter it with `async with`.

    `url` is as for AmqpEventQueue. The routers of one `roster` share the partitions out between
    them, each standing by for the others. Leaving does not wait for open batches: what is not acked
    by then comes again. Where there were more partitions before, those are emptied too.
    """

    def __init__(self, url: str, *, partitions: int, roster: Roster, metrics: Metrics) -> None:
        self._link = Link(url, "events out", metrics, self._use)
        self._dead_letters = _DeadLetters(url, partitions, metrics)
        super().__init__(self._link, self._dead_letters.link)
        self._number = partitions
        self._metrics = metrics
        self._ready: asyncio.Queue[Partition | None] = asyncio.Queue()  # each at most once
        self._sharing = Sharing(roster, self._ready, metrics)

    @property
    def trouble(self) -> str | None:
        """See Dependency: None while it consumes from its partitions."""
        return self._link.trouble

    @property
    def partitions(self) -> Sequence[str]:
        """See EventSource."""
        return self._sharing.at_work

    def stop(self) -> None:
        """See EventSource."""
        self._sharing.stop()
        self._ready.put_nowait(None)

    async def batches(self) -> AsyncIterator[Batch]:
        """See EventSource."""
        while partition := await self._ready.get():
            if messages := partition.take():
                yield _Batch(partition, messages, self._dead_letters)

    async def _use(self, connection: AbstractConnection) -> None:
        queues = await declare(connection, self._number)
        # Apart: most of what is behind the partitions is idle.
        groups = (queues[: self._number], queues[self._number :])
        async with (
            self._sharing.over(connection, groups, self._link),
            watched_backlog(connection, [*queues, DEAD], self._metrics),
        ):
            self._link.is_up()
            await self._link.until_lost(connection)


def _entry_of(message: DeliveredMessage) -> Entry:
    properties = message.header.properties
    headers = {name: _text(value) for name, value in (properties.headers or {}).items()}
    if UNREADABLE in headers:
        raise Unreadable("properties", str(headers[UNREADABLE]))
    return Entry(
        body=message.body,
        routing_key=message.routing_key or "",
        content_type=properties.content_type or "",
        accepted=_moment(headers.pop(_ACCEPTED, None)),
        headers=headers,
        message_id=properties.message_id or "",
        app_id=properties.app_id or "",
        type=properties.message_type or "",
    )


def _text(value: object) -> object:
    if isinstance(value, bytes | bytearray):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value


def _moment(milliseconds: object) -> float:
    # Anyone may send this header, with anything in it.
    seconds = milliseconds / 1000 if isinstance(milliseconds, int) else 0.0
    return seconds if _YEAR_2001 < seconds < time() + _CLOCKS_DIFFER else 0.0


def _dead_letter_of(message: DeliveredMessage, queue: str, code: str, reason: str) -> _Letter:
    original = message.header.properties
    ours: ArgumentsType = {
        "notifier-reason": code,
        "notifier-error": reason[:_LONGEST_REASON],
        "notifier-routing-key": message.routing_key or "",
        "notifier-queue": queue,
        "notifier-time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    properties = copy(original)
    properties.headers = {**(original.headers or {}), **ours}
    if not _fit(properties.headers):
        properties.headers = ours
    properties.delivery_mode = _PERSISTENT
    properties.expiration = None
    properties.user_id = None  # RabbitMQ refuses any but our own
    return _Letter(message.body, DEAD, DEAD, properties, original.message_id)


def _fit(headers: ArgumentsType) -> bool:
    # They share one frame: a producer's own may leave no room for ours.
    try:
        return len(pamqp.encode.field_table(headers)) <= _LARGEST_HEADERS
    except (TypeError, ValueError, ArithmeticError, struct.error):
        return False  # pamqp reads more than it can write, such as a large double
