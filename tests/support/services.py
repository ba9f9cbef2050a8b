"""Redis and RabbitMQ that a test may kill, pause and start again, at one address with their data.

They run from the generation that `TEST_SERVERS` names, else in Docker where an engine answers,
else from the binaries on this machine. `TEST_REDIS=valkey` takes Valkey in place of Redis.
"""

import fcntl
import functools
import json
import os
import secrets
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol, Self, TextIO
from urllib.parse import urlsplit

import docker
import httpx
import pytest
import redis
from playwright.sync_api import sync_playwright
from testcontainers.core.container import DockerContainer

from tests.support.generations import chosen_root, inside
from tests.support.process import Process, free_port, wait_until
from tests.support.tls import NO_AUTHORITIES

REDIS_IMAGE = "redis:8.2"
VALKEY_IMAGE = "valkey/valkey:9.0"
RABBITMQ_IMAGE = "rabbitmq:4.2-management"
RABBITMQ_PLUGINS = ("rabbitmq_management", "rabbitmq_sharding")
_AMQP_1_0 = "rabbitmq_amqp1_0"  # RabbitMQ 4, of which the image is, speaks it without


class Runner(Protocol):
    """A process that runs a server, or a container of the same manners."""

    def start(self) -> None: ...
    def stop(self) -> object: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    @property
    def is_running(self) -> bool: ...
    def log_tail(self) -> str: ...
    def run(self, command: Sequence[str]) -> str: ...


@functools.cache
def in_docker() -> bool:
    """Whether servers run in containers: an engine answers, and no generation is chosen."""
    if chosen_root():
        return False
    try:
        with closing(docker.from_env(timeout=5)) as client:
            return bool(client.ping())
    except docker.errors.DockerException:
        return False


class Container:
    """A container with fixed ports, kept with its data over `stop` and `kill` until `remove`."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container
        self._is_made = False

    def start(self) -> None:
        if self._is_made:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._is_made = True

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=30)

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()
        self._container.get_wrapped_container().wait()

    def pause(self) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()

    @property
    def is_running(self) -> bool:
        self._container.reload()
        return self._container.status in {"created", "running", "paused"}

    def log_tail(self) -> str:
        log: bytes = self._container.get_wrapped_container().logs(tail=20)
        return log.decode(errors="replace")

    def run(self, command: Sequence[str]) -> str:
        code, output = self._container.get_wrapped_container().exec_run(list(command))
        assert code == 0, output.decode(errors="replace")
        return str(output.decode())

    def remove(self) -> None:
        if self._is_made:
            self._container.stop()


class Server(ABC):
    """One server for the length of a `with` block; gone with its data afterwards.

    `start` returns when it answers. All calls block: from a coroutine, use a thread.
    """

    _runner: Runner
    _cleanup: ExitStack

    def start(self) -> None:
        """Start it, or start it again with the same address, options and data."""
        self._runner.start()
        wait_until(self._is_ready, seconds=90, otherwise=lambda: self._complaint("gave no answer"))

    def stop(self) -> None:
        """End it in an orderly way."""
        self._runner.stop()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._runner.kill()

    def pause(self) -> None:
        """Make it hang: its sockets stay open, nothing answers."""
        self._runner.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._runner.resume()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended by itself, or been ended."""
        return self._runner.is_running

    def log_tail(self) -> str:
        """The last lines of its log."""
        return self._runner.log_tail()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._runner = self._make(cleanup)
            self.start()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @abstractmethod
    def _make(self, cleanup: ExitStack) -> Runner: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _is_ready(self) -> bool:
        assert self._runner.is_running, self._complaint("ended while starting")
        return self._answers()

    def _complaint(self, what: str) -> str:
        return f"{type(self).__name__} {what}; its log ends with:\n{self._runner.log_tail()}"


class RedisServer(Server):
    """A Redis that keeps nothing on disk, unless `options` (of redis.conf) say otherwise.

    `RedisServer(appendonly="yes", maxmemory_policy="noeviction")`
    """

    def __init__(self, **options: str) -> None:
        self._port = free_port()
        self._options = {"save": "", **options}
        self.url = f"redis://127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    def _make(self, cleanup: ExitStack) -> Runner:
        if in_docker():
            binary = f"{_redis()}-server"
            command = self._command([binary], bind="0.0.0.0", protected_mode="no")  # noqa: S104  # in the container
            images = {"redis": REDIS_IMAGE, "valkey": VALKEY_IMAGE}
            image = DockerContainer(images[_redis()]).with_command(command)
            return _container(image.with_bind_ports(6379, self._port), cleanup)
        return self._make_process(cleanup)

    def _make_process(self, cleanup: ExitStack) -> Runner:
        home = _temporary_directory("redis", cleanup)
        binary = _redis_binary("TEST_REDIS_URL")
        command = self._command(binary, bind="127.0.0.1", port=str(self._port), dir=str(home))
        return _process(command, {}, home, cleanup)

    def _command(self, binary: Sequence[str], **place: str) -> list[str]:
        options = {**place, **self._options}
        return [*binary, *(w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", v))]

    def _answers(self) -> bool:
        return _reply(self._port, b"PING\r\n") == b"+PONG\r\n"


class LocalRedis(RedisServer):
    """A Redis that is no container: Sentinel and replicas reach it where clients do."""

    @property
    def address(self) -> str:
        """Host and port as Redis' own settings write them."""
        return f"127.0.0.1 {self._port}"

    def _make(self, cleanup: ExitStack) -> Runner:
        return self._make_process(cleanup)


class SentinelServer(Server):
    """A Sentinel that watches `master`, and decides alone and quickly."""

    def __init__(self, master: LocalRedis) -> None:
        self.port = free_port()
        self._master = master
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _make(self, cleanup: ExitStack) -> Runner:
        home = _temporary_directory("sentinel", cleanup)
        settings = home / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {home}\n"
            f"sentinel monitor mymaster {self._master.address} 1\n"
            "sentinel down-after-milliseconds mymaster 500\n"
            "sentinel failover-timeout mymaster 3000\n"
        )
        command = [*_redis_binary("PATH"), str(settings), "--sentinel"]
        return _process(command, {}, home, cleanup)

    def _answers(self) -> bool:
        return _reply(self.port, b"PING\r\n") == b"+PONG\r\n"


class RabbitServer(Server):
    """A RabbitMQ with the plugins for management and sharding, and the user `guest`.

    RabbitMQ 3.10 can wedge a quorum queue for good when killed within 2 s of its declaration.
    """

    def __init__(self) -> None:
        self._port = free_port()
        self._management_port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/"
        self.management_url = f"http://guest:guest@127.0.0.1:{self._management_port}"

    @property
    def port(self) -> int:
        """Where it listens for AMQP."""
        return self._port

    def ctl(self, *arguments: str, program: str = "rabbitmqctl") -> str:
        """Run `rabbitmqctl`, or another of its programs, and return what that prints."""
        return self._runner.run([*_rabbitmq_binary(program), *arguments])

    def _make(self, cleanup: ExitStack) -> Runner:
        if in_docker():
            image = DockerContainer(RABBITMQ_IMAGE)
            image.with_bind_ports(5672, self._port).with_bind_ports(15672, self._management_port)
            plugins = f"[{','.join(RABBITMQ_PLUGINS)}].".encode()
            image.with_copy_into_container(plugins, "/etc/rabbitmq/enabled_plugins")
            return _container(image, cleanup)
        home = _temporary_directory("rabbitmq", cleanup)
        environment = self._environment(home)
        epmd = _process(_rabbitmq_binary("epmd"), environment, home, cleanup)
        epmd.start()
        return _process(_rabbitmq_binary("rabbitmq-server"), environment, home, cleanup)

    def _environment(self, home: Path) -> dict[str, str]:
        (home / "plugins").write_text(f"[{','.join(_plugins_there())}].")
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._port}\n"
            "management.tcp.ip = 127.0.0.1\n"
            f"management.tcp.port = {self._management_port}\n"
            "max_message_size = 134217728\n"  # as RabbitMQ 3 has it; since 4 it is 16 MiB
        )
        return {
            "HOME": str(home),  # of the Erlang cookie
            "ERL_CRASH_DUMP": str(home / "erl_crash.dump"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_LOG_BASE": str(home),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_NODENAME": f"notifier-{self._port}@localhost",
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "true",  # no shell in between: signals go to the server
        }

    def _answers(self) -> bool:
        return _reply(self._port, b"AMQP\x00\x00\x09\x01").startswith(b"\x01\x00\x00")


class RabbitAddress(NamedTuple):
    """Where a RabbitMQ takes AMQP, and where it is managed; both with user and password."""

    url: str
    management_url: str


def version_of(management_url: str) -> tuple[int, ...]:
    """The version of a RabbitMQ, as (3, 10, 8)."""
    told = (
        httpx.get(f"{management_url}/api/overview", timeout=30, verify=NO_AUTHORITIES)
        .raise_for_status()
        .json()
    )
    return tuple(int(part) for part in told["rabbitmq_version"].split("-")[0].split("."))


@contextmanager
def rabbitmq() -> Iterator[RabbitAddress]:
    """The RabbitMQ named in the environment, else one of our own."""
    if url := os.environ.get("TEST_AMQP_URL"):
        parts = urlsplit(url)
        credentials = f"{parts.username or 'guest'}:{parts.password or 'guest'}"
        guess = f"http://{credentials}@{parts.hostname}:15672"
        yield RabbitAddress(url, os.environ.get("TEST_AMQP_MANAGEMENT_URL", guess))
    else:
        with RabbitServer() as server:
            yield RabbitAddress(server.url, server.management_url)


@contextmanager
def shared_rabbitmq(folder: Path) -> Iterator[RabbitAddress]:
    """The one RabbitMQ of all processes that name this folder.

    The first of them starts it, and ends it once no other uses it. A lock ends with its process.
    """
    with (
        (folder / "rabbitmq.turn").open("w") as turn,  # of the one that starts or ends it
        (folder / "rabbitmq.json").open("a+") as note,  # shared by those that use it
        ExitStack() as started,
    ):
        fcntl.flock(turn, fcntl.LOCK_EX)
        note.seek(0)
        if known := note.read():
            address = RabbitAddress(*json.loads(known))
        else:
            address = started.enter_context(rabbitmq())
            print(json.dumps(address), file=note, flush=True)
            started.callback(_end, turn, note)
        fcntl.flock(note, fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield address


def _end(turn: TextIO, note: TextIO) -> None:
    fcntl.flock(turn, fcntl.LOCK_EX)
    fcntl.flock(note, fcntl.LOCK_EX)  # waits for the others
    note.truncate(0)  # one that comes later starts another


@contextmanager
def fresh_vhost(server: RabbitAddress) -> Iterator[str]:
    """The URL of a new virtual host, deleted afterwards with all connections to it."""
    name = f"test-{secrets.token_hex(6)}"
    address = urlsplit(server.url)
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    with httpx.Client(
        base_url=server.management_url, timeout=30, verify=NO_AUTHORITIES
    ) as management:
        try:
            management.put(f"/api/vhosts/{name}").raise_for_status()
        except httpx.HTTPError as error:
            pytest.fail(
                f"RabbitMQ's management API made no virtual host: {error}. Name it in "
                "TEST_AMQP_MANAGEMENT_URL, with an administrator.",
                pytrace=False,
            )
        user = address.username or "guest"
        management.put(f"/api/permissions/{name}/{user}", json=everything).raise_for_status()
        yield address._replace(path=f"/{name}").geturl()
        management.delete(f"/api/vhosts/{name}").raise_for_status()


@contextmanager
def redis_address() -> Iterator[str]:
    """The URL of the Redis named in the environment, else of one of our own; without keys."""
    if url := os.environ.get("TEST_REDIS_URL"):
        with redis.Redis.from_url(url) as client:
            if client.dbsize():
                pytest.fail(
                    "TEST_REDIS_URL names a database with keys, and tests empty it: name another.",
                    pytrace=False,
                )
        yield url
    else:
        with RedisServer() as server:
            yield server.url


@contextmanager
def emptied(redis_url: str) -> Iterator[str]:
    """The same URL, its database emptied before and afterwards."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        yield redis_url
        client.flushdb()


def find_chromium() -> str:
    """The path of a Chromium without windows, for half of the CPU time; else of a whole one."""
    named = os.environ.get("TEST_CHROMIUM")
    return (not named and shutil.which("chromium-headless-shell")) or find_whole_chromium()


def find_whole_chromium() -> str:
    """The path of a Chromium or Chrome: as named, as installed, or as Playwright brought it."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    on_macos = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    named = os.environ.get("TEST_CHROMIUM")
    for candidate in (named,) if named else (*names, on_macos):
        if path := shutil.which(candidate):
            return path
    if not named and (path := shutil.which(_playwrights_own())):
        return path
    pytest.fail(
        "The tests of the page need Chromium: apt-get install chromium, or .venv/bin/playwright "
        "install chromium, or name an executable in TEST_CHROMIUM.",
        pytrace=False,
    )


def _playwrights_own() -> str:
    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def _redis() -> str:
    return os.environ.get("TEST_REDIS") or "redis"


def _redis_binary(variable: str) -> list[str]:
    name = f"{_redis()}-server"
    return _binary(name, name, variable)


def _rabbitmq_binary(name: str) -> list[str]:
    if in_docker():
        return [name]
    # Debian's wrapper in sbin would change the user and take the system's own settings.
    unwrapped = f"usr/lib/rabbitmq/bin/{name}"
    is_there = ((chosen_root() or Path("/")) / unwrapped).exists()
    return _binary(f"/{unwrapped}" if is_there else name, "rabbitmq-server", "TEST_AMQP_URL")


def _plugins_there() -> list[str]:
    """Those of our plugins that this RabbitMQ brings: it does not start when one is missing."""
    there = (chosen_root() or Path("/")).glob("usr/lib/rabbitmq/lib/*/plugins/*")
    names = {each.name.partition("-")[0] for each in there}
    return [each for each in (*RABBITMQ_PLUGINS, _AMQP_1_0) if each in names or not names]


def _binary(name: str, package: str, variable: str) -> list[str]:
    """The words that run a server's command, of the chosen generation or of this machine."""
    if root := chosen_root():
        return inside(root, name)
    if path := shutil.which(name):
        return [path]
    pytest.fail(
        f"{name} is missing. Start a Docker engine, or install the package {package} (Debian, "
        f"Ubuntu: apt-get install {package}), or name a running server in {variable}.",
        pytrace=False,
    )


def _temporary_directory(name: str, cleanup: ExitStack) -> Path:
    directory = TemporaryDirectory(prefix=f"notifier-{name}-", ignore_cleanup_errors=True)
    return Path(cleanup.enter_context(directory))


def _process(
    command: Sequence[str], environment: Mapping[str, str], home: Path, cleanup: ExitStack
) -> Process:
    process = Process(command, log=home / "log", environment=environment)
    cleanup.callback(process.kill)
    return process


def _container(image: DockerContainer, cleanup: ExitStack) -> Container:
    container = Container(image)
    cleanup.callback(container.remove)
    return container


def _reply(port: int, greeting: bytes) -> bytes:
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=1) as connection,
    ):
        connection.sendall(greeting)
        return connection.recv(64)
    return b""
