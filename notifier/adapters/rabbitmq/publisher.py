"""Publishing to RabbitMQ under confirms, through losses of the connection."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress

from notifier.adapters.rabbitmq.confirms import Confirms, Letter
from notifier.adapters.rabbitmq.connection import Connection, Reconnector, number_of
from notifier.adapters.rabbitmq.declaring import declare
from notifier.adapters.rabbitmq.errors import Lost, Vanished, losses
from notifier.adapters.rabbitmq.probe import Probe
from notifier.core.addresses import Url
from notifier.core.errors import Unavailable
from notifier.telemetry.metrics import Metrics

# In seconds.
_TRY = 3
_PATIENCE = 1  # of a put without a connection, since that was lost


class Publisher:
    """Publishes under confirms, over a connection of its own."""

    probe: Probe

    def __init__(self, url: Url, purpose: str, partitions: int, metrics: Metrics) -> None:
        self.reconnector = Reconnector(url, purpose, metrics, self._use)
        self._partitions = partitions
        self._confirms: Confirms | None = None
        self._open = asyncio.Event()
        self._shut_at: float | None = None

    @property
    def obstacle(self) -> str | None:
        """Why nothing can be published now; None where it can."""
        if self._open.is_set() and self.reconnector.is_blocked:
            return "blocked by RabbitMQ: its memory or its disk runs low"
        return self.reconnector.trouble or self.probe.trouble

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
        errors = {index: Unavailable("rabbitmq", str(lost)) for index, lost in failed.items()}
        return [errors.get(index) for index in range(len(letters))]

    def _repair(self, losses: Iterable[Lost]) -> None:
        for lost in losses:
            if isinstance(lost, Vanished):
                self._shut()
                self.reconnector.reconnect(lost)

    async def _confirms_in_use(self) -> Confirms:
        """Return them, or raise Unavailable when there was no connection for a second."""
        now = asyncio.get_running_loop().time()
        if self._shut_at is None:
            self._shut_at = now
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._shut_at + _PATIENCE):
                await self._open.wait()
        if not self._open.is_set() or self._confirms is None or self.obstacle:
            raise Unavailable("rabbitmq", self.obstacle or "the connection was just lost")
        return self._confirms

    async def _set_up(self, connection: Connection) -> AbstractAsyncContextManager[None]:
        """Declare the topology; return the context to publish in."""
        await declare(connection, self._partitions)
        return nullcontext()

    async def _use(self, connection: Connection) -> None:
        context = await self._set_up(connection)
        channel = await connection.channel()
        self.reconnector.watch(channel)
        confirms = self._confirms = Confirms(connection.wire, number_of(channel))
        connection.wire.on_trouble = lambda why: confirms.give_up(Lost(why))
        self.reconnector.mark_ready()
        self._open.set()
        try:
            async with self.probe.over(connection), context:
                with losses():
                    await self.reconnector.until_lost()
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
