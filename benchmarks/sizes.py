"""How much is done: the sizes of the bar, longer for profiles, or a tenth to try it out."""

from dataclasses import dataclass, replace

DATA = 200  # bytes of an event's data


@dataclass(frozen=True)
class Sizes:
    """Counts of connections, events and seconds."""

    connections: int = 10_000
    broadcasts: int = 20
    encrypted: int = 4_000  # connections over TLS
    growth: tuple[int, ...] = (1_000, 5_000, 10_000, 15_000)
    missed: int = 5
    growth_deliveries: int = 100_000
    users: int = 1_000
    rounds: int = 40
    routed: int = 20_000
    audiences: int = 60
    audience: int = 1_000
    large_audience: int = 10_000
    passing_rate: int = 200
    batches: int = 100
    batch: int = 100
    seconds: float = 6  # of paced work
    slow_rounds: int = 10
    slow_seconds: float = 2  # of each half of a round
    slow_bytes: int = 32_000
    slow_rate: int = 200
    broadcast_rate: int = 5
    marks: int = 32_000
    recounts: int = 1_000
    members: int = 1_000  # of a room
    join_rate: int = 10
    join_seconds: int = 20
    chat_rate: int = 10
    chat_events: int = 200


FULL = Sizes()
LONG = replace(FULL, broadcasts=150, rounds=300, routed=60_000, audiences=200, batches=600)
SMALL = replace(
    FULL,
    connections=1_000,
    encrypted=400,
    growth=(200, 500, 1_000, 1_500),
    growth_deliveries=10_000,
    users=200,
    rounds=10,
    routed=2_000,
    audiences=6,
    batches=10,
    seconds=2,
    marks=3_200,
    recounts=100,
    members=200,
    join_seconds=8,
    chat_events=40,
)
