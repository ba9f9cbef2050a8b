"""Redis and RabbitMQ for the benchmarks, on the core of the clients."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from redis import Redis

from benchmarks.contenders.contender import Backends
from benchmarks.delivering import Bench, Watch
from benchmarks.sizes import Sizes
from tests.support.services import RabbitAddress, RabbitServer, RedisServer, emptied, fresh_vhost


class Laboratory:
    """Redis and RabbitMQ, with a clean place in them for each measurement."""

    def __init__(self, redis: RedisServer, rabbitmq: RabbitServer | None, sizes: Sizes) -> None:
        self._redis = redis
        self._rabbitmq = rabbitmq
        self._sizes = sizes

    @contextmanager
    def bench(self, watch: Watch) -> Iterator[Bench]:
        """Yield what a measurement needs, with nothing left of the one before."""
        with ExitStack() as stack:
            amqp_url = "amqp://localhost:1/"  # of no use to who needs no RabbitMQ
            if self._rabbitmq:
                broker = RabbitAddress(self._rabbitmq.url, self._rabbitmq.management_url)
                amqp_url = stack.enter_context(fresh_vhost(broker))
            redis_url = stack.enter_context(emptied(self._redis.url))
            home = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
            yield Bench(Backends(redis_url, amqp_url, home), self._sizes, watch)

    def versions(self) -> dict[str, str]:
        """Return what Redis and RabbitMQ say of themselves."""
        with Redis.from_url(self._redis.url) as redis:
            # A peer that falls behind is to be measured, not cut off.
            redis.config_set("client-output-buffer-limit", "pubsub 256mb 0 0")
            found = {"redis": redis.info("server")["redis_version"]}
        if self._rabbitmq:
            overview = httpx.get(f"{self._rabbitmq.management_url}/api/overview", timeout=30)
            found["rabbitmq"] = overview.json()["rabbitmq_version"]
        return found


@contextmanager
def laboratory(sizes: Sizes, *, with_rabbitmq: bool) -> Iterator[Laboratory]:
    """Run Redis, and RabbitMQ where it is needed, on the core of the clients."""
    with ExitStack() as stack:
        home = stack.enter_context(TemporaryDirectory(prefix="notifier-bench-"))
        tempfile.tempdir = home
        redis = stack.enter_context(RedisServer())
        rabbitmq = stack.enter_context(RabbitServer()) if with_rabbitmq else None
        yield Laboratory(redis, rabbitmq, sizes)
