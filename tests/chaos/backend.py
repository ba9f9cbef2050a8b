"""A backend that sends users away, and asks who is connected."""

import asyncio
import random
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any

import httpx

from tests.chaos.clients import RESTLESS, STAYING
from tests.chaos.crew import Crew
from tests.chaos.producers import AWAY, UNSEEN
from tests.support.invariants import Complaint

_PATIENCE = 60.0
_CONNECTED = {**dict.fromkeys(STAYING, 1), AWAY: 0, UNSEEN: 0}
_NO_REDIS = httpx.codes.SERVICE_UNAVAILABLE


class Backend(Crew):
    """Disconnects users whose clients come back, while it is entered.

    Presence has to know those who stay, each by one connection, and those who are away.
    """

    def __init__(self, http: httpx.AsyncClient, chance: random.Random) -> None:
        super().__init__()
        self.orders = 0
        self.complaints: list[Complaint] = []
        self._http = http
        self._chance = chance

    def work(self) -> Iterable[Coroutine[Any, Any, None]]:
        """See Crew."""
        return [self._send_away()]

    async def _send_away(self) -> None:
        while True:
            await self._pause(1, 4)
            user = self._chance.choice(RESTLESS)
            with suppress(httpx.TransportError):
                answer = await self._http.post(f"/v1/users/{user}/disconnect")
                assert answer.is_success or answer.status_code == _NO_REDIS, answer.text
                self.orders += answer.is_success

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self._chance.uniform(least, most))

    async def settle(self) -> None:
        """Wait until presence is right; complain if it is not in time."""
        self.see_that_all_live()
        clock = asyncio.get_running_loop().time
        deadline = clock() + _PATIENCE
        while (why := await self._fault()) and clock() < deadline:
            await self._pause(0.1, 0.5)
        if why:
            self.complaints.append(Complaint("presence wrong", why))

    async def _fault(self) -> str | None:
        """The reason why presence is not right, if it is not."""
        try:
            answer = await self._http.post("/v1/presence", json={"users": [*_CONNECTED]})
            told = answer.raise_for_status().json()
        except httpx.HTTPError as error:
            return repr(error)
        is_right = told == {"users": _CONNECTED, "complete": True}
        return None if is_right else str(told)
