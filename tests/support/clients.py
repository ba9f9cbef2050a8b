"""Clients of the gateway, as anybody might write them, and the tests' own verbs for them."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Frame = dict[str, Any]
_PATIENCE = 30.0


class Client:
    """One stay of a client. It reads only while a method waits, and keeps every frame."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[Frame] = []
        self.events: list[str] = []  # the ids of those among the frames

    async def next_frame(self) -> Frame:
        """The next frame of any type."""
        try:
            async with asyncio.timeout(_PATIENCE):
                frame: Frame = json.loads(await self.socket.recv())
        except TimeoutError as error:
            raise AssertionError(
                f"nothing came for {_PATIENCE} s, after {len(self.frames)} frames with "
                f"{len(self.events)} events, the last of them {self.frames[-1:]}"
            ) from error
        self.frames.append(frame)
        if frame["type"] == "event":
            self.events.append(frame["event"]["id"])
        return frame

    async def next(self, kind: str) -> Frame:
        """The next frame of this type; whatever comes before stays in `frames`."""
        while (frame := await self.next_frame())["type"] != kind:
            pass
        return frame

    async def next_event(self) -> Frame:
        """The event of the next `event` frame."""
        event: Frame = (await self.next("event"))["event"]
        return event

    async def next_events(self, count: int) -> list[Frame]:
        """The events of the next `event` frames."""
        return [await self.next_event() for _ in range(count)]

    async def read_until(self, ready: Callable[["Client"], bool]) -> None:
        """Read until `ready` says that it is enough."""
        while not ready(self):
            await self.next_frame()

    async def send(self, **frame: object) -> None:
        """Send a frame."""
        await self.socket.send(json.dumps(frame))

    async def follow(self, topic: str, since: str | None = None) -> Frame:
        """Subscribe to a topic, and return the answer."""
        position = {} if since is None else {"since": since}
        await self.send(type="subscribe", topic=topic, **position)
        return await self.next("subscribed")

    async def closed_with(self) -> int:
        """The code that the server closes with; what comes before stays in `frames`."""
        with suppress(ConnectionClosed):
            while True:
                await self.next_frame()
        code = self.socket.close_code
        assert code not in (None, 1006), "the connection broke without a close frame"
        return code

    @property
    def cursor(self) -> str:
        """Up to where this client has read each topic."""
        positions: dict[str, str] = {}
        for frame in self.frames:
            if frame["type"] == "hello":
                positions |= {topic: each["position"] for topic, each in frame["topics"].items()}
            elif "position" in frame:
                positions[frame["topic"]] = frame["position"]
        return ",".join(f"{topic}@{position}" for topic, position in positions.items())


@asynccontextmanager
async def connected(  # noqa: PLR0913  # all that a client may choose
    url: str,
    token: str,
    *,
    topics: Iterable[str] = (),
    since: str = "",
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Client]:
    """Connect with the token as a subprotocol, and read the `hello`."""
    given = {"topics": ",".join(topics), "since": since}
    query = urlencode({name: value for name, value in given.items() if value})
    async with connect(
        f"{url}/v1/ws?{query}",
        subprotocols=[Subprotocol("notifier.v1"), Subprotocol(f"bearer.{token}")],
        additional_headers=headers,
        ping_interval=None,
        compression=None,
        proxy=None,
        ssl=tls,
    ) as socket:
        client = Client(socket)
        hello = await client.next_frame()
        assert hello["type"] == "hello", hello
        yield client


@asynccontextmanager
async def slow_client(
    url: str, token: str, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    """A client behind little buffer."""
    address = urlsplit(url)
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    narrow.connect((address.hostname, address.port))
    async with connect(
        f"{url}/v1/ws",
        sock=narrow,
        subprotocols=[Subprotocol("notifier.v1"), Subprotocol(f"bearer.{token}")],
        compression=None,  # else the events would fit
        ping_interval=None,
        max_queue=1,
        ssl=tls,
    ) as connection:
        client = Client(connection)
        await client.next("hello")
        yield client
