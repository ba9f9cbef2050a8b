"""Centrifugo: Go, with its Redis engine."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jwt

from benchmarks.contenders.contender import (
    Backends,
    Contender,
    Message,
    Server,
    TlsFiles,
    chunks,
    running,
    upgrade,
)
from benchmarks.contenders.http import Connection, Request
from benchmarks.contenders.tutorial import listens
from benchmarks.machine import CLIENT_CORE
from tests.support.process import free_port

_SECRET = "a-secret-that-only-the-benchmarks-know-of"


class Centrifugo(Contender):
    """Two nodes on one Redis: the one that is measured has the sockets, the other is posted to."""

    name = "Centrifugo"
    follows = "the user's channel, and everyone"
    ready = '"connect":{'
    ping = pong = "{}"

    def missing(self) -> str | None:
        """See Contender."""
        if shutil.which("centrifugo"):
            return None
        return "centrifugo: go install github.com/centrifugal/centrifugo/v6@latest, and on PATH"

    def version(self) -> str:
        """See Contender."""
        binary = str(shutil.which("centrifugo"))
        told = subprocess.run(
            [binary, "version"], capture_output=True, text=True, check=True
        ).stdout
        if go := shutil.which("go"):  # built by `go install`, it does not know its version itself
            query = [go, "version", "-m", binary]
            modules = subprocess.run(query, capture_output=True, text=True, check=True)
            lines = (line.split() for line in modules.stdout.splitlines())
            told = next((f"Centrifugo {w[2]}" for w in lines if w[:1] == ["mod"]), told)
        return told.strip()

    @contextmanager
    def serve(self, backends: Backends) -> Iterator[Server]:
        """See Contender."""
        node = _Node(backends, "server", backends.tls)
        poster = _Node(backends, "poster")
        with (
            running(node.command, node.home, lambda: listens(node.port)) as process,
            running(poster.command, poster.home, lambda: listens(poster.port), core=CLIENT_CORE),
        ):
            yield Server(process.pid, node.port, poster.publish)

    def handshake(self, user: str, *, alone: bool) -> str:
        """See Contender."""
        del alone  # it follows both in any case
        claims = {"sub": user, "channels": ["everyone"], "exp": int(time.time()) + 7200}
        connect = {"id": 1, "connect": {"token": jwt.encode(claims, _SECRET, "HS256")}}
        return f"{upgrade('/connection/websocket')}\x01{json.dumps(connect)}"


class _Node:
    def __init__(self, backends: Backends, name: str, tls: TlsFiles | None = None) -> None:
        self.home = backends.home / name
        self.home.mkdir()
        self.port = free_port()
        self._connection = Connection(self.port)
        file = self.home / "config.json"
        file.write_text(json.dumps(_configuration(self.port, backends.redis_url, tls)))
        self.command: list[str | Path] = ["centrifugo", "-c", file]

    def publish(self, messages: Sequence[Message]) -> None:
        for chunk in chunks(messages):
            commands = [{"publish": {"channel": _channel(m), "data": m.data}} for m in chunk]
            body = json.dumps({"commands": commands}).encode()
            self._connection.post([Request("/api/batch", body, ("X-API-Key: key",))])


def _channel(message: Message) -> str:
    return "everyone" if message.user is None else f"#{message.user}"


def _configuration(port: int, redis_url: str, tls: TlsFiles | None) -> dict[str, object]:
    server: dict[str, object] = {"address": "127.0.0.1", "port": port}
    if tls:
        pair = {"cert_pem": str(tls.certificate), "key_pem": str(tls.key)}
        server["tls"] = {"enabled": True, **pair}
    return {
        "http_server": server,
        "client": {
            "token": {"hmac_secret_key": _SECRET},
            "allowed_origins": ["*"],
            "subscribe_to_user_personal_channel": {"enabled": True},
        },
        "http_api": {"key": "key"},
        "engine": {"type": "redis", "redis": {"address": [redis_url]}},
        "log": {"level": "error"},
    }
