"""Declares the topology, as far as this user may, and names the remedy where it may not."""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Self

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.exceptions import ChannelAccessRefused, ConnectionCommandInvalid

from notifier.adapters.rabbitmq.errors import TopologyError
from notifier.adapters.rabbitmq.topology import (
    ASIDE,
    ENTRANCE,
    ENTRANCE_BINDING,
    LIMIT,
    PARTITIONS,
    UNROUTABLE,
    Binding,
    Exchange,
    Queue,
    partition,
    returns,
    topology,
)

# How `notifier.events` may differ where a producer declared it first. All that comes goes on to
# `notifier.entries`, so its alternate exchange is never asked; a fanout passes all on as well.
_HARMLESS = re.compile(
    r"inequivalent arg '(alternate-exchange|durable|auto_delete)'"
    r"|inequivalent arg 'type' .* current is 'fanout'"
)


class Channels:
    """A channel for one step after another.

    RabbitMQ closes a channel over a refused declaration; the next step has a new one.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._channel: AbstractChannel | None = None

    async def usable(self) -> AbstractChannel:
        """Return one that is open."""
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel(publisher_confirms=False)
        return self._channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        if self._channel is not None:
            await self._channel.close()


async def declare(connection: AbstractConnection, partitions: int) -> list[str]:
    """Declare missing objects; return the queues to consume from. Repeating it changes nothing.

    These are the partitions, the unroutable events, those that RabbitMQ put aside, and partitions
    that are no more: nothing is routed to those from now on, they only need to be emptied. The
    exchange that takes events is made last, so that none is lost in between. An object that the
    user may not make must exist. Raises TopologyError, and the errors that `losses` takes.
    """
    wanted = topology(partitions)
    async with Channels(connection) as channels:
        for exchange in wanted.exchanges:
            await _declare(channels, exchange)
        for queue in wanted.queues:
            await _declare_queue(channels, queue)
        former = await _former_partitions(channels, partitions)
        for stale in (*wanted.stale, *(Binding(PARTITIONS, name, "") for name in former)):
            with suppress(ChannelNotFoundEntity):
                await _permitted(channels, stale.unbind)
        # Only now: events in between are unroutable, which neither loses nor doubles them.
        for binding in wanted.bindings:
            await _permitted(channels, binding.bind)
        await _declare_entrance(channels)
        await _permitted(channels, ENTRANCE_BINDING.bind)
    return [*(partition(number) for number in range(partitions)), UNROUTABLE, ASIDE, *former]


async def declare_returns(connection: AbstractConnection) -> None:
    """Declare, in the same way, the objects by which events wait and come back."""
    wanted = returns()
    async with Channels(connection) as channels:
        for thing in wanted.things:
            await _declare(channels, thing)
        for binding in wanted.bindings:
            await _permitted(channels, binding.bind)


async def _declare_queue(channels: Channels, queue: Queue) -> None:
    """Declare it, or as older versions did: arguments of a queue cannot be changed."""
    try:
        await _declare(channels, queue)
    except TopologyError as error:
        if LIMIT not in str(error):
            raise
        older = {name: value for name, value in queue.arguments.items() if name != LIMIT}
        await _declare(channels, replace(queue, arguments=older))


async def _declare_entrance(channels: Channels) -> None:
    try:
        await _declare(channels, ENTRANCE)
    except TopologyError as error:
        if not _HARMLESS.search(str(error)):
            raise


async def _declare(channels: Channels, thing: Exchange | Queue) -> None:
    try:
        channel = await channels.usable()
        await thing.declare(channel, passive=False)
    except ChannelAccessRefused:
        await _check(channels, thing)
    except (ChannelPreconditionFailed, ConnectionCommandInvalid) as error:
        if "exchange type" in str(error):  # RabbitMQ 3 closes the connection over it, 4 the channel
            raise TopologyError(
                f"RabbitMQ cannot make {thing}: enable its plugin rabbitmq_sharding on "
                f"every node, or set NOTIFIER_PARTITIONS=1 ({error})"
            ) from error
        raise TopologyError(
            f"{thing} is not as notifier needs it; {thing.remedy} ({error})"
        ) from error


async def _check(channels: Channels, thing: Exchange | Queue) -> None:
    try:
        channel = await channels.usable()
        await thing.declare(channel, passive=True)
    except ChannelNotFoundEntity as error:
        raise TopologyError(
            f"{thing} is missing and this user may not make it: give it the right to configure "
            r"notifier\..*, or import the output of `notifier topology`"
        ) from error
    except ChannelAccessRefused:
        # RabbitMQ 4.3 hides it without a right to it: the operator has made it.
        return


async def _permitted(
    channels: Channels, change: Callable[[AbstractChannel], Awaitable[None]]
) -> None:
    # AMQP cannot list bindings: where we may not make one, the operator has.
    with suppress(ChannelAccessRefused):
        channel = await channels.usable()
        await change(channel)


async def _former_partitions(channels: Channels, partitions: int) -> list[str]:
    former: list[str] = []
    with suppress(ChannelNotFoundEntity, ChannelAccessRefused):
        for number in count(partitions):
            channel = await channels.usable()
            await channel.get_queue(partition(number))
            former.append(partition(number))
    return former
