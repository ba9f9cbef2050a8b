"""The exchanges and queues in RabbitMQ: what they are, as data, and how they are declared.

    notifier.events (topic) ─▶ notifier.events.0                      with one partition
    notifier.events (topic) ─▶ notifier.partitions (x-modulus-hash)   with more
                                 └─▶ notifier.events.0 … N-1
    nowhere to go           ─▶ notifier.unroutable (fanout) ─▶ notifier.unroutable
    dead letters            ─▶ notifier.dead (direct)       ─▶ notifier.dead

Only what cannot be changed later, or what safety rests on, is declared; what operators may tune
stands in policies, which are part of `definitions`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

from aiormq import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.abc import AbstractChannel, AbstractConnection, ArgumentsType
from aiormq.exceptions import ConnectionCommandInvalid

EVENTS = "notifier.events"
PARTITIONS = "notifier.partitions"
UNROUTABLE = "notifier.unroutable"
DEAD = "notifier.dead"

_WEEK = 7 * 24 * 3600 * 1000  # milliseconds
_MOST_ENTRIES = 1_000_000
_MOST_DELIVERIES = 100
_NOWHERE_ELSE: ArgumentsType = {"alternate-exchange": UNROUTABLE}
_LASTING: ArgumentsType = {"x-queue-type": "quorum"}
# Without a dead-letter exchange RabbitMQ 4 drops what was delivered 20 times; without
# at-least-once, which needs reject-publish, it may lose the dead letter on its way.
_CONSUMED: ArgumentsType = {
    **_LASTING,
    "x-single-active-consumer": True,
    "x-dead-letter-exchange": DEAD,
    "x-dead-letter-routing-key": DEAD,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


class TopologyError(Exception):
    """RabbitMQ has not what is needed and this user cannot make it; says what to do."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str
    arguments: ArgumentsType = field(default_factory=dict)

    def __str__(self) -> str:
        """As operators call it."""
        return f"the exchange {self.name}"

    async def declare(self, channel: AbstractChannel, *, passive: bool) -> None:
        """Make it, or when `passive` see that it is there."""
        await channel.exchange_declare(
            self.name,
            exchange_type=self.type,
            durable=True,
            passive=passive,
            arguments=self.arguments,
        )


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue."""

    name: str
    arguments: ArgumentsType

    def __str__(self) -> str:
        """As operators call it."""
        return f"the queue {self.name}"

    async def declare(self, channel: AbstractChannel, *, passive: bool) -> None:
        """Make it, or when `passive` see that it is there."""
        await channel.queue_declare(
            self.name, durable=True, passive=passive, arguments=self.arguments
        )


@dataclass(frozen=True, slots=True)
class Binding:
    """From an exchange to a queue, or to another exchange."""

    source: str
    destination: str
    routing_key: str
    to_exchange: bool = False

    async def bind(self, channel: AbstractChannel) -> None:
        """Make it."""
        bind = channel.exchange_bind if self.to_exchange else channel.queue_bind
        await bind(self.destination, self.source, self.routing_key)

    async def unbind(self, channel: AbstractChannel) -> None:
        """Take it away."""
        unbind = channel.exchange_unbind if self.to_exchange else channel.queue_unbind
        await unbind(self.destination, self.source, self.routing_key)


@dataclass(frozen=True, slots=True)
class Topology:
    """What there must be, in the order of making it; `stale` are bindings that must not be."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    stale: tuple[Binding, ...]


def partition(number: int) -> str:
    """Return the name of a partition's queue."""
    return f"{EVENTS}.{number}"


def topology(partitions: int) -> Topology:
    """Return what there must be for so many partitions."""
    names = [partition(number) for number in range(partitions)]
    direct = Binding(EVENTS, partition(0), "#")
    hashed = Binding(EVENTS, PARTITIONS, "#", to_exchange=True)
    spread = tuple(Binding(PARTITIONS, name, "") for name in names)
    many = partitions > 1
    return Topology(
        exchanges=(
            Exchange(UNROUTABLE, "fanout"),
            Exchange(DEAD, "direct"),
            *((Exchange(PARTITIONS, "x-modulus-hash", _NOWHERE_ELSE),) if many else ()),
            Exchange(EVENTS, "topic", _NOWHERE_ELSE),
        ),
        queues=(
            Queue(DEAD, _LASTING),
            Queue(UNROUTABLE, _CONSUMED),
            *(Queue(name, _CONSUMED) for name in names),
        ),
        bindings=(
            Binding(DEAD, DEAD, DEAD),
            Binding(UNROUTABLE, UNROUTABLE, ""),
            *((*spread, hashed) if many else (direct,)),
        ),
        # Else a change between one and many partitions would route each event twice.
        stale=(direct if many else hashed,),
    )


def definitions(partitions: int, vhost: str = "/") -> dict[str, object]:
    """Return the topology and its policies as a RabbitMQ definitions file.

    For `rabbitmqctl import_definitions`. The virtual host must exist.
    """
    wanted = topology(partitions)
    place = {"vhost": vhost, "durable": True, "auto_delete": False}
    return {
        "exchanges": [
            {"name": e.name, "type": e.type, "internal": False, "arguments": e.arguments, **place}
            for e in wanted.exchanges
        ],
        "queues": [{"name": q.name, "arguments": q.arguments, **place} for q in wanted.queues],
        "bindings": [
            {
                "source": b.source,
                "vhost": vhost,
                "destination": b.destination,
                "destination_type": "exchange" if b.to_exchange else "queue",
                "routing_key": b.routing_key,
                "arguments": {},
            }
            for b in wanted.bindings
        ],
        "policies": [{"vhost": vhost, "apply-to": "queues", **policy} for policy in _policies()],
    }


def _policies() -> list[dict[str, object]]:
    return [
        {
            "name": "notifier-events",
            "pattern": r"^notifier\.(events\.[0-9]+|unroutable)$",
            "priority": 1,
            # `overflow` is already reject-publish: a full queue refuses, it never drops.
            "definition": {"max-length": _MOST_ENTRIES, "delivery-limit": _MOST_DELIVERIES},
        },
        {
            "name": "notifier-dead",
            "pattern": r"^notifier\.dead$",
            "priority": 1,
            "definition": {"max-length": _MOST_ENTRIES, "message-ttl": _WEEK},
        },
    ]


async def declare(connection: AbstractConnection, partitions: int) -> list[str]:
    """Make what is missing; return the queues to consume from. May be called any number of times.

    These are the partitions, the unroutable events, and partitions that are no more: nothing is
    routed to those from now on, they only need to be emptied. What the user may not make must be
    there. Raises TopologyError, and what aiormq raises when the connection is lost.
    """
    wanted = topology(partitions)
    for exchange in wanted.exchanges:
        await _declare(connection, exchange)
    for queue in wanted.queues:
        await _declare(connection, queue)
    former = await _former_partitions(connection, partitions)
    for stale in (*wanted.stale, *(Binding(PARTITIONS, name, "") for name in former)):
        with suppress(ChannelNotFoundEntity):
            await _permitted(connection, stale.unbind)
    # Only now: what comes in between is unroutable, which neither loses nor doubles it.
    for binding in wanted.bindings:
        await _permitted(connection, binding.bind)
    return [*(partition(number) for number in range(partitions)), UNROUTABLE, *former]


async def _declare(connection: AbstractConnection, thing: Exchange | Queue) -> None:
    try:
        async with _channel(connection) as channel:
            await thing.declare(channel, passive=False)
    except ChannelAccessRefused:
        await _check(connection, thing)
    except ChannelPreconditionFailed as error:
        raise TopologyError(
            f"{thing} is not as notifier needs it; once it is empty, delete it and it is made "
            f"anew ({error})"
        ) from error
    except ConnectionCommandInvalid as error:
        raise TopologyError(
            f"RabbitMQ cannot make {thing}: enable its plugin rabbitmq_sharding, or have one "
            f"partition only ({error})"
        ) from error


async def _check(connection: AbstractConnection, thing: Exchange | Queue) -> None:
    try:
        async with _channel(connection) as channel:
            await thing.declare(channel, passive=True)
    except ChannelNotFoundEntity as error:
        raise TopologyError(
            f"{thing} is missing and this user may not make it: give it the right to configure "
            r"notifier\..*, or import what `notifier topology` prints"
        ) from error


async def _permitted(
    connection: AbstractConnection, change: Callable[[AbstractChannel], Awaitable[None]]
) -> None:
    # A binding cannot be looked at: where we may not make it, the operator has.
    with suppress(ChannelAccessRefused):
        async with _channel(connection) as channel:
            await change(channel)


async def _former_partitions(connection: AbstractConnection, partitions: int) -> list[str]:
    former: list[str] = []
    with suppress(ChannelNotFoundEntity):
        for number in count(partitions):
            async with _channel(connection) as channel:
                await channel.queue_declare(partition(number), passive=True)
            former.append(partition(number))
    return former


@asynccontextmanager
async def _channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    # One for each step: RabbitMQ closes the channel of whoever asks for what cannot be.
    channel = await connection.channel(publisher_confirms=False)
    try:
        yield channel
    finally:
        await channel.close()
