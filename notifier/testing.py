"""A whole notifier on memory beside a test, in a thread with ports that the system chooses.

The fixture `notifier` has one for each test; `running` is for those who have another framework.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from notifier.api.keys import new_key
from notifier.client import Event, Follower
from notifier.client.http_requests import authorities
from notifier.settings import Settings
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.traces import Traces
from notifier.wiring.dev import DevHouse, dev_house

_PATIENCE = 10.0
_KEY = new_key("test", ("post", "read", "control"))


class Notifier:
    """`url` is the gateway's for clients, `api_url` the api's for producers, with `api_key`."""

    def __init__(self, house: DevHouse, portal: BlockingPortal) -> None:
        self.url = f"http://{house.host}:{house.gateway_port}"
        self.api_url = f"http://{house.host}:{house.api_port}"
        self.api_key = _KEY.secret
        self._house = house
        self._portal = portal

    def token(self, user: str) -> str:
        """Return a token of a user who may follow, and publish to, every topic."""
        return self._house.tokens.mint(user)

    def events_of(
        self, user: str, *topics: str, count: int = 0, seconds: float = _PATIENCE
    ) -> list[Event]:
        """Return the events that a user was sent: personal ones, everyone's, and those of topics.

        All that was confirmed before the call is among them. Give a `count` to wait for those that
        a background task posts: AssertionError when there are fewer after `seconds`. In a test
        that is a coroutine, such a wait belongs into `asyncio.to_thread`.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._portal.call(self._settled)
            events = self._history(user, topics)
            if len(events) >= count:
                return events
            if time.monotonic() > deadline:
                types = [event.type for event in events]
                raise AssertionError(
                    f"user {user} got {len(events)} of {count} events within {seconds:g} s: {types}"
                )
            time.sleep(0.01)

    def follower(self, user: str, *topics: str) -> Follower:
        """Return a follower of a user's events, from the first one on."""
        since = ",".join(f"{topic}@start" for topic in (f"user:{user}", "everyone", *topics))
        return Follower(self.url, lambda: self.token(user), since=since)

    async def _settled(self) -> None:
        async with asyncio.timeout(_PATIENCE):
            await self._house.memory.idle()

    def _history(self, user: str, topics: tuple[str, ...]) -> list[Event]:
        followed = ",".join((f"user:{user}", "everyone", *topics))
        headers = {"authorization": f"Bearer {self.token(user)}"}
        query, events, more = {"topics": followed}, list[Event](), True
        trusted = authorities(self.url)
        with httpx.Client(
            base_url=self.url, headers=headers, trust_env=False, verify=trusted
        ) as http:
            while more:
                page = http.get("/v1/history", params=query).raise_for_status().json()
                query, more = {"since": page["cursor"]}, page["more"]
                events += [Event.of_frame(each) for each in page["frames"] if "event" in each]
        return events


@contextmanager
def running() -> Iterator[Notifier]:
    """Run one while inside. It reads no environment variables, and no `.env`."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_house()) as house,
    ):
        yield Notifier(house, portal)


@asynccontextmanager
async def _house() -> AsyncIterator[DevHouse]:
    # A developer's own settings must not lead a test to a real RabbitMQ.
    settings = Settings.model_construct(
        gateway_port=0, api_port=0, private_port=0, api_keys=(_KEY.entry,), docs=False
    )
    async with dev_house(settings, Metrics(), Traces()) as house:
        yield house
