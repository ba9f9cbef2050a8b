"""RabbitMQ as the event queue: AMQP 0-9-1, RabbitMQ 3.10 or newer.

Publishing and consuming have a connection each: when memory or disk run low, RabbitMQ stops
reading from connections that publish, and would not see their acks either.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from aiormq.abc import AbstractConnection

from notifier.adapters.rabbitmq import frames, properties
from notifier.adapters.rabbitmq.backlog import watched_backlog
from notifier.adapters.rabbitmq.confirms import Confirms, Letter
from notifier.adapters.rabbitmq.connection import Keeping, Link, Lost, Vanished, losses
from notifier.adapters.rabbitmq.deliveries import Held, Message
from notifier.adapters.rabbitmq.partitions import Partition, Sharing
from notifier.adapters.rabbitmq.probe import Consuming, Lookout, Publishing
from notifier.adapters.rabbitmq.topology import ASIDE, DEAD, EVENTS, JUDGED, declare, topology
from notifier.core.errors import Expired, Invalid, Rejected, Unavailable
from notifier.core.ingress import LARGEST_ENTRY_BODY, Entry
from notifier.core.ports import Batch, Delivery, Roster
from notifier.core.reading import check_size
from notifier.telemetry.metrics import Metrics

# In seconds.
_TRY = 3
_PATIENCE = 1  # of a put without a connection, since that was lost

_TRIES = 3
_LONGEST_REASON = 500


# The producers' end.


class _Publisher:
    """Publishes under confirms, over a link of its own."""

    lookout: Lookout

    def __init__(self, url: str, purpose: str, partitions: int, metrics: Metrics) -> None:
        self.link = Link(url, purpose, metrics, self._use)
        self._partitions = partitions
        self._confirms: Confirms | None = None
        self._open = asyncio.Event()
        self._shut_at: float | None = None

    @property
    def trouble(self) -> str | None:
        """See Dependency."""
        if self._open.is_set() and self.link.wire.is_blocked:
            return "blocked by RabbitMQ: its memory or its disk runs low"
        return self.link.trouble or self.lookout.trouble

    async def publish(self, letters: Sequence[Letter], tries: int) -> list[Unavailable | None]:
        """Return for each None once it is persisted and routed, else why that is not known.

        A try has 3 seconds; all of them have 10, with the time that it takes to reconnect.
        """
        left, failed = dict(enumerate(letters)), dict[int, Lost]()
        for _ in range(tries):
            try:
                confirms = await self._confirms_in_use()
            except Unavailable as error:
                return [error if index in left else None for index in range(len(letters))]
            failed = dict(await confirms.publish(left, _TRY))
            if not failed:
                break
            left = {index: left[index] for index in failed}
            self._repair(failed.values())
        return [_unavailable(failed.get(index)) for index in range(len(letters))]

    def _repair(self, losses: Iterable[Lost]) -> None:
        for lost in losses:
            if isinstance(lost, Vanished):
                self._shut()
                self.link.give_up(lost)

    async def _confirms_in_use(self) -> Confirms:
        """Return them, or raise Unavailable when there was no connection for a second."""
        now = asyncio.get_running_loop().time()
        if self._shut_at is None:
            self._shut_at = now
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._shut_at + _PATIENCE):
                await self._open.wait()
        if not self._open.is_set() or self._confirms is None or self.trouble:
            raise Unavailable("rabbitmq", self.trouble or "the connection was just lost")
        return self._confirms

    def _while_up(
        self, _connection: AbstractConnection, _queues: Sequence[str]
    ) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def _use(self, connection: AbstractConnection) -> None:
        queues = await declare(connection, self._partitions)
        channel = await connection.channel()
        self.link.watch(channel)
        wire = self.link.wire
        confirms = self._confirms = Confirms(wire, channel.number)
        wire.on_trouble = lambda why: confirms.give_up(Lost(why))
        self.link.is_up()
        self._open.set()
        try:
            async with self.lookout.over(connection), self._while_up(connection, queues):
                with losses():
                    await self.link.until_lost(connection)
        except Lost as lost:
            confirms.give_up(lost)
            raise
        finally:
            self._shut()
            confirms.give_up(Lost("the connection was closed"))

    def _shut(self) -> None:
        if self._open.is_set():
            self._open.clear()
            self._shut_at = asyncio.get_running_loop().time()


class _Events(_Publisher):
    """Publishes events, and tells how many wait: routers, which tell it too, may be away."""

    def __init__(self, url: str, partitions: int, metrics: Metrics) -> None:
        super().__init__(url, "events in", partitions, metrics)
        publishing = Publishing(EVENTS, "everyone")
        self.lookout = Lookout(self.link, publishing, topology(partitions))
        self._metrics = metrics

    def _while_up(
        self, connection: AbstractConnection, queues: Sequence[str]
    ) -> AbstractAsyncContextManager[None]:
        return watched_backlog(connection, [*queues, DEAD], self._metrics)


class AmqpEventQueue(Keeping):
    """Puts entries on exchange `notifier.events`; enter it with `async with`.

    `url` may be several, separated by commas, tried in turn. Entering does not wait for RabbitMQ;
    `trouble` tells. A put that fails has been tried for at most ten seconds, and fails at once
    when there has been no connection for a second, or when RabbitMQ's memory or disk runs low.
    An entry's message id is replaced.
    """

    def __init__(self, url: str, *, partitions: int, metrics: Metrics) -> None:
        self._publisher = _Events(url, partitions, metrics)
        super().__init__(self._publisher.link)

    @property
    def trouble(self) -> str | None:
        """See Dependency."""
        return self._publisher.trouble

    async def put(self, entry: Entry) -> None:
        """See EventQueue."""
        [failure] = await self.put_each([entry])
        if failure:
            raise failure

    async def put_each(self, entries: Sequence[Entry]) -> list[Unavailable | None]:
        """See EventQueue."""
        return await self._publisher.publish([_letter_of(entry) for entry in entries], _TRIES)


def _letter_of(entry: Entry) -> Letter:
    address = frames.address(EVENTS, entry.routing_key)
    return Letter(address, properties.of_entry(entry), entry.body, is_numbered=True)


def _unavailable(lost: Lost | None) -> Unavailable | None:
    return None if lost is None else Unavailable("rabbitmq", str(lost))


# The routers' end.


class _Delivery:
    __slots__ = ("message", "queue")

    def __init__(self, message: Message, queue: str) -> None:
        self.message = message
        self.queue = queue

    @property
    def entry(self) -> Entry:
        """See Delivery; raises Invalid for a body or properties over their bounds."""
        return self._entry(self.message.routing_key)

    def _entry(self, routing_key: bytes) -> Entry:
        message = self.message
        check_size(message.size, LARGEST_ENTRY_BODY)
        return properties.entry_of(routing_key, message.properties, message.body)

    @property
    def origin(self) -> tuple[str, str]:
        """The queue that it was routed to, and its routing key."""
        return self.queue, properties.readable(self.message.routing_key)

    @property
    def put_aside_for(self) -> str:
        """RabbitMQ's word for why it took this out of another queue; empty where it did not."""
        return ""


class _AsideDelivery(_Delivery):
    """An entry that RabbitMQ itself took out of a queue.

    Nobody has found it bad, so it is an entry still, unless its producer let it expire or a
    consumer that is not notifier's rejected it.
    """

    @cached_property
    def _death(self) -> properties.Death | None:
        return properties.death_of(self.message.properties)

    @property
    def entry(self) -> Entry:
        """See Delivery; raises Expired and Rejected too."""
        match self._death:
            case None:
                raise Invalid(
                    "", "RabbitMQ's header x-death, which says why it is here, is missing"
                )
            case properties.Death("rejected", queue):
                raise Rejected("", f"a consumer of {queue} that is not notifier's rejected it")
            case properties.Death("expired", queue, _, milliseconds) if milliseconds:
                reason = f"the producer's {milliseconds} ms were over while it waited in {queue}"
                raise Expired("expiration", reason)
            case death:
                return self._entry(death.routing_key.encode())

    @property
    def origin(self) -> tuple[str, str]:
        """See _Delivery."""
        return (self._death.queue, self._death.routing_key) if self._death else super().origin

    @property
    def put_aside_for(self) -> str:
        """See _Delivery."""
        return self._death.reason if self._death else "unknown"


class _DeadLetters(_Publisher):
    """Keeps what cannot be understood in the queue `notifier.dead`."""

    def __init__(self, url: str, partitions: int, metrics: Metrics) -> None:
        super().__init__(url, "dead letters", partitions, metrics)
        self.lookout = Lookout(self.link, Publishing(DEAD, JUDGED))
        self._one_at_a_time = asyncio.Lock()

    async def keep(self, letter: Letter) -> None:
        """Return once it is kept, else raise Unavailable."""
        async with self._one_at_a_time:
            [failure] = await self.publish([letter], tries=1)
        if failure:
            raise failure


class _Batch:
    """See Batch. RabbitMQ does not answer to an ack, so even what was acked may come again."""

    def __init__(
        self,
        partition: Partition,
        messages: list[Message],
        dead_letters: _DeadLetters,
        metrics: Metrics,
    ) -> None:
        self._partition = partition
        self._messages = messages
        self._dead_letters = dead_letters
        self._metrics = metrics
        kind = _AsideDelivery if partition.queue == ASIDE else _Delivery
        self._deliveries = [kind(message, partition.queue) for message in messages]

    @property
    def deliveries(self) -> Sequence[_Delivery]:
        """See Batch."""
        return self._deliveries

    async def dead_letter(self, delivery: Delivery, code: str, reason: str) -> None:
        """See Batch."""
        if not isinstance(delivery, _Delivery):
            raise TypeError("this delivery is another adapter's")
        await self._dead_letters.keep(_dead_letter_of(delivery, code, reason))

    def allow_next(self) -> None:
        """See Batch."""
        self._partition.allow_next(self._messages)

    async def is_ours(self) -> bool:
        """See Batch."""
        return await self._partition.holds(self._messages)

    async def ack(self) -> None:
        """See Batch."""
        try:
            self._partition.settle(self._messages)
        except Lost as lost:
            raise Unavailable("rabbitmq", f"not acked, so it comes again: {lost}") from lost
        if self._partition.queue == ASIDE:
            for delivery in self._deliveries:
                self._metrics.put_aside.labels(delivery.put_aside_for).inc()


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
        self.held = Held()
        self._sharing = Sharing(roster, self._ready, self.held, metrics)
        consuming = Consuming(lambda: self._sharing.at_work)
        self._lookout = Lookout(self._link, consuming, topology(partitions))

    @property
    def trouble(self) -> str | None:
        """See Dependency: None while it consumes, and dead letters can be kept."""
        return self._link.trouble or self._lookout.trouble or self._dead_letters.trouble

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
                yield _Batch(partition, messages, self._dead_letters, self._metrics)

    async def _use(self, connection: AbstractConnection) -> None:
        queues = await declare(connection, self._number)
        # Apart: most of what is behind the partitions is idle.
        groups = (queues[: self._number], queues[self._number :])
        async with (
            self._sharing.over(connection, groups, self._link),
            watched_backlog(connection, [*queues, DEAD], self._metrics),
            self._lookout.over(connection),
        ):
            self._link.is_up()
            await self._link.until_lost(connection)


def _dead_letter_of(delivery: _Delivery, code: str, reason: str) -> Letter:
    message, (queue, routing_key) = delivery.message, delivery.origin
    headers: dict[str, Any] = {
        "notifier-reason": code,
        "notifier-error": reason[:_LONGEST_REASON],
        "notifier-routing-key": routing_key,
        "notifier-queue": queue,
        "notifier-time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    if message.size > len(message.body):
        headers |= {"notifier-truncated": True, "notifier-size": message.size}
    letterhead = properties.of_dead_letter(message.properties, headers)
    return Letter(frames.address(DEAD, JUDGED), letterhead, message.body, is_numbered=False)
