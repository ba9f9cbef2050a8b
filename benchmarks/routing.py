"""Rows about the way from a producer to Redis: the api and the router, and all of it together."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager

import aiormq
from redis import Redis

from benchmarks.contenders.contender import Message, running
from benchmarks.contenders.http import Connection, Request
from benchmarks.contenders.notifier import Notifier, event_of
from benchmarks.contenders.servers.consumer import QUEUE
from benchmarks.delivering import Bench, Values, stamped
from benchmarks.load import Load, Report, load
from benchmarks.machine import SERVER_CORE, cpu_seconds, held, on_core
from tests.support.process import wait_until
from tests.support.roles import KEY, Role, Service, service_of

PRODUCERS = 4  # connections that post batches side by side
SINGLY = 32  # connections that post single events
USERS = 100
_AT_ONCE = 500  # publishes whose confirms are awaited together


@contextmanager
def roles(
    bench: Bench, choose: Callable[[Service], Sequence[Role]], **settings: str
) -> Iterator[Service]:
    """Run some of the roles on the core of the server while inside."""
    backends = bench.backends
    service = service_of(backends.home, backends.amqp_url, backends.redis_url, **settings)
    chosen = choose(service)
    try:
        with on_core(SERVER_CORE):
            for role in chosen:
                role.start()
        for role in chosen:
            role.wait_until_ready()
        yield service
    finally:
        for role in chosen:
            role.kill()


# The router.


async def _fill(url: str, exchange: str, letters: Sequence[tuple[str, bytes]]) -> None:
    """Publish, and return when RabbitMQ has confirmed all: the row fails if one is missing."""
    connection = await aiormq.connect(url)
    channel = await connection.channel()

    async def publish(number: int) -> None:
        key, body = letters[number]
        properties = aiormq.spec.Basic.Properties(
            delivery_mode=2, correlation_id=key, message_id=f"{number}", app_id="benchmark"
        )
        await channel.basic_publish(
            body, exchange=exchange, routing_key=key if exchange else QUEUE, properties=properties
        )

    for start in range(0, len(letters), _AT_ONCE):
        await asyncio.gather(*map(publish, range(start, min(start + _AT_ONCE, len(letters)))))
    await connection.close()


def _publishes(redis: Redis) -> int:
    return int(redis.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"])


def _until_published(redis: Redis, count: int) -> None:
    wait_until(
        lambda: _publishes(redis) >= count,
        seconds=120,
        otherwise=lambda: f"{_publishes(redis)} of {count} were published",
    )


def _drained(
    bench: Bench, row: str, pid: int, fill: Coroutine[None, None, None], count: int
) -> Values:
    """Fill the queue while its consumer is held, then see what emptying it costs."""
    with Redis.from_url(bench.backends.redis_url) as redis:
        with held(pid):
            asyncio.run(fill)
            redis.config_resetstat()
            cpu, began = cpu_seconds(pid), time.monotonic()
        with bench.watch(row, pid):
            _until_published(redis, count)
        seconds, cpu = time.monotonic() - began, cpu_seconds(pid) - cpu
    return {"value": count / cpu, "per_second": count / seconds, "busy": cpu / seconds}


def router(bench: Bench) -> dict[str, Values]:
    """Let one router empty a queue of events for one user each."""
    count = bench.sizes.routed
    body = json.dumps({"type": "benchmark", "data": stamped()}).encode()
    letters = [(f"user.u{number % bench.sizes.users}", body) for number in range(count)]
    with roles(bench, lambda service: [service.router]) as service:
        fill = _fill(service.amqp_url, "notifier.events", letters)
        return {"router": _drained(bench, "router", service.router.pid, fill, count)}


def consumer(bench: Bench, module: str = "consumer") -> dict[str, Values]:
    """Let a consumer by aio-pika do the same, without history or deduplication."""
    count, backends = bench.sizes.routed, bench.backends
    body = json.dumps({"type": "benchmark", "data": stamped()}).encode()
    letters = [(f"user.u{number % bench.sizes.users}", body) for number in range(count)]
    command = [sys.executable, "-m", f"benchmarks.contenders.servers.{module}"]
    log = backends.home / "server.log"
    environment = {"AMQP_URL": backends.amqp_url, "REDIS_URL": backends.redis_url}
    with running(
        command, backends.home, lambda: "consuming" in log.read_text(), environment
    ) as process:
        fill = _fill(backends.amqp_url, "", letters)
        return {"router": _drained(bench, module, process.pid, fill, count)}


def audience(bench: Bench) -> dict[str, Values]:
    """Let one router publish events for many users each; the figure is by the clock."""
    events, users = bench.sizes.audiences, bench.sizes.audience
    body = {"users": [f"u{number}" for number in range(users)], "type": "benchmark"}
    letter = ("", json.dumps({**body, "data": stamped()}).encode())
    with roles(bench, lambda service: [service.router]) as service:
        fill = _fill(service.amqp_url, "notifier.events", [letter] * events)
        values = _drained(bench, "audience", service.router.pid, fill, events * users)
    return {"audience": {**values, "value": values["per_second"], "per_cpu": values["value"]}}


# The api.


def _post(bodies: Sequence[bytes]) -> Request:
    body = b"[" + b",".join(bodies) + b"]" if len(bodies) > 1 else bodies[0]
    headers = (f"Authorization: Bearer {KEY.secret}", "Content-Type: application/json")
    return Request("/v1/events", body, headers)


def _producers(service: Service, count: int) -> list[Connection]:
    port = service.api.port("NOTIFIER_API_PORT")
    return [Connection(port, accepted="202") for _ in range(count)]


def api(bench: Bench) -> dict[str, Values]:
    """Post batches over a few connections, each with one under way at a time."""
    sizes = bench.sizes
    event = event_of(Message("u1", stamped()))
    batch = _post([event] * sizes.batch)
    with roles(bench, lambda service: [service.api, service.router]) as service:
        service.router.stop()  # it has declared the queue, and is not wanted here
        producers, pid = _producers(service, PRODUCERS), service.api.pid
        _side_by_side(producers, batch, PRODUCERS)
        cpu, began = cpu_seconds(pid), time.monotonic()
        with bench.watch("api", pid):
            _side_by_side(producers, batch, sizes.batches)
        seconds, cpu = time.monotonic() - began, cpu_seconds(pid) - cpu
    count = sizes.batch * (sizes.batches // PRODUCERS) * PRODUCERS
    return {
        "api": {"value": count / cpu, "per_second": count / seconds, "busy": cpu / seconds},
    }


def publisher(bench: Bench) -> dict[str, Values]:
    """Let aio-pika publish as many batches from one process, which takes no requests."""
    sizes, size = bench.sizes, len(event_of(Message("u1", stamped())))
    arguments = (PRODUCERS, sizes.batches, sizes.batch, size)
    values = _printed(bench, "batch_publisher", *arguments)
    count = sizes.batch * (sizes.batches // PRODUCERS) * PRODUCERS
    cpu, seconds = values["cpu"], values["seconds"]
    return {"api": {"value": count / cpu, "per_second": count / seconds, "busy": cpu / seconds}}


def _printed(bench: Bench, module: str, *arguments: float) -> dict[str, float]:
    """Run a module on the core of the server; return the JSON that it prints."""
    backends = bench.backends
    addresses = {"AMQP_URL": backends.amqp_url, "REDIS_URL": backends.redis_url}
    with on_core(SERVER_CORE):
        ended = subprocess.run(
            [sys.executable, "-m", f"benchmarks.contenders.servers.{module}", *map(str, arguments)],
            env={**os.environ, **addresses},
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
        )
    values: dict[str, float] = json.loads(ended.stdout)
    return values


def _side_by_side(producers: Sequence[Connection], request: Request, count: int) -> None:
    for _ in range(count // len(producers)):
        for producer in producers:
            producer.send([request])
        for producer in producers:
            producer.wait()


# All of it.


class Latency:
    """Two measurements at one rate: the second takes over what the first has found."""

    def __init__(self) -> None:
        self._rate = 0.0

    def notifier(self, bench: Bench) -> dict[str, Values]:
        """Post events one by one at a quarter of the most, and see when they arrive."""
        handshakes = [Notifier().handshake(f"u{number}", alone=True) for number in range(USERS)]
        with roles(bench, lambda all_: [all_.api, all_.router, all_.gateway]) as service:
            port = service.gateway.port("NOTIFIER_GATEWAY_PORT")
            with load(port, handshakes, (Notifier.ready, "", "")) as clients:
                clients.open(USERS)
                producers = _producers(service, SINGLY)
                most = _most(clients, producers, bench.sizes.seconds)
                self._rate = most / 4
                with bench.watch("latency", service.gateway.pid):
                    report = _at_a_rate(clients, producers, self._rate, bench.sizes.seconds)
        values = {"value": report["p99"] / 1000, "p50_ms": report["p50"] / 1000}
        return {"latency": {**values, "most_per_second": most, "rate": self._rate}}

    def bare(self, bench: Bench) -> dict[str, Values]:
        """Measure a round trip through RabbitMQ, then one through Redis, with nothing around."""
        arguments = (self._rate, bench.sizes.seconds, len(event_of(Message("u1", stamped()))))
        values = _printed(bench, "round_trips", *arguments)
        return {"latency": {"value": values["p99_ms"], **values, "rate": self._rate}}


def _most(clients: Load, producers: Sequence[Connection], seconds: float) -> float:
    """Return how many events a second get through when each is posted after an answer."""
    clients.reset()
    began, posted = time.monotonic(), 0
    while time.monotonic() < began + seconds / 2:
        for producer in producers:
            producer.send([_post([event_of(Message(f"u{posted % USERS}", stamped()))])])
            posted += 1
        for producer in producers:
            producer.wait()
    clients.until(posted)
    return posted / (time.monotonic() - began)


def _at_a_rate(
    clients: Load, producers: Sequence[Connection], rate: float, seconds: float
) -> Report:
    """Post without waiting for the answers of others."""
    clients.reset()
    count, began = int(rate * seconds), time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        producer = producers[number % len(producers)]
        producer.wait()
        producer.send([_post([event_of(Message(f"u{number % USERS}", stamped()))])])
    for producer in producers:
        producer.wait()
    return clients.until(count)
