"""Two people chat through two gateways; the connection of one is cut time and again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
from websockets.asyncio.client import ClientConnection, connect

from notifier.adapters.tokens.minting import mint
from tests.support.process import free_port
from tests.support.proxy import Proxy
from tests.support.roles import AUDIENCE, ISSUER, SECRET, TOKENS, Role, running
from tests.support.streams import Frame
from tests.support.tls import NO_AUTHORITIES

ROOM = "room:7"
MESSAGES = 12
_PATIENCE = 30.0


def headers_of(user: str) -> dict[str, str]:
    room = ["room:*"]
    minted = mint(
        SECRET, user, topics=room, issuer=ISSUER, audience=AUDIENCE, lifetime=600, publish=room
    )
    return {"authorization": f"Bearer {minted}"}


def message(name: str) -> dict[str, object]:
    return {"type": "chat.message", "id": name, "data": {"text": name}}


class Member:
    """A member of the room, and what its client was told."""

    def __init__(self, user: str) -> None:
        self.headers = headers_of(user)
        self.position = ""
        self.events: list[tuple[str, str, str]] = []  # position, source, id
        self.typing: list[str] = []
        self.socket: ClientConnection

    @asynccontextmanager
    async def at(self, port: int) -> AsyncIterator[None]:
        """Connect, and go on where the last connection ended."""
        query = f"since={ROOM}@{self.position}" if self.position else f"topics={ROOM}"
        url = f"ws://127.0.0.1:{port}/v1/ws?{query}"
        async with connect(url, additional_headers=self.headers) as self.socket:
            hello = await self.told("hello")
            self.position = self.position or hello["topics"][ROOM]["position"]
            yield

    async def told(self, kind: str) -> Frame:
        """Take frames until one is of a type, and return it."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                frame: Frame = json.loads(await self.socket.recv())
                self._take(frame)
                if frame["type"] == kind:
                    return frame

    def _take(self, frame: Frame) -> None:
        if frame["type"] == "event":
            self.position, event = frame["position"], frame["event"]
            self.events.append((self.position, event["source"], event["id"]))
        elif frame["type"] == "ephemeral":
            self.typing.append(frame["event"]["source"])

    async def heard(self, name: str) -> str:
        """Take frames until a message is there, and return its position."""
        while True:
            for position, _, each in self.events:
                if each == name:
                    return position
            await self.told("event")

    async def say(self, name: str, **members: object) -> None:
        frame = {"type": "publish", "topic": ROOM, "event": message(name), "id": name, **members}
        await self.socket.send(json.dumps(frame))


async def test_two_clients_chat_over_two_gateways_and_each_message_is_there_once_in_order(
    tmp_path: Path, redis_url: str
) -> None:
    ports = [free_port() for _ in range(2)]
    roles = [
        Role(
            "gateway",
            tmp_path / f"gateway{port}.log",
            NOTIFIER_REDIS_URL=redis_url,
            NOTIFIER_GATEWAY_PORT=str(port),
            **TOKENS,
        )
        for port in ports
    ]
    ann, bob = Member("ann"), Member("bob")
    async with AsyncExitStack() as stack:
        stack.enter_context(running(*roles))
        proxy = await stack.enter_async_context(Proxy(ports[0]))
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{ports[1]}", headers=bob.headers, verify=NO_AUTHORITIES
            )
        )
        await stack.enter_async_context(bob.at(ports[1]))

        async def post(name: str, *, ephemeral: bool = False) -> Frame:
            body = {"topic": ROOM, "event": message(name), "ephemeral": ephemeral}
            answer = (await http.post("/v1/publish", json=body)).raise_for_status()
            told: Frame = answer.json()
            return told

        def pass_on_and_fall_silent(data: bytes) -> bytes:
            proxy.silence()
            return data

        for number in range(MESSAGES):
            async with ann.at(proxy.port):
                await asyncio.gather(ann.say(f"a{number}"), post(f"b{number}"))
                await ann.told("published")
                proxy.tap = pass_on_and_fall_silent
                await ann.say(f"lost{number}")
                first = await bob.heard(f"lost{number}")  # Ann does not know that it is there
                proxy.cut()
            proxy.heal()
            await post(f"c{number}")
            async with ann.at(proxy.port):
                await ann.say(f"lost{number}")
                again = await ann.told("published")
                assert again == {"type": "published", "position": first, "id": f"lost{number}"}

        async with ann.at(proxy.port):
            assert await post("typing", ephemeral=True) == {"type": "published"}
            assert (await ann.told("ephemeral"))["event"]["id"] == "typing"
            last = (await post("last"))["position"]
            assert await ann.heard("last") == await bob.heard("last") == last
        roles[0].wait_until_ready()
        counted = [
            sum(role.metric("notifier_client_events_total", outcome=outcome) for role in roles)
            for outcome in ("published", "duplicate", "ephemeral")
        ]

    assert ann.events == bob.events
    offsets = [int(position.partition(".")[2]) for position, _, _ in bob.events]
    assert offsets == [*range(1, 4 * MESSAGES + 2)]
    said = {
        user: [name for _, source, name in bob.events if source == f"user:{user}"]
        for user in ("ann", "bob")
    }
    assert said["ann"] == [f"{kind}{n}" for n in range(MESSAGES) for kind in ("a", "lost")]
    assert said["bob"] == [*(f"{kind}{n}" for n in range(MESSAGES) for kind in "bc"), "last"]
    assert counted == [4 * MESSAGES + 1, MESSAGES, 1]
    assert ann.typing == bob.typing == ["user:bob"]
