"""A deployment, and clients of it by each transport, which hold it to the protocol."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from notifier.client.http_requests import authorities

PATIENCE = 10.0  # seconds
Frame = dict[str, Any]


class Broken(Exception):
    """The deployment does not keep a promise; the text tells its answer."""


class Deployment(NamedTuple):
    """A deployment: the gateway's address and a token; the api's and a key, or None.

    `topic` is one that the token may follow, publish to, and be a member of, or None.
    """

    url: str
    token: str
    api_url: str | None = None
    key: str | None = None
    topic: str | None = None

    @asynccontextmanager
    async def client(self, query: str = "", token: str | None = None) -> AsyncIterator["Client"]:
        """Connect by WebSocket, with another token if one is given."""
        address = self.url.replace("http", "ws", 1) + f"/v1/ws{query}"
        offered = ("notifier.v1", f"bearer.{token or self.token}")
        subprotocols = [Subprotocol(each) for each in offered]
        async with connect(address, subprotocols=subprotocols, open_timeout=PATIENCE) as socket:
            yield Client(socket)

    async def get(self, path: str) -> httpx.Response:
        """Ask the gateway, with the token."""
        headers = {"authorization": f"Bearer {self.token}"}
        async with _http_client(self.url) as http:
            return await http.get(path, headers=headers)

    @asynccontextmanager
    async def stream(self, last_event_id: str | None = None) -> AsyncIterator["Stream"]:
        """Follow by server-sent events, from the id of an earlier one if it is given."""
        headers = {"authorization": f"Bearer {self.token}", "accept": "text/event-stream"}
        if last_event_id is not None:
            headers["last-event-id"] = last_event_id
        async with (
            _http_client(self.url) as http,
            http.stream("GET", "/v1/sse", headers=headers) as response,
        ):
            expect(response.is_success, f"it answered {response.status_code}")
            yield Stream(response)

    async def post(self, user: str, name: str) -> None:
        """Post an event of this id for a user, and wait until it is confirmed."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        event = {"type": "conformance", "users": [user], "id": name, "silent": True, "ttl": 60}
        async with _http_client(self.api_url or "") as http:
            answer = await http.post("/v1/events", json=event, headers=headers)
        expect(answer.status_code == httpx.codes.ACCEPTED, f"the api answered {answer.text}")


class Follower:
    """A client by any transport, which has its next frame."""

    async def next(self) -> Frame:
        """Return the next frame."""
        raise NotImplementedError

    async def next_of(self, *kinds: str) -> Frame:
        """Return the next frame of these types, and pass over others."""
        async with asyncio.timeout(PATIENCE):
            while (frame := await self.next())["type"] not in kinds:
                pass
            return frame

    async def ids(self, last: str) -> list[str]:
        """Return the ids of the events up to one."""
        found: list[str] = []
        while last not in found:
            found.append((await self.next_of("event"))["event"]["id"])
        return found


class Stream(Follower):
    """Server-sent events; `last_id` is the newest id."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.last_id = ""

    async def next(self) -> Frame:
        """See Follower."""
        frame: Frame | None = None
        async for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "data":
                frame = json.loads(value)
            elif name == "id":
                self.last_id = value
            elif not line and frame is not None:
                return frame
        raise Broken("the stream of server-sent events ended")


class Client(Follower):
    """A WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def say(self, **frame: object) -> None:
        """Send a frame."""
        await self._socket.send(json.dumps(frame))

    async def next(self) -> Frame:
        """See Follower."""
        frame: Frame = json.loads(await self._socket.recv())
        return frame

    async def asked(self, **frame: object) -> Frame:
        """Say a frame, and return its answer."""
        await self.say(**frame)
        async with asyncio.timeout(PATIENCE):
            while (answer := await self.next()).get("id") != frame["id"]:
                pass
            return answer

    async def closed_with(self) -> int:
        """Return the code that the connection is closed with."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self._socket.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 1006


_authorities = cache(authorities)  # reading them is slow


def _http_client(url: str) -> httpx.AsyncClient:
    """Return a client of its own connections."""
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, verify=_authorities(url))


def expect(holds: object, otherwise: str) -> None:
    """Raise Broken, and tell `otherwise`, unless the promise holds."""
    if not holds:
        raise Broken(otherwise)
