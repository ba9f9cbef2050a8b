"""Clients that are there all the time, and come back with their cursor to any gateway.

Half of them stay until they are sent away, the others move on every few seconds, each time with a
transport of its choice. They share no code with the service.
"""

import asyncio
import json
import random
import socket
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing, suppress
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.typing import Subprotocol

from tests.chaos.crew import Crew
from tests.chaos.package import Kind, Package
from tests.support.invariants import Complaint, Ledger, Recipient, offset_of
from tests.support.roles import token
from tests.support.tls import NO_AUTHORITIES

NEWS = "news"
USERS = [f"u{n}" for n in range(16)]
SLOW = "slow"
_STEADY = 10  # of the users; the others' clients move on by themselves
_PACKAGE = {
    "package": Kind(USERS[0], (NEWS,)),
    "package by SSE": Kind(USERS[1], (NEWS,), ("sse",)),
    "package by poll": Kind(USERS[-2], (), ("poll",)),
    "restless package": Kind(USERS[-1], (), restless=True),
}
PACKAGED = {kind.user for kind in _PACKAGE.values()}
RESTLESS = USERS[_STEADY:]
STAYING = [user for user in USERS[:_STEADY] if user not in PACKAGED]  # by one connection each
_SILENCE = 20.0  # heartbeats come every 5 s
_LAST_TO_RETURN = 4500

Frame = dict[str, Any]
Query = dict[str, str]


class Stay(NamedTuple):
    """The parts of a client's request to a gateway; `query` is made anew for each request."""

    door: str
    bearer: str
    query: Callable[[], Query]
    http: httpx.AsyncClient


class Refused(Exception):
    """The gateway takes nobody for now."""


async def websocket(stay: Stay, sock: socket.socket | None = None) -> AsyncIterator[Frame]:
    """Yield the frames of one stay; at its end one of type `closed` with the code."""
    async with connect(
        f"ws://{stay.door}/v1/ws?{urlencode(stay.query())}",
        subprotocols=[Subprotocol("notifier.v1"), Subprotocol(f"bearer.{stay.bearer}")],
        sock=sock,
        max_queue=4,
        open_timeout=5,
        close_timeout=0.5,
        ping_interval=5,
        ping_timeout=15,
        compression=None,
        proxy=None,
    ) as connection:
        try:
            while True:
                yield json.loads(await connection.recv())
        except ConnectionClosed as closed:
            yield {"type": "closed", "code": closed.rcvd.code if closed.rcvd else 1006}


async def server_sent_events(stay: Stay) -> AsyncIterator[Frame]:
    """The same, and after each frame one of type `cursor`."""
    cursor = stay.query().get("since", "")
    async with stay.http.stream(
        "GET",
        f"http://{stay.door}/v1/sse",
        params={name: value for name, value in stay.query().items() if name != "since"},
        headers={"authorization": f"Bearer {stay.bearer}", "last-event-id": cursor},
        timeout=_SILENCE,
    ) as response:
        _check(response)
        code = 1006
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "data":
                frame = json.loads(value)
                code = frame.get("code", code) if frame["type"] == "bye" else code
                yield frame
            elif name == "id":
                yield {"type": "cursor", "cursor": value}
        yield {"type": "closed", "code": code}


async def long_poll(stay: Stay) -> AsyncIterator[Frame]:
    """The same, of one request after another."""
    known: Query = {}
    while True:
        answer = await stay.http.get(
            f"http://{stay.door}/v1/poll",
            params={**stay.query(), **known, "wait": "5"},
            headers={"authorization": f"Bearer {stay.bearer}"},
            timeout=_SILENCE,
        )
        _check(answer)
        body = answer.json()
        for frame in body["frames"]:
            yield frame
        yield {"type": "cursor", "cursor": body["cursor"]}
        known = {"marks": body["marks"]} if "marks" in body else {}
        for frame in body["frames"]:
            if frame["type"] == "bye":
                yield {"type": "closed", "code": frame["code"]}
                return


def _check(answer: httpx.Response) -> None:
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise Refused
    assert answer.status_code == httpx.codes.OK, f"{answer.url} answered {answer.status_code}"


Transport = Callable[[Stay], AsyncIterator[Frame]]
_LASTING: tuple[Transport, ...] = (websocket, server_sent_events)
_ALL: tuple[Transport, ...] = (*_LASTING, long_poll)


class Shown(NamedTuple):
    """The marks of its user in the personal topic, as a client was told last."""

    read: int = 0
    singles: frozenset[int] = frozenset()
    unread: int = 0
    more: bool = False

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """Read a `marks` frame."""
        singles = frozenset(map(offset_of, frame.get("read_only", ())))
        read = offset_of(frame.get("read", "none.0"))
        return cls(read, singles, frame["unread"], frame.get("more", False))

    def goes_on_from(self, former: "Shown") -> bool:
        """Whether nothing that was read before is unread now."""
        is_read = all(o <= self.read or o in self.singles for o in former.singles)
        return is_read and self.read >= former.read


class Client:
    """One client over all its stays; `news` are frames of its user's events, for him to take."""

    def __init__(self, user: str, recipient: Recipient, crowd: "Crowd", *, restless: bool) -> None:
        self.recipient = recipient
        self.closes: Counter[int] = Counter()
        self.user = user
        self.marks = Shown()
        self.marks_moved_back: list[Complaint] = []
        self.news: list[Frame] = []
        self._is_back = asyncio.Event()
        self._is_back.set()
        self._crowd = crowd
        self._chance = crowd.chance
        self._restless = restless
        self._after = 0.0

    async def run(self) -> None:
        """Stay and come back, each time to another gateway, for ever."""
        door = self._chance.choice(self._crowd.doors)
        while True:
            self._after = 0.0
            longest = self._chance.uniform(1, 6) if self._restless else None
            door = self._chance.choice([each for each in self._crowd.doors if each != door])
            # Refused, broken, or enough.
            with suppress(Refused, OSError, httpx.HTTPError, InvalidHandshake, InvalidMessage):
                async with asyncio.timeout(longest) as self._patience:
                    await self.stay(door)
            await self._is_back.wait()
            await asyncio.sleep(self._after or self._chance.uniform(0.1, 0.8))

    def leave(self) -> None:
        """Go away, until `come_back`."""
        self._is_back.clear()
        self._patience.reschedule(0)

    def come_back(self) -> None:
        """Come back to any gateway, as after any other end of a stay."""
        self._is_back.set()

    async def stay(self, door: str) -> None:
        """Take the frames of one stay, in a transport of chance."""
        transport = self._chance.choice(_ALL if self._restless else _LASTING)
        await self.take_all(transport(self.at(door)))

    def at(self, door: str) -> Stay:
        """The parts of this client's request."""
        return Stay(door, token(self.user, NEWS), self._query, self._crowd.http)

    def _query(self) -> Query:
        own = (f"user:{self.user}", "everyone")
        further = [topic for topic in self.recipient.topics if topic not in own]
        query = {
            "topics": ",".join(further),
            "since": self.recipient.streams.cursor,
            "marks": "true" if self._crowd.marks else "",
        }
        return {name: value for name, value in query.items() if value}

    async def take_all(self, frames: AsyncIterator[Frame]) -> None:
        """Take the frames of one stay."""
        self._is_told = False  # of marks
        async with aclosing(frames) as stay:  # type: ignore[type-var]  # it is a generator
            async for frame in stay:
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        self.recipient.take(frame)
        match frame["type"]:
            case "event" if frame["topic"] == f"user:{self.user}":
                self.news.append(frame)
                if frame.get("ack"):
                    offset = offset_of(frame["position"])
                    self._crowd.asking[self.user][frame["event"]["id"]] = offset
            case "marks" if frame["topic"] == f"user:{self.user}":
                self._show(Shown.of(frame))
            case "bye":
                self._after = frame.get("reconnect_after_ms", 0) / 1000
            case "closed":
                self._closed(frame["code"])
            case "error":
                self._crowd.errors[frame["code"]] += 1
            case _:
                pass

    def _show(self, shown: Shown) -> None:
        # Another gateway may hear of a move later than the client that comes from the first.
        if self._is_told and not shown.goes_on_from(self.marks):
            evidence = f"{self.user}: {shown} after {self.marks}"
            self.marks_moved_back.append(Complaint("marks wrong", evidence))
        self.marks, self._is_told = shown, True

    def _closed(self, code: int) -> None:
        self.closes[code] += 1
        assert code < _LAST_TO_RETURN, f"a client was closed with {code}"


class SlowClient(Client):
    """A client behind little buffer that stops reading when it is told to."""

    def __init__(self, user: str, recipient: Recipient, crowd: "Crowd") -> None:
        super().__init__(user, recipient, crowd, restless=False)
        self.reads = asyncio.Event()
        self.reads.set()

    async def stay(self, door: str) -> None:
        """Take the frames of one stay, past the link, which has buffers."""
        host, port = self._crowd.past_links[door].split(":")
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        narrow.setblocking(False)  # noqa: FBT003  # as the standard library has it
        try:
            await asyncio.get_running_loop().sock_connect(narrow, (host, int(port)))
            await self.take_all(self._slowly(self.at(door), narrow))
        finally:
            narrow.close()

    async def _slowly(self, at: Stay, narrow: socket.socket) -> AsyncIterator[Frame]:
        async with aclosing(websocket(at, narrow)) as stay:  # type: ignore[type-var]  # as above
            async for frame in stay:
                await self.reads.wait()
                yield frame


class Crowd(Crew):
    """All clients, while it is entered; `doors` has links to gateways, and the ends of those."""

    def __init__(
        self,
        ledger: Ledger,
        doors: Mapping[str, str],
        chance: random.Random,
        *,
        marks: bool,
        package: bool,
    ) -> None:
        super().__init__()
        self.marks = marks  # whether they are told of them
        self.doors = list(doors)
        self.past_links = doors
        self.chance = chance
        self.http = httpx.AsyncClient(verify=NO_AUTHORITIES)
        self.errors: Counter[str] = Counter()
        # The offset of each user's events that ask for marks, once any device has them.
        self.asking: defaultdict[str, dict[str, int]] = defaultdict(dict)
        clock = asyncio.get_running_loop().time

        def recipient(user: str, *topics: str) -> Recipient:
            return Recipient(ledger, (f"user:{user}", "everyone", *topics), clock)

        steady = USERS[:_STEADY]
        self.steady = [Client(u, recipient(u, NEWS), self, restless=False) for u in steady]
        self.restless = [Client(u, recipient(u), self, restless=True) for u in RESTLESS * 2]
        self.slow = SlowClient(SLOW, recipient(SLOW), self)
        packaged = _PACKAGE.items() if package else ()
        follow = {name: (kind, recipient(kind.user, *kind.topics)) for name, kind in packaged}
        self._package = Package(self.doors, follow)

    @property
    def clients(self) -> list[Client]:
        """Everyone."""
        return [*self.steady, *self.restless, self.slow]

    @property
    def recipients(self) -> list[Recipient]:
        """The events that everyone has got, also the clients of the package."""
        return [*(client.recipient for client in self.clients), *self._package.recipients]

    @property
    def is_complete(self) -> bool:
        """Whether everyone has been greeted once."""
        return all(recipient.streams for recipient in self.recipients)

    def work(self) -> Iterable[Coroutine[Any, Any, None]]:
        """See Crew."""
        package = [self._package.run()] if self._package.recipients else []
        return [*(client.run() for client in self.clients), *package]

    async def __aexit__(self, *raised: object) -> None:
        try:
            await super().__aexit__(*raised)
        finally:
            await self.http.aclose()

    @property
    def missing(self) -> bool:
        """Whether anyone lacks anything that is confirmed."""
        return any(recipient.missing() for recipient in self.recipients)

    @property
    def complaints(self) -> list[Complaint]:
        """All complaints so far."""
        return [each for recipient in self.recipients for each in recipient.complaints]

    @property
    def gaps(self) -> int:
        """All gaps told so far."""
        return sum(recipient.gaps for recipient in self.recipients)

    @property
    def repeats(self) -> int:
        """All events so far that came again behind a gap."""
        return sum(recipient.repeats for recipient in self.recipients)

    def expire(self, topic: str) -> None:
        """Let those who follow a topic do without one more event of it."""
        for recipient in self.recipients:
            if topic in recipient.topics:
                recipient.streams[topic].expired += 1

    def closes(self, code: int) -> int:
        """How often clients were closed with this code."""
        return sum(client.closes[code] for client in self.clients)

    @property
    def all_closes(self) -> int:
        """How often those were closed who stay until they are."""
        return sum(client.closes.total() for client in self.steady)
