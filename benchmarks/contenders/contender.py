"""A contender: a server that is started, connected to, and published through."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from redis import Redis

from benchmarks.machine import SERVER_CORE, held, on_core
from tests.support.process import Process, wait_until

CHUNK = 500  # messages in one pipeline
NO_TOKEN = {"connects": "no token", "memory": "no token"}


class Message(NamedTuple):
    """A publication: 200 bytes of `data`, for one user or for everyone (None)."""

    user: str | None
    data: str


Publish = Callable[[Sequence[Message]], None]


class TlsFiles(NamedTuple):
    """A certificate and its key, in PEM: who is given them serves over TLS."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Backends:
    """Where Redis and RabbitMQ answer, a directory for logs and the like, and files for TLS."""

    redis_url: str
    amqp_url: str
    home: Path
    tls: "TlsFiles | None" = None


@dataclass(frozen=True)
class Server:
    """A contender that runs: its process, its port, and the way to publish through it.

    `is_fed` is whether publishing goes past the server, so that it can be held meanwhile.
    """

    pid: int
    port: int
    publish: Publish
    is_fed: bool = True

    def held(self) -> AbstractContextManager[None]:
        """Stop the server while inside, where it is fed: afterwards all work is there at once."""
        return held(self.pid) if self.is_fed else nullcontext()


class Contender(ABC):
    """One of those who are compared.

    `ready` is in the message that makes a connection ready, empty when the upgrade does; `ping`
    and `pong` are its heartbeats where they are messages.
    """

    name: str
    follows: str  # the topic of a connection
    lacks: ClassVar[Mapping[str, str]] = {}  # by row, the thing that is not asked of it there
    ready = ""
    ping = ""
    pong = ""

    @abstractmethod
    def missing(self) -> str | None:
        """Return what must be installed first, and how; None when it can start."""

    @abstractmethod
    def version(self) -> str:
        """Return the version of what is compared, with its runtime."""

    @abstractmethod
    def serve(self, backends: Backends) -> AbstractContextManager[Server]:
        """Run it on the server's core while inside."""

    @abstractmethod
    def handshake(self, user: str, *, alone: bool) -> str:
        """Return a record for load.c: the upgrade request of a user, and what is said first.

        `alone` is whether the user's own events are wanted; else those for everyone. Who can
        follow both, does.
        """


def upgrade(path: str, *headers: str) -> str:
    """Return an upgrade request without its last line end."""
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    )
    return "\r\n".join(lines) + "\r\n\r\n"


def chunks(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Cut into pipelines."""
    for start in range(0, len(messages), CHUNK):
        yield messages[start : start + CHUNK]


@contextmanager
def running(
    command: Sequence[str | Path],
    home: Path,
    is_ready: Callable[[], bool],
    environment: Mapping[str, str] = MappingProxyType({}),
    core: int = SERVER_CORE,
) -> Iterator[Process]:
    """Run a server on one core while inside; it must say that it is ready within 30 s."""
    process = Process(command, log=home / "server.log", environment=environment)
    try:
        with on_core(core):
            process.start()
        wait_until(
            lambda: not process.is_running or is_ready(), seconds=30, otherwise=process.log_tail
        )
        if not process.is_running:
            raise RuntimeError(f"{command[0]} has ended:\n{process.log_tail()}")
        yield process
    finally:
        process.kill()


def through_redis(url: str, channel_and_payload: Callable[[Message], tuple[str, bytes]]) -> Publish:
    """Publish on Redis' channels, in pipelines."""
    redis = Redis.from_url(url)

    def publish(messages: Sequence[Message]) -> None:
        for chunk in chunks(messages):
            pipeline = redis.pipeline(transaction=False)
            for message in chunk:
                pipeline.publish(*channel_and_payload(message))
            pipeline.execute()

    return publish
