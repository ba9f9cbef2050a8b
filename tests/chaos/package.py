"""Clients of the package for browsers, in a process of Node, as one more kind of client."""

import asyncio
import json
import subprocess
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.invariants import Followed, Recipient, offset_of
from tests.support.roles import AUDIENCE, ISSUER, SECRET

BUILT = Path(__file__).parents[2] / "clients/js/dist/index.js"
_SCRIPT = Path(__file__).with_suffix(".mjs")
_LONGEST_LINE = 2**20


class Kind(NamedTuple):
    """A client that may use these transports; a restless one is closed and made anew by chance."""

    user: str
    topics: tuple[str, ...]
    transports: tuple[str, ...] = ("websocket", "sse", "poll")
    restless: bool = False


class Package:
    """The clients, by name; `run` has them follow by any of `doors`."""

    def __init__(self, doors: Sequence[str], clients: Mapping[str, tuple[Kind, Recipient]]) -> None:
        self._doors = doors
        self._clients = clients

    @property
    def recipients(self) -> list[Recipient]:
        """The events of each of them."""
        return [recipient for _, recipient in self._clients.values()]

    async def run(self) -> None:
        """Follow for ever."""
        process = await asyncio.create_subprocess_exec(
            "node", *_flags(), _SCRIPT, self._asked(), stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                told = json.loads(line)
                self._take(told["name"], told["frame"])
            raise AssertionError(f"the package's process ended with {await process.wait()}")
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _asked(self) -> str:
        asked = [{"name": name, **kind._asdict()} for name, (kind, _) in self._clients.items()]
        claims = {"iss": ISSUER, "aud": AUDIENCE}
        how = {"module": BUILT.as_uri(), "doors": self._doors, "secret": SECRET, "claims": claims}
        return json.dumps({**how, "clients": asked})

    def _take(self, name: str, frame: Mapping[str, Any]) -> None:
        _, recipient = self._clients[name]
        assert frame["type"] != "stopped", f"{name} stopped: {frame['reason']}"
        if frame["type"] == "open":
            _start(recipient, frame["cursor"])
        else:
            if frame["type"] == "event":
                _start(recipient, {frame["topic"]: _before(frame["position"])})
            recipient.take(frame)


def _start(recipient: Recipient, cursor: Mapping[str, str]) -> None:
    """The package tells no `hello`: a topic starts where it is told of first."""
    for topic, position in cursor.items():
        recipient.streams.setdefault(topic, Followed(position))


def _before(position: str) -> str:
    epoch, _, _ = position.partition(".")
    return f"{epoch}.{offset_of(position) - 1}"


def _flags() -> list[str]:
    """Node 20 has a WebSocket that must be asked for."""
    asked = "--experimental-websocket"
    is_known = subprocess.run(["node", asked, "-e", ""], capture_output=True, check=False)
    return [] if is_known.returncode else [asked]
