"""The partitions that a router consumes from, shared out with the other routers.

RabbitMQ gives each queue to one consumer at a time, the one that has been there longest (single
active consumer): that alone keeps the order and loses nothing. A partition's owner consumes at
once; the others register later, in the order in which they are to follow, and stand by.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from secrets import token_hex

import structlog
from aio_pika.abc import AbstractChannel

from notifier.adapters.rabbitmq.connection import Connection, Link, number_of
from notifier.adapters.rabbitmq.deliveries import Deliveries, Held, Message
from notifier.adapters.rabbitmq.errors import Lost, Vanished, honour_cancellation, losses
from notifier.adapters.rabbitmq.standstill import Standstill
from notifier.core.background import Background
from notifier.core.errors import Unavailable
from notifier.core.partitions import Share, shared_out
from notifier.core.ports import Roster
from notifier.telemetry.metrics import Metrics

# What one consumer gives back must fit into what the next one takes, or RabbitMQ puts the rest
# behind it: the same number for all routers.
_PREFETCH = 200
_LARGEST_BATCH = 64
_BATCH_BYTES = 4 * 1024 * 1024  # after which a batch takes no further message

# In seconds.
_BEAT = 1
_HEIR_WAITS = 2  # longer than a beat, so that the owner is there before
_OTHERS_WAIT = 4
_TURN = 30
_GIVING_UP = 5  # of Redis being away
_BELIEVED = 5  # of hearing nothing on a channel
_EMPTYING = 5  # less than setting a connection up may take
_LOOK_AGAIN, _QUIET_LOOKS = 0.1, 3

_log = structlog.stdlib.get_logger(__name__)


class Partition:
    """The deliveries of one queue, offered to `ready` a batch at a time, over all reconnects."""

    def __init__(
        self,
        queue: str,
        ready: "asyncio.Queue[Partition | None]",
        held: Held,
        standstill: Standstill,
    ) -> None:
        self.queue = queue
        self._ready = ready
        self._held = held
        self._standstill = standstill
        self._standstills = 0  # when it was last known to be ours
        self._heard_at = -math.inf  # by the loop's clock
        self._doubted = asyncio.Event()
        self._answered = asyncio.Event()
        self._channel: AbstractChannel | None = None
        self._deliveries: Deliveries | None = None
        self._arrived: deque[Message] = deque()  # the prefetch and Held bound it
        self._open: list[list[Message]] = []  # batches, the oldest first
        self._barrier: list[Message] | None = None  # the one that others have to wait for
        self._is_offered = False
        self._settled = asyncio.Event()
        self._settled.set()
        self._owner = ""
        self._is_mine = False
        self._due = math.inf  # when to register, by the loop's clock
        self._has_new_due = asyncio.Event()
        self._leaving = asyncio.Event()
        self._since = 0.0
        self._has_taken = False

    # Whose it is.

    @property
    def is_at_work(self) -> bool:
        """Whether this router consumes from it, and not merely stands by."""
        consumes = self._channel is not None and not self._leaving.is_set()
        return consumes and (self._is_mine or self._has_taken)

    @property
    def is_mine(self) -> bool:
        """Whether this router is its owner."""
        return self._is_mine

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it is in this router's hands."""
        return not self._arrived and self._settled.is_set()

    def assign(self, share: Share, router: str) -> None:
        """Take note of who owns it; `router` is this one."""
        self._is_mine = share.owner == router
        if self._is_mine:
            self._register_in(0)
        elif share.owner != self._owner:
            # A standby leaves as well: it would stand before the new owner.
            self._leaving.set()
            self._register_in(_HEIR_WAITS if share.heir == router else _OTHERS_WAIT)
        self._owner = share.owner

    def _register_in(self, seconds: float) -> None:
        self._due = asyncio.get_running_loop().time() + seconds
        self._has_new_due.set()

    def give_back(self) -> None:
        """Let the owner have it again if a standby has had it for long, though nothing changed.

        Whoever takes over cannot tell an owner that is gone from one that was away for a moment.
        """
        long_ago = asyncio.get_running_loop().time() - _TURN
        if self._has_taken and not self._is_mine and self._since < long_ago:
            self._leaving.set()
            self._register_in(_HEIR_WAITS)

    def leave(self) -> None:
        """Let others have it from now on, once its open batch is settled."""
        self._leaving.set()
        self._due = math.inf

    def give_up(self) -> None:
        """Let others have it at once, what is open included: nothing can be published from here."""
        if self._deliveries:
            self._deliveries.close()
        self._held.remove([*self._arrived, *(each for batch in self._open for each in batch)])
        self._arrived.clear()
        self._open.clear()
        self._barrier = None
        self._settled.set()
        self._owner, self._is_mine = "", False
        self._answered.set()
        self.leave()

    # Whether a batch is still this router's.

    async def holds(self, batch: list[Message]) -> bool:
        """Whether RabbitMQ has given a batch to nobody else.

        Asks it if this process stood still, or has heard nothing for some seconds. Waits until it
        answers, or the connection is lost.
        """
        source = batch[-1].source
        while source.is_open and not self._is_believed:
            self._answered.clear()
            self._doubted.set()
            await self._answered.wait()
        return source.is_open

    @property
    def _is_believed(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self._standstill.count == self._standstills and now - self._heard_at < _BELIEVED

    def _believe(self, standstills: int, heard_at: float) -> None:
        self._standstills, self._heard_at = standstills, heard_at
        self._answered.set()

    async def vouch(self) -> None:
        """Ask RabbitMQ whenever a batch is in doubt."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            channel, standstills = self._channel, self._standstill.count
            asked_at = asyncio.get_running_loop().time()
            if channel is None:
                self._answered.set()
            elif not self._leaving.is_set() or self._open:
                with self._held.reading():  # its answer stands behind what was delivered before
                    # It answers while this is open.
                    await channel.set_qos(prefetch_count=_PREFETCH)
                honour_cancellation()
                self._believe(standstills, asked_at)

    # Consuming.

    async def serve(self, connection: Connection, link: Link) -> None:
        """Register whenever that is due, and leave when others are to have it."""
        while True:
            if self._channel is None:
                await self._until_due()
                await self.consume(connection, link)
            await self._leaving.wait()
            await self._settled.wait()
            await self._close(link)

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due > loop.time():
            self._has_new_due.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if math.isinf(self._due) else self._due):
                    await self._has_new_due.wait()

    async def consume(self, connection: Connection, link: Link) -> None:
        """Register as a consumer: at once the active one, or after those that are there."""

        def on_cancel(_: object) -> None:
            link.give_up(Vanished(f"the queue {self.queue} was deleted", self.queue))

        self._leaving.clear()
        standstills = self._standstill.count
        channel = await connection.channel(publisher_confirms=False)
        link.watch(channel)
        beneath = await channel.get_underlay_channel()
        beneath.on_consumer_cancel_callbacks.add(on_cancel)
        self._channel, self._has_taken = channel, False
        self._deliveries = Deliveries(connection.wire, number_of(channel), self._arrive)
        self._since = asyncio.get_running_loop().time()
        await channel.set_qos(prefetch_count=_PREFETCH)
        self._believe(standstills, self._since)
        queue = await channel.get_queue(self.queue, ensure=False)
        await queue.consume(_never)
        honour_cancellation()

    async def _close(self, link: Link) -> None:
        channel = self._channel
        self.forget()
        if channel:
            # Unlike basic.cancel this keeps the order of what is not acked.
            await link.close(channel)
        honour_cancellation()

    def forget(self) -> None:
        """Drop what has arrived; its channel is gone, so it comes again, to whoever is next."""
        self._channel = None
        self._held.remove(self._arrived)
        self._arrived.clear()
        if self._deliveries:
            self._deliveries.close()
        self._answered.set()

    def is_of_yesterday(self) -> None:
        """Forget whose it was: the connection is another one."""
        self.forget()
        self._owner, self._is_mine, self._due = "", False, math.inf

    # Batches.

    def _arrive(self, message: Message) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._arrived.append(message)
        self._held.add(message, message.source.wire)
        self._offer()

    def _offer(self) -> None:
        if self._arrived and self._barrier is None and not self._is_offered:
            self._is_offered = True
            self._ready.put_nowait(self)

    def take(self) -> list[Message]:
        """Return the next of what is there; nothing when it was just lost, or is to be left."""
        self._is_offered = False
        if self._leaving.is_set():
            return []
        taken: list[Message] = []
        size = 0
        while self._arrived and len(taken) < _LARGEST_BATCH and size < _BATCH_BYTES:
            taken.append(self._arrived.popleft())
            size += taken[-1].held
        if taken:
            self._has_taken = True
            self._settled.clear()
            self._open.append(taken)
            self._barrier = taken
        return taken

    def allow_next(self, batch: list[Message]) -> None:
        """Offer the next batch, if this is the one that it has to wait for."""
        if batch is self._barrier:
            self._barrier = None
            self._offer()

    def settle(self, batch: list[Message]) -> None:
        """Ack a batch, and offer the next; raises Lost when it comes again."""
        if not any(each is batch for each in self._open):
            raise Lost("the partition was given up")
        is_oldest = batch is self._open[0]  # else those before it would be acked with it
        tags = [message.tag for message in batch[-1 if is_oldest else 0 :]]
        try:
            batch[-1].source.ack(*tags, up_to=is_oldest)
        finally:
            self._held.remove(batch)
            self._open = [each for each in self._open if each is not batch]
            if not self._open:
                self._settled.set()
            self.allow_next(batch)


async def _never(_: object) -> None:
    raise AssertionError("deliveries go past aio-pika")


class Sharing:
    """This router's part in sharing partitions out; `ready` is where they offer their batches."""

    def __init__(
        self, roster: Roster, ready: "asyncio.Queue[Partition | None]", held: Held, metrics: Metrics
    ) -> None:
        self._roster = roster
        self._ready = ready
        self._held = held
        self._metrics = metrics
        self._partitions: dict[str, Partition] = {}
        self._groups: Sequence[Collection[str]] = ()
        self._router = ""
        self._known: frozenset[str] = frozenset()
        self._stopped = asyncio.Event()
        self._standstill = Standstill()
        self._away_since: float | None = None  # the roster, by the loop's clock

    @property
    def at_work(self) -> list[str]:
        """The queues that this router consumes from, and not merely stands by for."""
        return sorted(each.queue for each in self._partitions.values() if each.is_at_work)

    def stop(self) -> None:
        """Leave each partition as soon as its open batch is settled."""
        self._stopped.set()
        for partition in self._partitions.values():
            partition.leave()

    @asynccontextmanager
    async def over(
        self, connection: Connection, groups: Sequence[Collection[str]], link: Link
    ) -> AsyncIterator[None]:
        """Take part over this connection while inside; each group of queues is shared out evenly.

        A queue that was lost with the connection before is taken from once the others have been
        emptied. Raises the errors that `losses` takes; a partition that is lost later makes `link`
        give up.
        """
        try:
            await self._begin(connection, groups, link)
            async with Background() as background:
                for partition in self._partitions.values():
                    serving = self._serve(partition, connection, link)
                    background.start(serving, f"rabbitmq: {partition.queue}")
                    vouching = self._vouch(partition, link)
                    background.start(vouching, f"rabbitmq: {partition.queue}, vouching")
                background.start(self._standstill.watch(), "rabbitmq: standstill")
                background.start(self._follow(), "rabbitmq: roster")
                yield
        finally:
            for partition in self._partitions.values():
                partition.is_of_yesterday()
            await self._withdraw()

    async def _begin(
        self, connection: Connection, groups: Sequence[Collection[str]], link: Link
    ) -> None:
        self._groups = groups
        for queue in {queue for group in groups for queue in group} - self._partitions.keys():
            self._add(Partition(queue, self._ready, self._held, self._standstill))
        # A name for each connection: one that was lost for a moment has lost its turns.
        before, self._router = self._router, token_hex(8)
        self._known = self._known - {before} | {self._router}
        await self._announce(is_new=True)
        link.may_take_long()  # while this router holds enough, it reads no answer
        lost = self._partitions.get(link.lost_queue)
        others = [each for each in self._partitions.values() if each is not lost]
        for partition in others:
            if partition.is_mine:
                await partition.consume(connection, link)
        if lost and lost.is_mine:
            await _emptied(connection, others)
            await lost.consume(connection, link)

    def _add(self, partition: Partition) -> None:
        self._partitions[partition.queue] = partition
        gauge = self._metrics.partitions.labels(partition.queue)
        gauge.set_function(lambda: float(partition.is_at_work))

    async def _serve(self, partition: Partition, connection: Connection, link: Link) -> None:
        try:
            with losses():
                await partition.serve(connection, link)
        except Lost as lost:
            link.give_up(lost)

    async def _vouch(self, partition: Partition, link: Link) -> None:
        try:
            with losses():
                await partition.vouch()
        except Lost as lost:
            link.give_up(lost)

    async def _follow(self) -> None:
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT):
                    await self._stopped.wait()
            if not self._stopped.is_set():
                await self._announce()
        await self._withdraw()

    async def _announce(self, *, is_new: bool = False) -> None:
        known, was_given_up = self._known, self._is_given_up
        try:
            known, self._away_since = await self._roster.announce(self._router), None
        except Unavailable:
            self._away_since = self._away_since or asyncio.get_running_loop().time()
        if self._stopped.is_set():
            return
        if self._is_given_up:
            if not was_given_up:
                _log.warning("partitions_given_up", reason="Redis is out of reach")
            for partition in self._partitions.values():
                partition.give_up()
            return
        if known != self._known or is_new or was_given_up:
            self._known = known
            self._share_out()
        for partition in self._partitions.values():
            partition.give_back()

    @property
    def _is_given_up(self) -> bool:
        """Whether Redis has been away for so long that others are to have all partitions.

        Routers that can reach it then go on; this one would hold what it takes.
        """
        now = asyncio.get_running_loop().time()
        return self._away_since is not None and now - self._away_since >= _GIVING_UP

    def _share_out(self) -> None:
        for group in self._groups:
            for queue, share in shared_out(group, self._known).items():
                self._partitions[queue].assign(share, self._router)
        mine = sorted(each.queue for each in self._partitions.values() if each.is_mine)
        _log.info("partitions_shared_out", routers=len(self._known), mine=mine)

    async def _withdraw(self) -> None:
        with suppress(Unavailable):
            await self._roster.withdraw(self._router)


async def _emptied(connection: Connection, partitions: Sequence[Partition]) -> None:
    """Return when nothing of these waits or is being published any more, or after a while.

    While a queue is missing, its events go to the other partitions, as the hash is taken modulo the
    queues that are there, or are unroutable: they came before those that are in it now.
    """
    channel = await connection.channel(publisher_confirms=False)
    with suppress(TimeoutError):
        async with asyncio.timeout(_EMPTYING):
            quiet = 0
            # What another router has taken cannot be seen, but waited for.
            while quiet < _QUIET_LOOKS:
                await asyncio.sleep(_LOOK_AGAIN)
                quiet = quiet + 1 if await _are_empty(channel, partitions) else 0
    await channel.close()
    honour_cancellation()


async def _are_empty(channel: AbstractChannel, partitions: Sequence[Partition]) -> bool:
    for partition in partitions:
        found = await channel.get_queue(partition.queue)
        if found.declaration_result.message_count or not partition.is_idle:
            return False
    return True
