"""FastAPI with the connection manager that its tutorial teaches, and Redis Pub/Sub."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version

from benchmarks.contenders.contender import (
    NO_TOKEN,
    Backends,
    Contender,
    Message,
    Server,
    running,
    through_redis,
    upgrade,
)
from tests.support.process import free_port


def listens(port: int) -> bool:
    """Return whether somebody listens there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def uvicorn(app: str, port: int) -> list[str]:
    """Return the command that serves an application as uvicorn's documentation advises."""
    options = ("--port", str(port), "--backlog", "4096", "--no-access-log")
    return [sys.executable, "-m", "uvicorn", app, *options, "--log-level", "warning"]


def _on_channel(message: Message) -> tuple[str, bytes]:
    channel = "everyone" if message.user is None else f"user:{message.user}"
    return channel, message.data.encode()


class Tutorial(Contender):
    """A task and a queue for each socket, and an `await` for each delivery."""

    name = "FastAPI tutorial"
    follows = "the user, and everyone"
    lacks = NO_TOKEN

    def missing(self) -> str | None:
        """See Contender."""
        return None

    def version(self) -> str:
        """See Contender."""
        names = ("fastapi", "uvicorn", "websockets", "redis")
        return ", ".join(f"{name} {version(name)}" for name in names)

    @contextmanager
    def serve(self, backends: Backends) -> Iterator[Server]:
        """See Contender."""
        port = free_port()
        command = uvicorn("benchmarks.contenders.servers.tutorial:app", port)
        redis_url = backends.redis_url
        with running(
            command, backends.home, lambda: listens(port), {"REDIS_URL": redis_url}
        ) as process:
            yield Server(process.pid, port, through_redis(redis_url, _on_channel))

    def handshake(self, user: str, *, alone: bool) -> str:
        """See Contender."""
        del alone  # it gets both in any case
        return upgrade(f"/ws/{user}")
