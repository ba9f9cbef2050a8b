"""Servers that scenarios break come back as those scenarios rely on."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import aio_pika
import pytest
import redis

from tests.support.process import wait_until
from tests.support.roles import Role
from tests.support.services import RabbitServer, RedisServer

_A_RUN_THAT_DIES = {
    "server": """
from tests.support.services import RedisServer
with RedisServer() as server:
    print(server.url, flush=True)
    input()
""",
    "role": """
from pathlib import Path
from tests.support.roles import Role
with Role("dev", Path("dev.log")) as dev:
    dev.wait_until_ready()
    print(dev.gateway_url, flush=True)
    input()
""",
}


@pytest.fixture
def short_path() -> Iterator[str]:
    """A folder for Unix sockets, of which Linux takes 107 characters."""
    with TemporaryDirectory() as path:
        yield path


@pytest.fixture
def durable_redis() -> Iterator[RedisServer]:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        yield server


def test_a_killed_redis_comes_back_at_its_address_with_its_data(durable_redis: RedisServer) -> None:
    with redis.Redis.from_url(durable_redis.url) as client:
        client.set("answer", 42)

    durable_redis.kill()
    durable_redis.start()

    with redis.Redis.from_url(durable_redis.url) as client:
        assert client.get("answer") == b"42"


def test_a_paused_redis_answers_nobody_until_it_is_resumed(durable_redis: RedisServer) -> None:
    with redis.Redis.from_url(durable_redis.url, socket_timeout=0.2) as client:
        durable_redis.pause()

        with pytest.raises(redis.TimeoutError):
            client.ping()

        durable_redis.resume()
        assert client.ping()


async def test_a_killed_rabbitmq_comes_back_at_its_address_with_its_messages() -> None:
    with RabbitServer() as rabbit:
        async with await aio_pika.connect(rabbit.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("kept", durable=True)
            message = aio_pika.Message(b"42", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key="kept")

        await asyncio.sleep(3)  # RabbitMQ may lose what was declared 2 s before it is killed
        await asyncio.to_thread(rabbit.kill)
        await asyncio.to_thread(rabbit.start)

        async with await aio_pika.connect(rabbit.url) as connection:
            queue = await (await connection.channel()).get_queue("kept")
            received = await queue.get(no_ack=True)
    assert received.body == b"42"


async def test_each_test_has_a_virtual_host_of_its_own(amqp_url: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("mine", durable=True)

    assert urlsplit(amqp_url).path.startswith("/test-")
    assert queue.declaration_result.message_count == 0


def test_a_role_is_a_process_of_its_own(tmp_path: Path) -> None:
    with Role("dev", tmp_path / "dev.log") as dev:
        dev.wait_until_ready()

        assert os.getsid(dev.pid) == os.getpgid(dev.pid) == dev.pid
        dev.kill()
        assert dev.wait() == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["server", "role"])
def test_processes_die_with_the_test_run_that_started_them(
    pytestconfig: pytest.Config, short_path: str, kind: str
) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", _A_RUN_THAT_DIES[kind]],
        cwd=short_path,
        env={**os.environ, "TMPDIR": short_path, "PYTHONPATH": str(pytestconfig.rootpath)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    port = urlsplit(run.stdout.readline()).port

    run.send_signal(signal.SIGKILL)
    run.communicate()

    def is_gone() -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) != 0

    wait_until(is_gone, seconds=20, otherwise=lambda: "it outlives its test run")
