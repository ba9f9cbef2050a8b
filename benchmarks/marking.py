"""Rows about marks: how many a gateway moves, and what counting unread events costs it."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from statistics import median
from typing import Any

from redis import Redis
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.contenders.contender import Message, Publish
from benchmarks.contenders.notifier import publishing
from benchmarks.delivering import Bench, Values, stamped
from benchmarks.machine import cpu_seconds
from benchmarks.routing import roles
from benchmarks.stalling import head_of
from notifier.core.names import personal_topic
from tests.support.roles import Role, token

_CLIENTS = 16
_AT_ONCE = 50  # marks that a client has on their way
_UNREAD = 199  # and one more: as many as a personal topic keeps
_SETTINGS = {
    "NOTIFIER_FRAME_RATE": "100000",
    "NOTIFIER_BYTE_RATE": "10000000",
}


@contextmanager
def _gateway(bench: Bench) -> Iterator[tuple[Role, Publish]]:
    with (
        roles(bench, lambda service: [service.gateway], **_SETTINGS) as service,
        publishing(bench.backends.redis_url) as publish,
    ):
        yield service.gateway, publish


async def _next(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        frame: dict[str, Any] = json.loads(await socket.recv())
        if frame["type"] == kind:
            return frame


def _connect(gateway: Role, user: str) -> connect:
    headers = {"Authorization": f"Bearer {token(user)}"}
    url = f"{gateway.gateway_url}/v1/ws?marks=true"
    return connect(url, additional_headers=headers, compression=None)


def marks(bench: Bench) -> dict[str, Values]:
    """Let devices of some users mark one event after another as read."""
    each = bench.sizes.marks // _CLIENTS
    users = [f"u{number}" for number in range(_CLIENTS)]
    with (
        _gateway(bench) as (gateway, publish),
        Redis.from_url(bench.backends.redis_url) as redis,
    ):
        for _ in range(each):
            publish([Message(user, stamped()) for user in users])
        epochs = [head_of(redis, personal_topic(user)).epoch for user in users]
        seconds, cpu = asyncio.run(_mark_all(bench, gateway, users, epochs, each))
    count = each * _CLIENTS
    return {"marks": {"value": count / cpu, "a_second": count / seconds}}


async def _mark_all(
    bench: Bench, gateway: Role, users: Sequence[str], epochs: Sequence[str], each: int
) -> tuple[float, float]:
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(_connect(gateway, user)) for user in users]
        for socket in sockets:
            await _next(socket, "marks")
        began, before = time.monotonic(), cpu_seconds(gateway.pid)
        with bench.watch("marks", gateway.pid):
            async with asyncio.TaskGroup() as tasks:
                for socket, epoch in zip(sockets, epochs, strict=True):
                    tasks.create_task(_mark(socket, epoch, each), name="marks")
        return time.monotonic() - began, cpu_seconds(gateway.pid) - before


async def _mark(socket: ClientConnection, epoch: str, each: int) -> None:
    for start in range(1, each + 1, _AT_ONCE):
        offsets = range(start, min(start + _AT_ONCE, each + 1))
        for offset in offsets:
            await socket.send(f'{{"type":"mark","read":"{epoch}.{offset}"}}')
        for _ in offsets:
            await _next(socket, "marked")


def recount(bench: Bench) -> dict[str, Values]:
    """Have 200 unread events counted anew: in turn one more comes in, and the oldest is read."""
    with (
        _gateway(bench) as (gateway, publish),
        Redis.from_url(bench.backends.redis_url) as redis,
    ):
        publish([Message("u", stamped()) for _ in range(_UNREAD)])
        epoch = head_of(redis, personal_topic("u")).epoch
        waits, cpu = asyncio.run(_recount_all(bench, gateway, publish, epoch))
    return {
        "recount": {"value": 1000 * cpu / len(waits), "median_wait_ms": 1000 * median(waits)},
    }


async def _recount_all(
    bench: Bench, gateway: Role, publish: Publish, epoch: str
) -> tuple[list[float], float]:
    waits = []
    async with _connect(gateway, "u") as socket:
        await _next(socket, "marks")
        before = cpu_seconds(gateway.pid)
        with bench.watch("recount", gateway.pid):
            for number in range(1, bench.sizes.recounts + 1):
                await asyncio.to_thread(publish, [Message("u", stamped())])
                waits.append(await _told(socket, _UNREAD + 1))
                await socket.send(f'{{"type":"mark","read":"{epoch}.{number}"}}')
                waits.append(await _told(socket, _UNREAD))
        return waits, cpu_seconds(gateway.pid) - before


async def _told(socket: ClientConnection, unread: int) -> float:
    """Return how long it took until so many were told to be unread."""
    began = time.monotonic()
    while True:
        frame = await _next(socket, "marks")
        if (frame["topic"], frame["unread"]) == (personal_topic("u"), unread):
            return time.monotonic() - began
