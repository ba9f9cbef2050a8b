"""One partition: when this router consumes from its queue, and the batches that it takes."""

import asyncio
import math
from collections import deque
from contextlib import suppress
from enum import Enum

from aio_pika.abc import AbstractChannel

from notifier.adapters.rabbitmq.connection import Connection, Reconnector, number_of
from notifier.adapters.rabbitmq.deliveries import Deliveries, Message, UnsettledBytes
from notifier.adapters.rabbitmq.errors import Lost, Vanished, honour_cancellation
from notifier.adapters.rabbitmq.registration import PREFETCH, register
from notifier.adapters.rabbitmq.standstill import Standstill
from notifier.core.partitions import Share

_LARGEST_BATCH = 64
_BATCH_BYTES = 4 * 1024 * 1024  # after which a batch takes no further message

# In seconds.
_HEIR_WAITS = 2  # longer than a beat of the roster, so that the owner is there before
_OTHERS_WAIT = 4
_TURN = 30  # of a standby, before the owner gets it again
_BELIEVED = 5  # of hearing nothing on a channel


class ConsumerState(Enum):
    """The state of this router as a consumer of a queue."""

    AWAY = "away"
    """It is not registered, or no longer."""
    STANDBY = "standby"
    """It is registered, or about to be, and has taken nothing yet."""
    ACTIVE = "active"
    """It has taken a batch: RabbitMQ delivers to nobody else."""
    LEAVING = "leaving"
    """It takes no further batch, and closes its channel once the open ones are settled."""


class Partition:
    """The deliveries of one queue, offered to `ready` a batch at a time, over all reconnects.

    It is left in three ways. `leave` closes the channel once the open batches are settled; so do
    `assign` and `return_to_owner`, which register again later. `give_up` drops the open batches,
    then leaves. `forget` drops the rest when the channel ends, `reset` when the connection does.
    """

    def __init__(
        self,
        queue: str,
        ready: "asyncio.Queue[Partition | None]",
        unsettled: UnsettledBytes,
        standstill: Standstill,
    ) -> None:
        self.queue = queue
        self._ready = ready
        self._unsettled = unsettled
        self._standstill = standstill
        self._standstills = 0  # their count when it was last known to be ours
        self._heard_at = -math.inf  # by the loop's clock
        self._doubted = asyncio.Event()
        self._answered = asyncio.Event()
        self._channel: AbstractChannel | None = None
        self._deliveries: Deliveries | None = None
        self._arrived: deque[Message] = deque()  # the prefetch and UnsettledBytes bound it
        self._open: list[list[Message]] = []  # batches, the oldest first
        self._barrier: list[Message] | None = None  # the one that others have to wait for
        self._is_offered = False
        self._settled = asyncio.Event()
        self._settled.set()
        self._owner = ""
        self.is_mine = False  # whether this router is its owner
        self._due = math.inf  # when to register, by the loop's clock
        self._state = ConsumerState.AWAY
        self._changed = asyncio.Event()  # to another state, or the moment to register
        self._since = 0.0  # in this state

    # Whose it is.

    @property
    def is_at_work(self) -> bool:
        """Whether this router consumes from it, and not merely stands by."""
        return self._state is ConsumerState.ACTIVE or (
            self._state is ConsumerState.STANDBY and self.is_mine
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it is in this router's hands."""
        return not self._arrived and self._settled.is_set()

    def assign(self, share: Share, router: str) -> None:
        """Note its owner and heir; `router` is this one."""
        self.is_mine = share.owner == router
        if self.is_mine:
            self._register_in(0)
        elif share.owner != self._owner:
            # A standby leaves as well: it would stand before the new owner.
            self._leave()
            self._register_in(_HEIR_WAITS if share.heir == router else _OTHERS_WAIT)
        self._owner = share.owner

    def _register_in(self, seconds: float) -> None:
        self._due = asyncio.get_running_loop().time() + seconds
        self._changed.set()

    def _leave(self) -> None:
        if self._state is not ConsumerState.AWAY:
            self._change_to(ConsumerState.LEAVING)

    def _change_to(self, state: ConsumerState) -> None:
        self._state = state
        self._since = asyncio.get_running_loop().time()
        self._changed.set()

    def return_to_owner(self) -> None:
        """Let the owner have it again if a standby has had it for long, though nothing changed.

        A standby cannot tell an owner that is gone from one that was away for a moment.
        """
        long_ago = asyncio.get_running_loop().time() - _TURN
        if self._state is ConsumerState.ACTIVE and not self.is_mine and self._since < long_ago:
            self._leave()
            self._register_in(_HEIR_WAITS)

    def leave(self) -> None:
        """Let others have it from now on, once its open batch is settled."""
        self._leave()
        self._due = math.inf

    def give_up(self) -> None:
        """Let others have it at once, open batches too: nothing can be published from here."""
        if self._deliveries:
            self._deliveries.close()
        self._unsettled.remove([*self._arrived, *(each for batch in self._open for each in batch)])
        self._arrived.clear()
        self._open.clear()
        self._barrier = None
        self._settled.set()
        self._owner, self.is_mine = "", False
        self._answered.set()
        self.leave()

    # Whether a batch is still this router's.

    async def is_ours(self, batch: list[Message]) -> bool:
        """Whether a batch is still this router's: RabbitMQ has given it to nobody else.

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
        return self._standstill.count() == self._standstills and now - self._heard_at < _BELIEVED

    def _believe(self, standstills: int, heard_at: float) -> None:
        self._standstills, self._heard_at = standstills, heard_at
        self._answered.set()

    async def confirm_ownership(self) -> None:
        """Ask RabbitMQ whenever a batch is in doubt."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            channel, standstills = self._channel, self._standstill.count()
            asked_at = asyncio.get_running_loop().time()
            if channel is None:
                self._answered.set()
            elif self._state is not ConsumerState.LEAVING or self._open:
                with self._unsettled.reading():  # its answer comes behind the earlier deliveries
                    # RabbitMQ answers while the channel is open.
                    await channel.set_qos(prefetch_count=PREFETCH)
                honour_cancellation()
                self._believe(standstills, asked_at)

    # Consuming.

    async def serve(self, connection: Connection, reconnector: Reconnector) -> None:
        """Register whenever that is due, and leave when others are to have it."""
        while True:
            if self._state is ConsumerState.AWAY:
                await self._until_due()
                await self.consume(connection, reconnector)
            while self._state is not ConsumerState.LEAVING:
                self._changed.clear()
                await self._changed.wait()
            await self._settled.wait()
            await self._close(reconnector)

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due > loop.time():
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if math.isinf(self._due) else self._due):
                    await self._changed.wait()

    async def consume(self, connection: Connection, reconnector: Reconnector) -> None:
        """Register as a consumer: at once the active one, or after those that are there."""

        def on_cancel(_: object) -> None:
            reconnector.reconnect(Vanished(f"the queue {self.queue} was deleted", self.queue))

        self._change_to(ConsumerState.STANDBY)
        standstills = self._standstill.count()
        channel = await connection.channel(publisher_confirms=False)
        reconnector.watch(channel)
        beneath = await channel.get_underlay_channel()
        beneath.on_consumer_cancel_callbacks.add(on_cancel)
        self._channel = channel
        self._deliveries = Deliveries(connection.wire, number_of(channel), self._arrive)
        asked_at = asyncio.get_running_loop().time()
        await register(channel, self.queue)
        self._believe(standstills, asked_at)
        honour_cancellation()

    async def _close(self, reconnector: Reconnector) -> None:
        channel = self._channel
        self.forget()
        if channel:
            await reconnector.close(channel)
        honour_cancellation()

    def forget(self) -> None:
        """Drop the deliveries: their channel is gone, so they come again, to the next consumer."""
        self._channel = None
        self._change_to(ConsumerState.AWAY)
        self._unsettled.remove(self._arrived)
        self._arrived.clear()
        if self._deliveries:
            self._deliveries.close()
        self._answered.set()

    def reset(self) -> None:
        """Forget whose it was: the connection is another one."""
        self.forget()
        self._owner, self.is_mine, self._due = "", False, math.inf

    # Batches.

    def _arrive(self, message: Message) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._arrived.append(message)
        self._unsettled.add(message, message.source.wire)
        self._offer()

    def _offer(self) -> None:
        if self._arrived and self._barrier is None and not self._is_offered:
            self._is_offered = True
            self._ready.put_nowait(self)

    def take(self) -> list[Message]:
        """Return the next batch; nothing when the partition was just lost, or is to be left."""
        self._is_offered = False
        if self._state is ConsumerState.LEAVING:
            return []
        taken: list[Message] = []
        size = 0
        while self._arrived and len(taken) < _LARGEST_BATCH and size < _BATCH_BYTES:
            taken.append(self._arrived.popleft())
            size += taken[-1].memory
        if taken:
            if self._state is ConsumerState.STANDBY:
                self._change_to(ConsumerState.ACTIVE)
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
            self._unsettled.remove(batch)
            self._open = [each for each in self._open if each is not batch]
            if not self._open:
                self._settled.set()
            self.allow_next(batch)
