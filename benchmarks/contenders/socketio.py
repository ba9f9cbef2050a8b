"""Socket.IO twice: the server of its authors on Node, and python-socketio; both with Redis."""

import json
import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import msgspec

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
from benchmarks.contenders.tutorial import listens, uvicorn
from tests.support.process import free_port

NODE = Path(__file__).parent / "servers" / "socketio"


class _SocketIo(Contender):
    """Engine.IO 4 over WebSocket from the start, so that polling costs it nothing."""

    follows = "the user's room, and everyone"
    lacks = NO_TOKEN
    ready = "40{"
    ping, pong = "2", "3"

    @contextmanager
    def serve(self, backends: Backends) -> Iterator[Server]:
        """See Contender."""
        port = free_port()
        command, environment = self._command(port, backends.redis_url)
        if backends.tls:
            names = ("TLS_CERTIFICATE", "TLS_KEY")
            environment = {**environment, **dict(zip(names, map(str, backends.tls), strict=True))}
        with running(command, backends.home, lambda: listens(port), environment) as process:
            publish = through_redis(backends.redis_url, self._on_channel)
            yield Server(process.pid, port, publish)

    def handshake(self, user: str, *, alone: bool) -> str:
        """See Contender."""
        del alone  # it gets both in any case
        request = upgrade("/socket.io/?EIO=4&transport=websocket")
        connect = json.dumps({"user": user})
        return f"{request}\x0140{connect}"  # the packet that connects to the main namespace

    @abstractmethod
    def _command(self, port: int, redis_url: str) -> tuple[Sequence[str], Mapping[str, str]]: ...

    @abstractmethod
    def _on_channel(self, message: Message) -> tuple[str, bytes]:
        """Return what another process of the same service publishes in order to emit."""


class NodeSocketIo(_SocketIo):
    """Socket.IO on Node, with its Redis adapter."""

    name = "Socket.IO (Node)"

    def missing(self) -> str | None:
        """See Contender."""
        if not shutil.which("node"):
            return "node: install Node 20 or newer"
        if not (NODE / "node_modules" / "socket.io").exists():
            return "its packages: npm ci in benchmarks/contenders/servers/socketio"
        return None

    def version(self) -> str:
        """See Contender."""
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        names = ("socket.io", "@socket.io/redis-adapter", "redis")
        packages = (
            json.loads((NODE / f"node_modules/{n}/package.json").read_text()) for n in names
        )
        return ", ".join(
            [*(f"{p['name']} {p['version']}" for p in packages), f"Node {node.stdout[1:].strip()}"]
        )

    def _command(self, port: int, redis_url: str) -> tuple[Sequence[str], Mapping[str, str]]:
        environment = {"NODE_ENV": "production"}
        return ["node", str(NODE / "server.js"), str(port), redis_url], environment

    def _on_channel(self, message: Message) -> tuple[str, bytes]:
        rooms = [] if message.user is None else [f"user:{message.user}"]
        packet = {"type": 2, "data": ["event", message.data], "nsp": "/"}
        options: dict[str, object] = {"rooms": rooms, "except": [], "flags": {}}
        channel = "".join(["socket.io#/#", *(f"{room}#" for room in rooms)])
        return channel, msgspec.msgpack.encode(["emitter", packet, options])


class PythonSocketIo(_SocketIo):
    """python-socketio on uvicorn, with its Redis manager."""

    name = "python-socketio"

    def missing(self) -> str | None:
        """See Contender."""
        if find_spec("socketio"):
            return None
        return "python-socketio: pip install -r requirements/bench.txt"

    def version(self) -> str:
        """See Contender."""
        names = ("python-socketio", "python-engineio", "uvicorn")
        return ", ".join(f"{name} {version(name)}" for name in names)

    def _command(self, port: int, redis_url: str) -> tuple[Sequence[str], Mapping[str, str]]:
        app = "benchmarks.contenders.servers.python_socketio:app"
        return uvicorn(app, port), {"REDIS_URL": redis_url}

    def _on_channel(self, message: Message) -> tuple[str, bytes]:
        emit = {
            "method": "emit",
            "event": "event",
            "data": [message.data],
            "binary": False,
            "namespace": "/",
            "room": None if message.user is None else f"user:{message.user}",
            "skip_sid": None,
            "callback": None,
            "host_id": "benchmark",
        }
        return "socketio", json.dumps(emit).encode()
