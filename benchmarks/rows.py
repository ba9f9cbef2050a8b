"""The rows of the table: what is measured, in what, and what notifier has set itself as its bar."""

from collections.abc import Mapping
from typing import NamedTuple

NOTIFIER = "notifier"
ONE_BY_ONE = "aio-pika, one by one"
IN_BATCHES = "aio-pika, in batches"
ROUND_TRIPS = "bare round trips"


class Bar(NamedTuple):
    """So many times a peer's figure, or a figure of its own when `peer` is empty."""

    factor: float
    peer: str = ""


class Row(NamedTuple):
    """One kind of work. Where less is better a bar is a ceiling, else a floor."""

    key: str
    title: str
    unit: str
    bars: tuple[Bar, ...] = ()
    less_is_better: bool = False
    digits: int = 0

    def target(self, bar: Bar, medians: Mapping[str, float | None]) -> float | None:
        """Return the figure that a bar asks for, None when its peer has none in this run."""
        if not bar.peer:
            return bar.factor
        peer = medians.get(bar.peer)
        return None if peer is None else bar.factor * peer

    def is_met(self, bar: Bar, medians: Mapping[str, float | None]) -> bool | None:
        """Return whether notifier keeps a bar, None when that cannot be said."""
        ours, target = medians.get(NOTIFIER), self.target(bar, medians)
        if ours is None or target is None:
            return None
        return ours <= target if self.less_is_better else ours >= target


BROADCAST = Row(
    "broadcast",
    "broadcast: deliveries per CPU second of the server",
    "1/s",
    (Bar(1.4, "Nchan"),),
)
UNICAST = Row(
    "unicast",
    "Redis → one user's socket: deliveries per CPU second of the server",
    "1/s",
    (Bar(1.3, "Centrifugo"), Bar(2.2, "Socket.IO (Node)")),
)
MEMORY = Row(
    "memory",
    "memory per idle connection: growth of the server process",
    "KiB",
    (Bar(2.5),),
    less_is_better=True,
    digits=1,
)
CONNECTS = Row(
    "connects",
    "connects per CPU second of the server",
    "1/s",
    (Bar(1.2, "Centrifugo"),),
)
ROUTER = Row(
    "router",
    "RabbitMQ → Redis, one recipient: events per CPU second of the router",
    "1/s",
    (Bar(10_000), Bar(3, ONE_BY_ONE)),
)
AUDIENCE = Row(
    "audience",
    "event for 1,000 users: recipients per second through one router",
    "1/s",
    (Bar(40_000),),
)
API = Row(
    "api",
    "HTTP batch of 100 → 202: events per CPU second of the api",
    "1/s",
    (Bar(10_000),),
)
LATENCY = Row(
    "latency",
    "post → socket at a quarter of the most: 99th percentile",
    "ms",
    (Bar(3, ROUND_TRIPS),),
    less_is_better=True,
    digits=2,
)
GROWTH = Row(
    "growth",
    "cost of a delivery at the most connections ÷ at the fewest",
    "×",
    (Bar(1.15),),
    less_is_better=True,
    digits=2,
)
SLOW = Row(
    "slow",
    "one client stops reading: 99th percentile of the others ÷ before",
    "×",
    (Bar(1.1),),
    less_is_better=True,
    digits=2,
)
RETURNING = Row(
    "returning",
    "10,000 come back at once: longest that the loop is busy with anything",
    "ms",
    (Bar(50),),
    less_is_better=True,
    digits=1,
)
LEAVING = Row(
    "leaving",
    "10,000 connections break at once: longest turn of the loop, CPU time",
    "ms",
    (Bar(50),),
    less_is_better=True,
    digits=1,
)
HOLD_UP = Row(
    "hold-up",
    "events beside one for 10,000 users: how much later the last of them is",
    "ms",
    (Bar(50),),
    less_is_better=True,
    digits=1,
)
EVERYONE = Row(
    "everyone",
    "events for one client beside those for 10,000: 99th percentile",
    "ms",
    (Bar(10),),
    less_is_better=True,
    digits=1,
)
COMPRESSED = Row(
    "compressed",
    "broadcast of 2 KB, compressed: deliveries per CPU second of the gateway",
    "1/s",
)
TLS_CONNECTS = Row(
    "tls-connects",
    "connects over TLS, ended by the server: connects per CPU second of the server",
    "1/s",
)
TLS_MEMORY = Row(
    "tls-memory",
    "memory per idle connection over TLS: growth of the server process",
    "KiB",
    less_is_better=True,
    digits=1,
)
TLS = Row(
    "tls",
    "Redis → one user's socket over TLS: deliveries per CPU second of the server",
    "1/s",
)
TOPICS = Row(
    "topics",
    "memory per idle connection that follows 100 topics beside its own",
    "KiB",
    less_is_better=True,
    digits=1,
)
TOPIC_CONNECTS = Row(
    "topic-connects", "connects with 100 topics per CPU second of the gateway", "1/s"
)
MARKS = Row("marks", "marks moved and told per CPU second of the gateway", "1/s")
RECOUNT = Row(
    "recount",
    "200 unread events counted anew: CPU time of the gateway",
    "ms",
    less_is_better=True,
    digits=2,
)
PRESENCE = Row(
    "presence",
    "room of 1,000, 10 join and 10 leave a second: share of a core that the gateway takes",
    "%",
    (Bar(5),),
    less_is_better=True,
    digits=1,
)
CHAT = Row(
    "chat",
    "client publishes → 1,000 members of a room: 99th percentile",
    "ms",
    less_is_better=True,
    digits=1,
)
PROCESSES = Row(
    "processes",
    "4 gateways behind one port: deliveries a second ÷ those of one",
    "×",
    digits=2,
)

ROWS = (
    BROADCAST,
    UNICAST,
    MEMORY,
    CONNECTS,
    ROUTER,
    AUDIENCE,
    API,
    LATENCY,
    GROWTH,
    SLOW,
    RETURNING,
    LEAVING,
    HOLD_UP,
    EVERYONE,
    COMPRESSED,
    TLS,
    TLS_CONNECTS,
    TLS_MEMORY,
    TOPICS,
    TOPIC_CONNECTS,
    MARKS,
    RECOUNT,
    PRESENCE,
    CHAT,
    PROCESSES,
)
