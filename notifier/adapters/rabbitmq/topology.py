"""The exchanges and queues in RabbitMQ, as data, and their declaration.

    notifier.events (topic)     ─▶ notifier.entries (fanout)
    notifier.entries            ─▶ notifier.events.0                      with one partition
    notifier.entries            ─▶ notifier.partitions (x-modulus-hash)   with more
                                     └─▶ notifier.events.0 … N-1
    nowhere to go               ─▶ notifier.unroutable (fanout) ─▶ notifier.unroutable
    put aside by RabbitMQ       ─▶ notifier.dead (direct)       ─▶ notifier.aside
    found bad by a router       ─▶ notifier.dead                ─▶ notifier.dead
    to be received in time      ─▶ notifier.waiting (topic)     ─▶ notifier.waiting.1 … 600
    the delay is over           ─▶ notifier.entries
    not received in time        ─▶ notifier.undelivered (topic) ─▶ queues of producers' consumers
    delivery reports            ─▶ notifier.reports (topic)     ─▶ queues of producers' consumers
    none of these is bound      ─▶ notifier.unclaimed (fanout)  ─▶ notifier.unclaimed

Arguments hold the values that cannot be changed later, or that safety rests on. Policies hold those
that operators may tune; they are part of `definitions`.
"""

from dataclasses import dataclass, field

from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue
from aiormq.abc import ArgumentsType

from notifier.core.undelivered import DELAYS

EVENTS = "notifier.events"
ENTRIES = "notifier.entries"
PARTITIONS = "notifier.partitions"
UNROUTABLE = "notifier.unroutable"
DEAD = "notifier.dead"
ASIDE = "notifier.aside"
WAITING = "notifier.waiting"
UNDELIVERED = "notifier.undelivered"
REPORTS = "notifier.reports"
UNCLAIMED = "notifier.unclaimed"
# Routing keys of the exchange DEAD: RabbitMQ's own dead letters, and those that a router judged.
_BY_RABBITMQ = DEAD
JUDGED = "notifier.judged"

_WEEK = 7 * 24 * 3600 * 1000  # milliseconds
_MOST_ENTRIES = 1_000_000
# RabbitMQ 4 puts an entry aside after 20 deliveries, and each outage counts as one.
# RabbitMQ 3 takes no -1 for it, and both take this.
ANY_NUMBER = 2**31 - 1
LIMIT = "x-delivery-limit"
_NOWHERE_ELSE: ArgumentsType = {"alternate-exchange": UNROUTABLE}
_LASTING: ArgumentsType = {"x-queue-type": "quorum", LIMIT: ANY_NUMBER}
_CONSUMED: ArgumentsType = {
    **_LASTING,
    "x-single-active-consumer": True,
    "x-dead-letter-exchange": DEAD,
    "x-dead-letter-routing-key": _BY_RABBITMQ,
    # Else RabbitMQ may lose the dead letter on its way; this needs reject-publish.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
# An entry that RabbitMQ puts aside once more, by a foreign policy, waits for a person.
_CONSUMED_ASIDE: ArgumentsType = {**_CONSUMED, "x-dead-letter-routing-key": JUDGED}
# Nobody consumes these. A full one refuses, which at-least-once dead lettering needs.
_WAITING: ArgumentsType = {
    **_LASTING,
    "x-dead-letter-exchange": ENTRIES,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str
    arguments: ArgumentsType = field(default_factory=dict)

    def __str__(self) -> str:
        """As operators call it."""
        return f"the exchange {self.name}"

    @property
    def remedy(self) -> str:
        """How to get rid of another one with this name."""
        return "delete it and it is made anew"

    async def declare(self, channel: AbstractChannel, *, passive: bool) -> None:
        """Make it, or when `passive` see that it is there."""
        await channel.declare_exchange(
            self.name, self.type, durable=True, passive=passive, arguments=self.arguments
        )


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue."""

    name: str
    arguments: ArgumentsType

    def __str__(self) -> str:
        """As operators call it."""
        return f"the queue {self.name}"

    @property
    def remedy(self) -> str:
        """How to get rid of another one with this name."""
        return "once it is empty, delete it and it is made anew"

    async def declare(self, channel: AbstractChannel, *, passive: bool) -> None:
        """Make it, or when `passive` see that it is there."""
        await channel.declare_queue(
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
        await (await self._destination(channel)).bind(self.source, self.routing_key)

    async def unbind(self, channel: AbstractChannel) -> None:
        """Take it away."""
        await (await self._destination(channel)).unbind(self.source, self.routing_key)

    async def _destination(self, channel: AbstractChannel) -> AbstractExchange | AbstractQueue:
        get = channel.get_exchange if self.to_exchange else channel.get_queue
        return await get(self.destination, ensure=False)


@dataclass(frozen=True, slots=True)
class Topology:
    """The objects to declare, in order; `stale` are bindings that must not exist."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    stale: tuple[Binding, ...] = ()

    @property
    def things(self) -> tuple[Exchange | Queue, ...]:
        """All that can be looked at, in the order of making it."""
        return (*self.exchanges, *self.queues)


# The exchange that takes events, made and bound last. It has an alternate exchange, for events that
# come before it is bound.
ENTRANCE = Exchange(EVENTS, "topic", _NOWHERE_ELSE)
ENTRANCE_BINDING = Binding(EVENTS, ENTRIES, "#", to_exchange=True)


def partition(number: int) -> str:
    """Return the name of a partition's queue."""
    return f"{EVENTS}.{number}"


def waiting(delay: int) -> str:
    """Return the name of the queue in which entries wait for so many seconds."""
    return f"{WAITING}.{delay}"


# The exchanges that producers' consumers bind their queues to.
TO_CONSUMERS = (UNDELIVERED, REPORTS)
# The queues that no router consumes.
NOT_CONSUMED = (DEAD, *(waiting(delay) for delay in DELAYS), UNCLAIMED)


def pattern_of(*others: str) -> str:
    """Return a regular expression for the queues of all partitions, and these others."""
    names = [r"events\.[0-9]+", *(name.removeprefix("notifier.") for name in others)]
    return rf"^notifier\.({'|'.join(names)})$"


def topology(partitions: int) -> Topology:
    """Return the topology for so many partitions, without its entrance."""
    names = [partition(number) for number in range(partitions)]
    direct = Binding(ENTRIES, partition(0), "")
    hashed = Binding(ENTRIES, PARTITIONS, "", to_exchange=True)
    spread = tuple(Binding(PARTITIONS, name, "") for name in names)
    many = partitions > 1
    return Topology(
        exchanges=(
            Exchange(UNROUTABLE, "fanout"),
            Exchange(DEAD, "direct"),
            *((Exchange(PARTITIONS, "x-modulus-hash", _NOWHERE_ELSE),) if many else ()),
            Exchange(ENTRIES, "fanout", _NOWHERE_ELSE),
        ),
        queues=(
            Queue(DEAD, _LASTING),
            Queue(ASIDE, _CONSUMED_ASIDE),
            Queue(UNROUTABLE, _CONSUMED),
            *(Queue(name, _CONSUMED) for name in names),
        ),
        bindings=(
            Binding(DEAD, DEAD, JUDGED),
            Binding(DEAD, ASIDE, _BY_RABBITMQ),
            Binding(UNROUTABLE, UNROUTABLE, ""),
            *((*spread, hashed) if many else (direct,)),
        ),
        # Else a change between one and many partitions would route each event twice.
        stale=(direct if many else hashed, *_OF_OLDER_VERSIONS),
    )


_OF_OLDER_VERSIONS = (
    Binding(EVENTS, partition(0), "#"),
    Binding(EVENTS, PARTITIONS, "#", to_exchange=True),
    Binding(DEAD, DEAD, _BY_RABBITMQ),
)


def returns() -> Topology:
    """Return the objects by which events wait, are handed back and reported.

    Routers alone need them, and declare them once `notifier.entries` is there.
    """
    return Topology(
        exchanges=(
            Exchange(WAITING, "topic", _NOWHERE_ELSE),
            Exchange(UNCLAIMED, "fanout"),
            *(Exchange(n, "topic", {"alternate-exchange": UNCLAIMED}) for n in TO_CONSUMERS),
        ),
        queues=(
            *(Queue(waiting(d), {**_WAITING, "x-message-ttl": d * 1000}) for d in DELAYS),
            Queue(UNCLAIMED, _LASTING),
        ),
        bindings=(
            *(Binding(WAITING, waiting(delay), f"{delay}.#") for delay in DELAYS),
            Binding(UNCLAIMED, UNCLAIMED, ""),
        ),
    )


def definitions(partitions: int, vhost: str = "/") -> dict[str, object]:
    """Return the topology and its policies as a RabbitMQ definitions file.

    For `rabbitmqctl import_definitions`. The virtual host must exist.
    """
    wanted, back = topology(partitions), returns()
    place = {"vhost": vhost, "durable": True, "auto_delete": False}
    return {
        "exchanges": [
            {"name": e.name, "type": e.type, "internal": False, "arguments": e.arguments, **place}
            for e in (*wanted.exchanges, *back.exchanges, ENTRANCE)
        ],
        "queues": [
            {"name": q.name, "arguments": q.arguments, **place}
            for q in (*wanted.queues, *back.queues)
        ],
        "bindings": [
            {
                "source": b.source,
                "vhost": vhost,
                "destination": b.destination,
                "destination_type": "exchange" if b.to_exchange else "queue",
                "routing_key": b.routing_key,
                "arguments": {},
            }
            for b in (*wanted.bindings, ENTRANCE_BINDING, *back.bindings)
        ],
        "policies": [{"vhost": vhost, "apply-to": "queues", **policy} for policy in _policies()],
    }


def _policies() -> list[dict[str, object]]:
    return [
        {
            "name": "notifier-events",
            "pattern": pattern_of(UNROUTABLE, ASIDE, rf"{WAITING}\.[0-9]+"),
            "priority": 1,
            # `overflow` is already reject-publish: a full queue refuses, it never drops.
            # The limit is for queues of older versions, which were declared without.
            "definition": {"max-length": _MOST_ENTRIES, "delivery-limit": ANY_NUMBER},
        },
        {
            "name": "notifier-dead",
            "pattern": r"^notifier\.(dead|unclaimed)$",
            "priority": 1,
            "definition": {
                "max-length": _MOST_ENTRIES,
                "message-ttl": _WEEK,
                "delivery-limit": ANY_NUMBER,  # each look at a dead letter is a delivery
            },
        },
    ]
