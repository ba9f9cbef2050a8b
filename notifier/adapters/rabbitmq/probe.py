"""A probe of RabbitMQ every few seconds: whether the topology is there, and this user may use it.

RabbitMQ tells a connection neither that an exchange was deleted nor that a right was taken away.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aio_pika import Message
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.exceptions import ChannelAccessRefused

from notifier.adapters.rabbitmq.connection import Connection, Reconnector
from notifier.adapters.rabbitmq.declaring import Channels
from notifier.adapters.rabbitmq.errors import REMEDY, Lost, Vanished, losses
from notifier.adapters.rabbitmq.topology import ENTRANCE, ENTRANCE_BINDING, Queue, Topology
from notifier.core.background import Background

_EVERY = 5  # seconds


Right = Callable[[Connection, AbstractChannel], Awaitable[None]]
"""Uses one right, on a channel of the connection, without a consequence.

Raises ChannelAccessRefused. It may close the channel.
"""


def publishing_to(exchange: str, routing_key: str) -> Right:
    """Return the right to publish to an exchange with a routing key."""

    async def publish(_: Connection, channel: AbstractChannel) -> None:
        """Publish: RabbitMQ checks the right at once, and the rollback drops the publication."""
        transaction = channel.transaction()
        await transaction.select()
        found = await channel.get_exchange(exchange, ensure=False)
        await found.publish(Message(b""), routing_key, mandatory=False)
        await transaction.rollback()

    return publish


class Probe:
    """Looks at a right, and at a topology if there is one, while a connection is up.

    It does not look while the connection `is_paused`: RabbitMQ's answers would not be read.

    Something that is missing makes it reconnect, and the next connection declares it.
    """

    def __init__(
        self,
        reconnector: Reconnector,
        right: Right,
        topology: Topology | None = None,
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._reconnector = reconnector
        self._is_paused = is_paused
        self._right = right
        self._topology = topology
        self.trouble: str | None = None
        """See Dependency: the right that is missing, and how to give it."""
        self._may_bind = True
        self._hidden = set[str]()  # since RabbitMQ 4.3, without a right to them

    @asynccontextmanager
    async def over(self, connection: Connection) -> AsyncIterator[None]:
        """Look while inside."""
        self._may_bind = True
        self._hidden.clear()
        # Kept open: aiormq waits ten seconds for the answer to a close, and a router that holds
        # enough reads its answers later than that.
        channels = Channels(connection)
        async with Background() as background:
            background.start(self._keep_looking(connection, channels), "rabbitmq: probe")
            yield

    async def _keep_looking(self, connection: Connection, channels: Channels) -> None:
        try:
            with losses():
                while True:
                    if not self._is_paused():
                        await self._try_right(connection, await channels.usable())
                    await asyncio.sleep(_EVERY)
                    if self._topology and not self._is_paused():
                        await self._see(self._topology, channels)
        except Lost as lost:
            self._reconnector.reconnect(lost)

    async def _try_right(self, connection: Connection, channel: AbstractChannel) -> None:
        try:
            await self._right(connection, channel)
        except ChannelAccessRefused as error:
            self.trouble = f"RabbitMQ refuses a right: {error}; {REMEDY}"
        else:
            self.trouble = None

    async def _see(self, wanted: Topology, channels: Channels) -> None:
        for thing in (*wanted.things, ENTRANCE):
            if str(thing) in self._hidden:
                continue
            channel = await channels.usable()
            try:
                await thing.declare(channel, passive=True)
            except ChannelNotFoundEntity as error:
                queue = thing.name if isinstance(thing, Queue) else ""
                raise Vanished(f"{thing} was deleted", queue) from error
            except ChannelAccessRefused:
                self._hidden.add(str(thing))
        if self._may_bind:
            await self._bind(wanted, channels)

    async def _bind(self, wanted: Topology, channels: Channels) -> None:
        # AMQP cannot list bindings, so bind again. Without that right, the operator has bound.
        try:
            for binding in (*wanted.bindings, ENTRANCE_BINDING):
                await binding.bind(await channels.usable())
        except ChannelAccessRefused:
            self._may_bind = False
