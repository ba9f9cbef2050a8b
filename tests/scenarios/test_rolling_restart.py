"""A rolling restart: clients on two gateways, all roles restarted in turn, events flowing."""

import asyncio
import os
import random
import signal
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.support.clients import Client, connected
from tests.support.invariants import assert_delivered
from tests.support.process import free_port
from tests.support.producers import HttpProducer, http_producer
from tests.support.roles import KEY, TOKENS, Role, running, token

# 2,000 clients on an idle machine; the clients themselves need most of a processor.
CLIENTS = int(os.environ.get("TEST_CLIENTS", "400"))
USERS = CLIENTS // 4
END = "the-end"


@dataclass
class Person:
    """One client over all its stays. It comes back when it was told to, where it is let in."""

    user: str
    gateways: Sequence[Role]
    at: int
    frames: list[dict[str, object]] = field(default_factory=list)
    cursor: str = ""
    is_in: asyncio.Event = field(default_factory=asyncio.Event)
    sent_away: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    codes: set[int] = field(default_factory=set)

    async def live(self) -> None:
        """Stay, and come back, until the last event has come."""
        while not self._has_ended:
            try:
                await self._stay(self.gateways[self.at].gateway_url)
            except (OSError, InvalidHandshake, InvalidMessage, ConnectionClosed, KeyError):
                await asyncio.sleep(random.uniform(0.2, 1))  # as a client does
            self.at = 1 - self.at

    @property
    def _has_ended(self) -> bool:
        return any(frame["type"] == "event" and END in str(frame) for frame in self.frames[-1:])

    async def _stay(self, url: str) -> None:
        async with connected(url, token(self.user), since=self.cursor) as client:
            now = asyncio.get_running_loop().time
            if self.cursor:
                self.back.append(now())
            self.is_in.set()
            try:
                await client.read_until(_is_over)
            finally:
                self.frames += client.frames
                self.cursor = client.cursor
        if self.frames[-1]["type"] == "bye":
            self.sent_away.append(now())
            self.codes.add(int(str(self.frames[-1]["code"])))
            await asyncio.sleep(float(str(self.frames[-1]["reconnect_after_ms"])) / 1000)


def _is_over(client: Client) -> bool:
    return client.frames[-1]["type"] == "bye" or client.events[-1:] == [END]


async def post_until(
    enough: asyncio.Event, producer: HttpProducer, posted: dict[str, set[str]]
) -> None:
    number = 0
    while not enough.is_set():
        number += 1
        user = f"u{number % USERS}"
        audience = {"everyone": True} if number % 20 == 0 else {"users": [user]}
        topic = "everyone" if number % 20 == 0 else f"user:{user}"
        posted[topic].add(await sent(producer, {**audience, "type": "t", "id": f"e{number}"}))


async def sent(producer: HttpProducer, event: dict[str, object]) -> str:
    """Post until it is accepted: a connection kept alive may have been given up meanwhile."""
    while True:
        with suppress(httpx.TransportError):
            return await producer.send(event)
        await asyncio.sleep(0.05)  # a connection to an api that restarts is refused at once


def rate(moments: Sequence[float]) -> float:
    """How many a second, over the middle of them: the ends are ragged."""
    ordered = sorted(moments)
    low, high = len(ordered) // 10, len(ordered) * 9 // 10
    return (high - low) / (ordered[high] - ordered[low])


async def test_a_rolling_restart_of_all_roles_means_no_lost_and_no_duplicate_event(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    amqp, redis = {"NOTIFIER_AMQP_URL": amqp_url}, {"NOTIFIER_REDIS_URL": redis_url}
    settings = {"NOTIFIER_API_KEYS": KEY.entry, "NOTIFIER_API_PORT": str(free_port())}
    api = Role("api", tmp_path / "api.log", **amqp, **settings)
    router = Role("router", tmp_path / "router.log", **amqp, **redis)
    gateways = [
        Role(
            "gateway",
            tmp_path / f"gateway-{n}.log",
            **redis,
            **TOKENS,
            NOTIFIER_GATEWAY_PORT=str(free_port()),
        )
        for n in range(2)
    ]
    people = [Person(f"u{n % USERS}", gateways, n % 2) for n in range(CLIENTS)]
    posted: dict[str, set[str]] = defaultdict(set)
    with running(api, router, *gateways):
        async with AsyncExitStack() as stack:
            producer = await stack.enter_async_context(http_producer(api.api_url))
            async with asyncio.TaskGroup() as tasks:
                for person in people:
                    tasks.create_task(person.live(), name=person.user)
                for person in people:
                    await person.is_in.wait()
                enough = asyncio.Event()
                posting = tasks.create_task(post_until(enough, producer, posted), name="posting")
                for role in (api, router, *gateways):
                    await asyncio.to_thread(restart, role)
                    await all_back(people)
                enough.set()
                await posting
                end = {"everyone": True, "type": "end", "id": END}
                posted["everyone"].add(await sent(producer, end))

    for person in people:
        mine = {topic: posted[topic] for topic in (f"user:{person.user}", "everyone")}
        assert_delivered(person.frames, mine)
    assert {code for person in people for code in person.codes} == {4000}
    closes, returns = (
        [t for p in people for t in getattr(p, kind)] for kind in ("sent_away", "back")
    )
    assert len(closes) >= CLIENTS
    print(  # noqa: T201  # with -s, or when it fails
        f"{len(closes)} closes, {rate(closes):.0f}/s; {len(returns)} returns, {rate(returns):.0f}/s"
    )


def restart(role: Role) -> None:
    role.signal(signal.SIGTERM)
    assert role.wait(90) == 0
    role.start()
    role.wait_until_ready()


async def all_back(people: Sequence[Person]) -> None:
    for person in people:
        while len(person.back) < len(person.sent_away):  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.05)
