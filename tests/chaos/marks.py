"""Users who mark what their devices have received and what they have read.

Marks go to any gateway, each until it is answered, while failures happen. In the end all devices
of a user show them, and as unread what the list of history has besides.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from itertools import groupby
from math import inf
from operator import attrgetter
from typing import Any

import httpx

from tests.chaos.clients import PACKAGED, Client, Crowd, Frame
from tests.chaos.crew import Crew
from tests.support.invariants import Complaint, offset_of
from tests.support.roles import token

_PATIENCE = 60.0  # a comparison with history, each 37 s, makes good that a gateway missed a mark
_LISTED = 256
_LATE = 20  # so many events back, a mark may come late
_UNTIL_LATER = {httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS}


class Person:
    """A user with one device or more; `keeps`: Redis loses no mark that it has confirmed.

    `steps` has the moments at which marks that were confirmed said of events that they are received
    or read, of those that ask for it; `tried` has the steps that some mark may have made.
    """

    def __init__(self, devices: Sequence[Client], crowd: Crowd, *, keeps: bool) -> None:
        self.user = devices[0].user
        self.steps: dict[tuple[str, str], float] = {}
        self.tried: set[tuple[str, str]] = set()
        self.confirmed = 0
        self.complaints: list[Complaint] = []
        self._devices = devices
        self._crowd = crowd
        self._chance = crowd.chance
        self._keeps = keeps
        self._headers = {"authorization": f"Bearer {token(self.user)}"}
        self._seen: list[str] = []
        self._read = 0
        self._singles = frozenset[int]()

    async def run(self) -> None:
        """Mark what has come, for ever."""
        while True:
            for device in self._devices:
                await self._pause()
                came, device.news = device.news, []
                if came:
                    await self._mark(came)

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.1, 0.5))

    async def _mark(self, came: Sequence[Frame]) -> None:
        asking = any(frame.get("ack") for frame in came)
        mark: dict[str, Any] = {"received": came[-1]["position"]} if asking else {}
        self._seen = [*self._seen, *(frame["position"] for frame in came)][-_LATE:]
        position = self._chance.choice(self._seen)  # perhaps one from before the last mark
        mark |= self._chance.choice([{"read": position}, {"read_only": [position]}])
        self.tried.update(self._steps_of(mark))
        while not await self._is_answered(mark):
            await self._pause()
        now = asyncio.get_running_loop().time()
        self.steps = {**dict.fromkeys(self._steps_of(mark), now), **self.steps}

    def _steps_of(self, mark: Frame) -> Iterator[tuple[str, str]]:
        """The steps that a mark means for the events that ask for reports."""
        singles = {*map(offset_of, mark.get("read_only", ()))}
        read, received = (offset_of(mark.get(name, "none.0")) for name in ("read", "received"))
        for event, offset in self._crowd.asking[self.user].items():
            is_read = offset <= read or offset in singles
            if is_read or offset <= received:
                yield event, "received"
            if is_read:
                yield event, "read"

    async def _is_answered(self, mark: dict[str, Any]) -> bool:
        url = f"http://{self._chance.choice(self._crowd.doors)}/v1/marks"
        try:
            answer = await self._crowd.http.post(url, json=mark, headers=self._headers, timeout=20)
        except httpx.TransportError:
            return False
        if answer.status_code in _UNTIL_LATER:
            return False
        if answer.is_success:
            self._confirm(mark)
        elif self._keeps:
            self._complain(f"{mark} was refused: {answer.text}")
        return True

    def _confirm(self, mark: dict[str, Any]) -> None:
        self.confirmed += 1
        self._read = max(self._read, offset_of(mark.get("read", "none.0")))
        singles = self._singles | set(map(offset_of, mark.get("read_only", ())))
        while self._read + 1 in singles:
            self._read += 1
        self._singles = frozenset(offset for offset in singles if offset > self._read)

    async def settle(self, deadline: float) -> None:
        """Return once all devices are right; complain when the deadline passes before."""
        clock = asyncio.get_running_loop().time
        while (why := await self._fault()) and clock() < deadline:
            await self._pause()
        if why:
            self._complain(why)

    async def _fault(self) -> str | None:
        """The reason why the devices are not right, if they are not."""
        shown, *others = (device.marks for device in self._devices)
        if any(other != shown for other in others):
            return f"devices disagree: {[shown, *others]}"
        if self._keeps and (shown.read, shown.singles) != (self._read, self._singles):
            return f"{shown} shown, where {self._read} and {self._singles} are read"
        try:
            listed = await self._listed()
        except (httpx.HTTPError, KeyError) as error:
            return f"no list: {error!r}"
        unread = sum(not (o <= shown.read or o in shown.singles) for o in listed)
        if shown.unread == unread or shown.more:
            return None
        return f"{shown} shown, and the list has {unread}"

    async def _listed(self) -> list[int]:
        """The offsets of the newest events, as a page that loads gets them."""
        url = f"http://{self._chance.choice(self._crowd.doors)}/v1/history"
        query = {"order": "newest", "limit": str(_LISTED)}
        answer = await self._crowd.http.get(url, params=query, headers=self._headers, timeout=20)
        frames = answer.raise_for_status().json()["frames"]
        return [offset_of(frame["position"]) for frame in frames if frame["type"] == "event"]

    def _complain(self, evidence: str) -> None:
        self.complaints.append(Complaint("marks wrong", f"{self.user}: {evidence}"))


class People(Crew):
    """All users, while it is entered."""

    def __init__(self, crowd: Crowd, *, keeps: bool) -> None:
        super().__init__()
        name = attrgetter("user")
        clients = sorted([*crowd.steady, *crowd.restless], key=name)
        users = (list(devices) for _, devices in groupby(clients, key=name))
        self._people = {each[0].user: Person(each, crowd, keeps=keeps) for each in users}
        self._crowd = crowd
        self._keeps = keeps

    def work(self) -> Iterable[Coroutine[Any, Any, None]]:
        """See Crew."""
        return [person.run() for person in self._people.values()]

    @property
    def confirmed(self) -> int:
        """How many marks were confirmed so far."""
        return sum(person.confirmed for person in self._people.values())

    @property
    def complaints(self) -> list[Complaint]:
        """All complaints so far."""
        back = [each for client in self._crowd.clients for each in client.marks_moved_back]
        found = [each for person in self._people.values() for each in person.complaints]
        return [*found, *(back if self._keeps else ())]

    def received_at(self, user: str, event: str) -> float:
        """When a mark that Redis does not lose said so, and was confirmed; infinity: never."""
        return self.steps_of(user, event).get("received", inf)

    def steps_of(self, user: str, event: str) -> dict[str, float]:
        """When marks that Redis does not lose said that an event is received and read."""
        steps = self._people[user].steps if user in self._people and self._keeps else {}
        return {step: steps[event, step] for step in ("received", "read") if (event, step) in steps}

    def may_have(self, user: str, event: str, step: str) -> bool:
        """Whether a mark may have said so. The package marks events received by itself."""
        is_by_itself = step == "received" and user in PACKAGED
        return not self._keeps or is_by_itself or (event, step) in self._people[user].tried

    async def settle(self) -> None:
        """Wait until the devices of each user are right, while nothing new comes."""
        self.see_that_all_live()
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        await asyncio.gather(*(person.settle(deadline) for person in self._people.values()))
