"""Rows about the longest that anybody has to wait for the others."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from redis import Redis

from benchmarks.contenders.contender import Message, Publish
from benchmarks.contenders.notifier import Notifier, publishing
from benchmarks.delivering import Bench, Values, stamped
from benchmarks.load import load
from benchmarks.profiling import TRACING
from benchmarks.routing import roles
from benchmarks.sizes import Sizes
from notifier.core.names import EVERYONE, personal_topic
from notifier.core.positions import Position, format_cursor
from tests.support.process import wait_until
from tests.support.roles import Role

PASSING = (sys.executable, "-m", "benchmarks.contenders.servers.passing")
_MARKS = (Notifier.ready, Notifier.ping, Notifier.pong)
_RECOVERED = 'notifier_publications_total{outcome="recovered"}'


# Clients that come back.


class Turns:
    """The turns of a process' event loop, as `tracing/sitecustomize.py` tells of them."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp())
        self.settings = {
            "BENCHMARK_TURNS": str(self._directory),
            "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{TRACING}",
        }

    @contextmanager
    def watched(self, pid: int) -> Iterator[Values]:
        """Yield what is known of the longest turn of those meanwhile, once it is over."""
        file = Path(self._directory, str(pid))
        found: Values = {}
        os.kill(pid, signal.SIGUSR2)
        yield found
        os.kill(pid, signal.SIGUSR2)
        wait_until(file.exists, seconds=60, otherwise=lambda: "the server did not tell")
        found.update(json.loads(file.read_text()))
        file.unlink()


def returning(bench: Bench) -> dict[str, Values]:
    """Let clients leave all at once and come back all at once, to what they have missed."""
    count, missed, turns = bench.sizes.connections, bench.sizes.missed, Turns()
    users = [f"u{number}" for number in range(count)]
    tokens = [Notifier.authorization(user) for user in users]
    redis_url = bench.backends.redis_url
    with (
        roles(bench, lambda service: [service.gateway], **turns.settings) as service,
        Redis.from_url(redis_url) as redis,
        publishing(redis_url) as publish,
    ):
        gateway = service.gateway
        left = _leave(gateway, redis, turns, [Notifier.request(token) for token in tokens])
        everyone = head_of(redis, EVERYONE)
        cursors = [_cursor(redis, personal_topic(user), everyone) for user in users]
        for _ in range(missed):
            publish([Message(None, stamped()), *(Message(user, stamped()) for user in users)])
        redis.config_resetstat()
        requests = map(Notifier.request, tokens, cursors)
        with load(_port(gateway), [*requests], _MARKS) as clients:
            with turns.watched(gateway.pid) as came, bench.watch("returning", gateway.pid):
                clients.open(count, at_a_time=count)
                report = clients.until(2 * missed * count)
            asked = redis.info("commandstats")
            _none_is_harmed(gateway, recovered=2 * missed * count)
            publish([Message(None, stamped())])
            clients.until((2 * missed + 1) * count)  # all follow, and nothing came twice
    reads = asked["cmdstat_eval"]["calls"]  # the first command of each pipeline
    return {
        "returning": {
            "value": came["cpu_ms"],
            "wall_ms": came["wall_ms"],
            "collector_ms": came["collector_ms"],
            "seconds": report["seconds"],
            "reads": reads,
            "topics_per_read": 1 + asked["cmdstat_evalsha"]["calls"] / reads,
        },
        "leaving": {"value": left["cpu_ms"]},
    }


def _leave(gateway: Role, redis: Redis, turns: Turns, requests: Sequence[str]) -> Values:
    """Connect all, let them go in one moment, and see until the gateway follows nothing more."""
    with ExitStack() as stack:
        with load(_port(gateway), requests, _MARKS) as clients:
            clients.open(len(requests))
            left = stack.enter_context(turns.watched(gateway.pid))
        _until_nobody_follows(redis)
    return left


def _until_nobody_follows(redis: Redis) -> None:
    def followed() -> int:
        return len(redis.pubsub_channels(f"*{personal_topic('')}*"))

    wait_until(lambda: not followed(), seconds=60, otherwise=lambda: f"{followed()} are followed")


def _cursor(redis: Redis, topic: str, everyone: Position) -> str:
    return format_cursor({topic: head_of(redis, topic), EVERYONE: everyone})


def head_of(redis: Redis, topic: str) -> Position:
    """Return the position that whoever followed the topic last was told."""
    found: Any = redis.hmget(f"notifier:{{{topic}}}:head", "epoch", "offset")
    return Position(found[0].decode(), int(found[1]))


def _port(gateway: Role) -> int:
    return gateway.port("NOTIFIER_GATEWAY_PORT")


def _none_is_harmed(gateway: Role, *, recovered: int) -> None:
    samples = gateway.samples()
    wrong = ("notifier_gaps_", "notifier_connections_refused_", "notifier_holes_")
    found = {name: n for name, n in samples.items() if name.startswith(wrong) and n}
    if found or samples[_RECOVERED] != recovered:
        raise RuntimeError(f"{samples[_RECOVERED]:.0f} of {recovered} were replayed; {found}")


# Events beside one for everyone.


def everyone(bench: Bench) -> dict[str, Values]:
    """Send events to one client, and in between events for everyone, which it gets first."""
    sizes, contender = bench.sizes, Notifier()
    requests = [
        contender.handshake(f"u{number}", alone=False) for number in range(sizes.connections)
    ]
    with (
        contender.serve(bench.backends) as server,
        load(server.port, [contender.handshake("witness", alone=False)], _MARKS) as witness,
        load(server.port, requests, _MARKS) as crowd,
    ):
        witness.open(1)
        crowd.open(sizes.connections)
        with bench.watch("everyone", server.pid):
            events, broadcasts = _beside(server.publish, sizes)
            report = witness.until(events + broadcasts)
            crowd.until(broadcasts * sizes.connections)
    times = {f"{name}_ms": report[name] / 1000 for name in ("p50", "max")}
    return {"everyone": {"value": report["p99"] / 1000, **times}}


def _beside(publish: Publish, sizes: Sizes) -> tuple[int, int]:
    """Publish at a rate; return how many events for one and how many for everyone that were."""
    every = sizes.passing_rate // sizes.broadcast_rate
    count = int(sizes.passing_rate * sizes.seconds)
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / sizes.passing_rate - time.monotonic()))
        for_everyone = [] if number % every else [Message(None, stamped())]
        publish([*for_everyone, Message("witness", stamped())])
    return count, -(-count // every)


# Events that come behind a large audience.


def hold_up(bench: Bench) -> dict[str, Values]:
    """Send events for one user each through a router, then the same with large audiences between.

    With one partition all of them stand in one queue; with four, most of them in others.
    """
    values: Values = {}
    for name, partitions in (("one_partition", 1), ("partitions", 4)):
        settings = {"NOTIFIER_PARTITIONS": str(partitions)}
        with roles(bench, lambda service: [service.router], **settings):
            _passing(bench, 0)  # until each partition is taken from
            without, among = (_passing(bench, size) for size in (0, bench.sizes.large_audience))
        for kind, times in among.items():
            usual = median(without[kind])
            values[f"{name}_{kind}_worst_ms"] = max(times) - usual
            values[f"{name}_{kind}_p99_ms"] = quantiles(times, n=100)[-1] - usual
        values[f"{name}_without_ms"] = median(without["others"])
        values[f"{name}_without_worst_ms"] = max(without["others"])
    worst = max(value or 0.0 for key, value in values.items() if key.endswith("others_worst_ms"))
    return {"hold-up": {"value": worst, **values}}


def _passing(bench: Bench, audience: int) -> dict[str, list[float]]:
    """Return what events for members of the audience took, and those for others, in ms."""
    backends = bench.backends
    arguments = map(str, (bench.sizes.passing_rate, bench.sizes.seconds, audience))
    ended = subprocess.run(
        [*PASSING, *arguments],
        env={**os.environ, "AMQP_URL": backends.amqp_url, "REDIS_URL": backends.redis_url},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    found: dict[str, list[float]] = json.loads(ended.stdout)
    return found
