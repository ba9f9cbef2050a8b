"""Rows about connections and deliveries: the same clients and the same work for each contender."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median

from benchmarks.contenders.contender import Backends, Contender, Message, Server
from benchmarks.load import Load, Report, load
from benchmarks.machine import cpu_seconds, resident_bytes
from benchmarks.sizes import DATA, Sizes

WARM_UP = 100
LONGEST = 10.0  # seconds of broadcasts, of whatever contender
Values = dict[str, float | None]  # `value` is the row's figure, others explain it
Watch = Callable[[str, int], AbstractContextManager[None]]  # of a row, over a process


@dataclass(frozen=True)
class Bench:
    """The parts of a measurement: the servers behind, how much to do, and the onlookers."""

    backends: Backends
    sizes: Sizes
    watch: Watch


def stamped(size: int = DATA) -> str:
    """Return data of `size` bytes that begins with the moment, as load.c reads it."""
    return f"~{time.monotonic_ns():019d}".ljust(size, "x")


@dataclass(frozen=True)
class Stay:
    """A contender that runs, with clients to connect to it."""

    server: Server
    clients: Load

    def broadcast(self, count: int, followers: int) -> None:
        """Publish to everyone, each when the one before is delivered; fewer when it takes long."""
        enough = time.monotonic() + LONGEST
        for number in range(1, count + 1):
            self.server.publish([Message(None, stamped())])
            self.clients.until(number * followers)
            if time.monotonic() > enough:
                break

    def one_for_each(self, users: int, delivered: int = 0) -> float:
        """Publish an event for each user after so many others; return how long delivering took."""
        messages = [Message(f"u{number}", stamped()) for number in range(users)]
        began = time.monotonic()
        with self.server.held():
            self.server.publish(messages)
            if self.server.is_fed:
                began = time.monotonic()
        self.clients.until((delivered + 1) * users)
        return time.monotonic() - began

    def cost_of_connects(self, count: int) -> tuple[Values, Values]:
        """Connect so many; return what that cost, and what they take while idle."""
        pid = self.server.pid
        memory, cpu = resident_bytes(pid), cpu_seconds(pid)
        report = self.clients.open(count)
        cpu = cpu_seconds(pid) - cpu
        memory = resident_bytes(pid) - memory
        connects: Values = {"value": count / cpu, "per_second": count / report["command"]}
        return connects, {"value": memory / count / 1024}

    def cost_of_unicast(self, users: int, rounds: int) -> Values:
        """Return what events cost, one for each of so many users in each round."""
        self.clients.reset()
        before, seconds = cpu_seconds(self.server.pid), 0.0
        for number in range(rounds):
            seconds += self.one_for_each(users, number)
        cpu = cpu_seconds(self.server.pid) - before
        return _costs(cpu, {**self.clients.so_far(), "seconds": seconds})

    def cost_of_broadcasts(self, count: int, followers: int) -> Values:
        """Return what broadcasts cost, and how busy the clients were meanwhile."""
        self.clients.reset()
        self.broadcast(2, followers)
        self.clients.reset()
        before = cpu_seconds(self.server.pid)
        self.broadcast(count, followers)
        cpu = cpu_seconds(self.server.pid) - before
        return _costs(cpu, self.clients.so_far())


def _costs(cpu: float, report: Report) -> Values:
    deliveries = report["deliveries"]
    return {
        "value": deliveries / cpu,
        "microseconds": cpu / deliveries * 1e6,
        "per_second": deliveries / report["seconds"],
        "server_busy": cpu / report["seconds"],
        "client_busy": report["worked"] / report["seconds"],
        "client_microseconds": report["worked"] / deliveries * 1e6,
        "p50_ms": report["p50"] / 1000,
        "p99_ms": report["p99"] / 1000,
    }


@contextmanager
def staying(
    contender: Contender,
    bench: Bench,
    connections: int,
    *,
    alone: bool = False,
    door: Callable[[int], AbstractContextManager[int]] = nullcontext,
) -> Iterator[Stay]:
    """Run a contender, and clients for so many users, of whom the first have connected.

    `door` yields the port that clients connect to, given the contender's.
    """
    users = (f"u{number}" for number in range(connections + WARM_UP))
    handshakes = [contender.handshake(user, alone=alone) for user in users]
    marks = (contender.ready, contender.ping, contender.pong)
    with (
        contender.serve(bench.backends) as server,
        door(server.port) as port,
        load(port, handshakes, marks) as clients,
    ):
        clients.open(WARM_UP)
        yield Stay(server, clients)


def crowd(contender: Contender, bench: Bench) -> dict[str, Values]:
    """Connect many, see what they take while idle, then broadcast to them."""
    count = bench.sizes.connections
    with staying(contender, bench, count) as stay:
        pid = stay.server.pid
        with bench.watch("memory", pid), bench.watch("connects", pid):
            connects, memory = stay.cost_of_connects(count)
        with bench.watch("broadcast", pid):
            broadcast = stay.cost_of_broadcasts(bench.sizes.broadcasts, count + WARM_UP)
        return {"connects": connects, "memory": memory, "broadcast": broadcast}


def growth(contender: Contender, bench: Bench) -> dict[str, Values]:
    """Broadcast to more and more, and compare what a delivery costs."""
    sizes = bench.sizes.growth
    costs: dict[int, float] = {}
    with staying(contender, bench, sizes[-1] - WARM_UP) as stay:
        connected = WARM_UP
        for size in sizes:
            stay.clients.open(size - connected)
            connected = size
            values = stay.cost_of_broadcasts(bench.sizes.growth_deliveries // size, size)
            costs[size] = values["microseconds"] or 0.0
    each = {f"microseconds_{size}": cost for size, cost in costs.items()}
    return {"growth": {"value": costs[sizes[-1]] / costs[sizes[0]], **each}}


def unicast(contender: Contender, bench: Bench) -> dict[str, Values]:
    """Publish an event for each user, all waiting in Redis before the server goes on; and again.

    A rate that the publisher sets would measure the publisher. One for each, because whoever joins
    several events for a user into one write has nothing to join in real life either.
    """
    users, rounds = bench.sizes.users, bench.sizes.rounds
    with staying(contender, bench, users - WARM_UP, alone=True) as stay:
        stay.clients.open(users - WARM_UP)
        stay.one_for_each(users)
        with bench.watch("unicast", stay.server.pid):
            return {"unicast": stay.cost_of_unicast(users, rounds)}


def slow(contender: Contender, bench: Bench) -> dict[str, Values]:
    """Send to all, and much to one of them; then that one stops reading; and again with another."""
    users, rounds = bench.sizes.users, bench.sizes.slow_rounds
    pairs: list[tuple[Values, Values]] = []
    with staying(contender, bench, users - WARM_UP) as stay:
        stay.clients.open(users - WARM_UP)
        stay.broadcast(2, users)
        memory = resident_bytes(stay.server.pid)
        for last in range(users - 1, users - 1 - rounds, -1):
            before = _paced(stay, bench, last, followers=last + 1)
            if before["gone"]:
                raise RuntimeError(f"lost {before['gone']:.0f} clients that do read")
            stay.clients.stall(last)
            pairs.append((before, _paced(stay, bench, last, followers=last)))
        grown = resident_bytes(stay.server.pid) - memory
    return {"slow": {**compared(pairs), "memory_mb": grown / 1e6}}


def compared(pairs: Sequence[tuple[Values, Values]]) -> Values:
    """Return the medians of halves that follow each other, so that nothing else is compared."""
    ratios = [
        after["p99_ms"] / before["p99_ms"] if before["p99_ms"] and after["p99_ms"] else None
        for before, after in pairs
    ]
    known = [ratio for ratio in ratios if ratio is not None]
    found: Values = {"value": median(known) if len(known) == len(ratios) else None}
    for name, halves in zip(("before", "after"), zip(*pairs, strict=True), strict=True):
        p99s = [half["p99_ms"] for half in halves if half["p99_ms"] is not None]
        found[f"p99_ms_{name}"] = median(p99s) if p99s else None
        found[f"arrived_{name}"] = min(half["arrived"] or 0.0 for half in halves)
    return found


def _paced(stay: Stay, bench: Bench, last: int, *, followers: int) -> Values:
    """Broadcast at a rate, with large events for one user in between."""
    sizes = bench.sizes
    large = Message(f"u{last}", "x" * sizes.slow_bytes)
    every = sizes.slow_rate // sizes.broadcast_rate
    count = int(sizes.slow_seconds * sizes.broadcast_rate) * every
    stay.clients.reset()
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / sizes.slow_rate - time.monotonic()))
        stay.server.publish([large])
        if number % every == 0:
            stay.server.publish([Message(None, stamped())])
    expected = followers * count // every
    report = stay.clients.patiently(expected)
    arrived = report["deliveries"] / expected
    # An event that never came is not late but lost: a percentile of the rest would hide that.
    p99 = report["p99"] / 1000 if arrived >= 1 else None
    return {"p99_ms": p99, "arrived": arrived, "gone": report["gone"]}
