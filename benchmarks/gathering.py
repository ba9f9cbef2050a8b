"""Rows about rooms: the cost of knowing who is there, and how soon all hear a member."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.contenders.contender import upgrade
from benchmarks.contenders.notifier import Notifier
from benchmarks.delivering import Bench, Values, stamped
from benchmarks.load import Load, load
from benchmarks.machine import cpu_seconds
from benchmarks.routing import roles
from tests.support.roles import Role, token

_ROOM = "room:7"
_PATH = f"/v1/ws?topics={_ROOM}"
_MARKS = (Notifier.ready, Notifier.ping, Notifier.pong)
_SETTLED = 30.0  # seconds: longer than a member stays and news of it takes


@contextmanager
def _room(bench: Bench, members: int, query: str = "") -> Iterator[tuple[Role, Load]]:
    """Run a gateway, and so many clients that follow the room."""
    requests = [
        upgrade(
            _PATH + query,
            f"Authorization: Bearer {_token(f'u{number}')}",
            "Sec-WebSocket-Protocol: notifier.v1",
        )
        for number in range(members)
    ]
    with roles(bench, lambda service: [service.gateway]) as service:
        gateway = service.gateway
        with load(gateway.port("NOTIFIER_GATEWAY_PORT"), requests, _MARKS) as clients:
            clients.open(members)
            yield gateway, clients


def _token(user: str) -> str:
    return token(user, _ROOM, seconds=7200, publish=[_ROOM], presence=[_ROOM])


def _connect(gateway: Role, user: str, query: str = "") -> connect:
    headers = {"Authorization": f"Bearer {_token(user)}"}
    url = f"{gateway.gateway_url}{_PATH}{query}"
    return connect(url, additional_headers=headers, compression=None, max_size=None)


def presence(bench: Bench) -> dict[str, Values]:
    """Let members join and leave a room at a rate, its size unchanged, and see all be told."""
    query, count = "&presence=true", bench.sizes.members - 2 * bench.sizes.join_rate
    with _room(bench, count, query) as (gateway, _):
        return {"presence": asyncio.run(_come_and_go(bench, gateway, query))}


async def _come_and_go(bench: Bench, gateway: Role, query: str) -> Values:
    rate, seconds = bench.sizes.join_rate, bench.sizes.join_seconds
    async with AsyncExitStack() as stack:
        witness = await stack.enter_async_context(_connect(gateway, "witness", query))
        known = _Known(witness)
        present = deque[ClientConnection]()
        coming = [f"guest{number}" for number in range(rate * seconds)]
        await known.until(lambda names: len(names) > bench.sizes.members - 2 * rate)
        frames, began = known.frames, time.monotonic()
        before = cpu_seconds(gateway.pid)
        with bench.watch("presence", gateway.pid):
            for number, name in enumerate(coming):
                await known.listen_until(began + number / rate)
                present.append(await _connect(gateway, name, query))
                if len(present) > rate:
                    await present.popleft().close()
        cpu, took = cpu_seconds(gateway.pid) - before, time.monotonic() - began
        frames = known.frames - frames
        last = set(coming[-len(present) :])
        await known.until(lambda names: {n for n in names if n.startswith("guest")} == last)
        for each in present:
            await each.close()
    return {"value": 100 * cpu / took, "frames_a_second": frames / took, "seconds": took}


class _Known:
    """The members of the room by the frames that one client gets."""

    def __init__(self, socket: ClientConnection) -> None:
        self.frames = 0
        self._socket = socket
        self._names: set[str] = set()

    async def until(self, is_so: Callable[[set[str]], bool]) -> None:
        """Return once it is so of the members."""
        async with asyncio.timeout(_SETTLED):
            while not is_so(self._names):
                self._take(await self._socket.recv())

    async def listen_until(self, moment: float) -> None:
        """Take frames until that moment of the monotonic clock."""
        try:
            async with asyncio.timeout(moment - time.monotonic()):
                while True:
                    self._take(await self._socket.recv())
        except TimeoutError:
            return

    def _take(self, text: str | bytes) -> None:
        frame = json.loads(text)
        if frame["type"] != "presence":
            return
        self.frames += 1
        if "members" in frame:
            self._names = set(frame["members"])
        self._names |= set(frame.get("joined", ()))
        self._names -= set(frame.get("left", ()))


def chat(bench: Bench) -> dict[str, Values]:
    """Let one client publish to a room at a rate, and see how soon the others have it."""
    count, events = bench.sizes.members, bench.sizes.chat_events
    with _room(bench, count) as (gateway, clients):
        asyncio.run(_publish(gateway, [f"warm{number}" for number in range(10)], 10))
        clients.until(10 * count)
        clients.reset()
        before = cpu_seconds(gateway.pid)
        names = [f"m{number}" for number in range(events)]
        with bench.watch("chat", gateway.pid):
            asyncio.run(_publish(gateway, names, bench.sizes.chat_rate))
            report = clients.until(events * count)
        cpu = cpu_seconds(gateway.pid) - before
    values = {name: report[name] / 1000 for name in ("p50", "p99", "max")}
    return {
        "chat": {
            "value": values["p99"],
            "p50_ms": values["p50"],
            "max_ms": values["max"],
            "cpu_ms_an_event": 1000 * cpu / events,
        }
    }


async def _publish(gateway: Role, names: Sequence[str], rate: int) -> None:
    headers = {"Authorization": f"Bearer {_token('speaker')}"}
    url = f"{gateway.gateway_url}/v1/ws"
    async with connect(url, additional_headers=headers, compression=None) as socket:
        began = time.monotonic()
        for number, name in enumerate(names):
            await asyncio.sleep(began + number / rate - time.monotonic())
            event = {"type": "benchmark", "id": name, "data": stamped()}
            await socket.send(json.dumps({"type": "publish", "topic": _ROOM, "event": event}))
            while json.loads(await socket.recv())["type"] != "published":
                pass
