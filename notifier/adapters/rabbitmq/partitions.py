"""The partitions that a router consumes from, shared out with the other routers.

RabbitMQ gives each queue to one consumer at a time, the one that has been there longest (single
active consumer): that alone keeps the order and loses nothing. A partition's owner consumes at
once; the others register later, in the order in which they are to follow, and stand by.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from secrets import token_hex

import structlog
from aio_pika.abc import AbstractChannel

from notifier.adapters.rabbitmq.connection import Connection, Reconnector
from notifier.adapters.rabbitmq.deliveries import UnsettledBytes
from notifier.adapters.rabbitmq.errors import Lost, honour_cancellation, losses
from notifier.adapters.rabbitmq.partition import Partition
from notifier.adapters.rabbitmq.standstill import Standstill
from notifier.core.background import Background
from notifier.core.errors import Unavailable
from notifier.core.partitions import shared_out
from notifier.core.ports import Roster
from notifier.telemetry.metrics import Metrics

# In seconds.
_BEAT = 1
_GIVING_UP = 5  # of Redis being away
_EMPTYING = 5  # less than setting a connection up may take
_LOOK_AGAIN, _QUIET_LOOKS = 0.1, 3

_log = structlog.stdlib.get_logger(__name__)


class PartitionSharing:
    """This router's part in sharing partitions out; `ready` is where they offer their batches."""

    def __init__(
        self,
        roster: Roster,
        ready: "asyncio.Queue[Partition | None]",
        unsettled: UnsettledBytes,
        metrics: Metrics,
    ) -> None:
        self._roster = roster
        self._ready = ready
        self._unsettled = unsettled
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
        self, connection: Connection, groups: Sequence[Collection[str]], reconnector: Reconnector
    ) -> AsyncIterator[None]:
        """Take part over this connection while inside; each group of queues is shared out evenly.

        A queue that was lost with the connection before is taken from once the others have been
        emptied. Raises the errors that `losses` takes; a partition that is lost later makes
        `reconnector` reconnect.
        """
        try:
            await self._begin(groups)
            async with Background() as background:
                # First: a batch in doubt holds its bytes until its owner is confirmed, and with too
                # many bytes held no answer to a registration is read.
                self._start_confirming(background, reconnector)
                await self._consume(connection, reconnector)
                for partition in self._partitions.values():
                    serve = _run(partial(partition.serve, connection, reconnector), reconnector)
                    background.start(serve, f"rabbitmq: {partition.queue}")
                yield
        finally:
            for partition in self._partitions.values():
                partition.reset()
            await self._withdraw()

    async def _begin(self, groups: Sequence[Collection[str]]) -> None:
        self._groups = groups
        for queue in {queue for group in groups for queue in group} - self._partitions.keys():
            self._add(Partition(queue, self._ready, self._unsettled, self._standstill))
        # A name for each connection: one that was lost for a moment has lost its turns.
        before, self._router = self._router, token_hex(8)
        self._known = self._known - {before} | {self._router}
        await self._announce(is_new=True)

    def _start_confirming(self, background: Background, reconnector: Reconnector) -> None:
        background.start(self._standstill.watch(), "rabbitmq: standstill")
        background.start(self._follow(), "rabbitmq: roster")
        for partition in self._partitions.values():
            confirm = _run(partition.confirm_ownership, reconnector)
            background.start(confirm, f"rabbitmq: {partition.queue}, owner")

    async def _consume(self, connection: Connection, reconnector: Reconnector) -> None:
        reconnector.allow_long_setup()  # while this router holds enough, it reads no answer
        lost = self._partitions.get(reconnector.lost_queue)
        others = [each for each in self._partitions.values() if each is not lost]
        for partition in others:
            if partition.is_mine:
                await partition.consume(connection, reconnector)
        if lost and lost.is_mine:
            await _emptied(connection, others)
            await lost.consume(connection, reconnector)

    def _add(self, partition: Partition) -> None:
        self._partitions[partition.queue] = partition
        gauge = self._metrics.partitions.labels(partition.queue)
        gauge.set_function(lambda: float(partition.is_at_work))

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
            partition.return_to_owner()

    @property
    def _is_given_up(self) -> bool:
        """Whether Redis has been away for so long that others are to have all partitions.

        Routers that can reach it then go on; this one would only hold batches.
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


async def _run(work: Callable[[], Awaitable[None]], reconnector: Reconnector) -> None:
    """Do the work, and reconnect if it finds the connection lost."""
    try:
        with losses():
            await work()
    except Lost as lost:
        reconnector.reconnect(lost)


async def _emptied(connection: Connection, partitions: Sequence[Partition]) -> None:
    """Return when nothing of these waits or is being published any more, or after a while.

    While a queue is missing, its events go to the other partitions, as the hash is taken modulo the
    queues that are there, or are unroutable: they came before those that are in it now.
    """
    channel = await connection.channel(publisher_confirms=False)
    with suppress(TimeoutError):
        async with asyncio.timeout(_EMPTYING):
            quiet = 0
            # Batches of another router cannot be seen: wait for them.
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
