"""Clients of the gateway over plain HTTP: server-sent events, long-poll and history."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

Frame = dict[str, Any]
_PATIENCE = 30.0


@dataclass
class Told:
    """One server-sent event, as the standard has clients understand it."""

    event: str = ""
    id: str | None = None
    retry: int | None = None
    comment: bool = False
    data: Frame = field(default_factory=dict)


class Stream:
    """A stream of server-sent events under way."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.cursor = ""
        self._lines = response.aiter_lines()

    async def next(self) -> Told | None:
        """The next block of lines; None at the end."""
        told = Told()
        async with asyncio.timeout(_PATIENCE):
            async for line in self._lines:
                if not line:
                    return told
                self._take(told, line)
        return None

    def _take(self, told: Told, line: str) -> None:
        name, _, value = line.partition(":")
        if name == "data":
            told.data = json.loads(value)
        elif name == "retry":
            told.retry = int(value)
        elif name == "event":
            told.event = value.strip()
        elif name == "id":
            told.id = self.cursor = value.strip()
        else:
            told.comment = not name

    async def next_of(self, event: str) -> Told:
        """The next event of a name; others are passed over."""
        while told := await self.next():
            if told.event == event:
                return told
        raise AssertionError(f"the stream ended without {event}")

    async def next_ids(self, count: int) -> list[str]:
        """The ids of the next events."""
        return [(await self.next_of("event")).data["event"]["id"] for _ in range(count)]


@asynccontextmanager
async def streamed(
    http: httpx.AsyncClient, query: str = "", **headers: str
) -> AsyncIterator[Stream]:
    """Open a stream of server-sent events; headers have `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.stream("GET", f"/v1/sse{query}", headers=named) as response:
        yield Stream(response)


async def polled(http: httpx.AsyncClient, since: str = "", wait: int = 25) -> Frame:
    """Poll once, and return the answer's body."""
    query = {"since": since, "wait": str(wait)}
    answer = await http.get("/v1/poll", params=query, timeout=_PATIENCE + wait)
    assert answer.status_code == httpx.codes.OK, answer.text
    body: Frame = answer.json()
    return body


def ids(frames: list[Frame]) -> list[str]:
    """The ids of the events among frames."""
    return [frame["event"]["id"] for frame in frames if frame["type"] == "event"]


async def recount(http: httpx.AsyncClient, page: int = 3) -> int:
    """Count in the list, page by page, the events that are neither read nor silent."""
    number, query = 0, {"order": "newest", "limit": str(page)}
    while True:
        found = (await http.get("/v1/history", params=query)).raise_for_status().json()
        number += sum(
            not (frame["read"] or frame["event"].get("silent", False)) for frame in found["frames"]
        )
        if not found["more"]:
            return number
        query["before"] = found["before"]
