"""Browsers of two people, behind a proxy with two gateways: one is killed, one is drained."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.eventually import eventually
from tests.support.mailing import mailing
from tests.support.process import free_port
from tests.support.recipes import RunningProxy
from tests.support.roles import TOKENS, Role, running, service_of, token
from tests.support.smtp import MailServer
from tests.support.streams import recount
from tests.support.street import SETTINGS, Street, Tab, street_of
from tests.support.tls import NO_AUTHORITIES

PACE = 0.05  # seconds between two events of the flow
MOST = 300  # events of the flow: badges count 256 of a person
AFTER = 12  # seconds in which an order has to be received
BADGE = "n => { const { count, more } = window.notifier.unread; return count === n && !more; }"
READ_ALL = "() => { const last = window.got.at(-1); return notifier.markRead().then(() => last); }"
READ_NEWEST = """async () => {
  const { frames: [newest] } = await notifier.history({ limit: 1 });
  await notifier.markReadOnly(newest);
  return newest.event.id;
}"""


@dataclass
class Person:
    """A person's browsers, the phone first, and the events that should be unread."""

    name: str
    devices: list[Tab]
    http: httpx.AsyncClient
    posted: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    async def reads_all_on_the_phone(self) -> None:
        """Read all events that the phone has by now; it may be without a connection."""
        last = await self.devices[0].page.evaluate(READ_ALL)
        seen = self.posted[: self.posted.index(last) + 1]
        self.unread = [each for each in self.unread if each not in seen]

    async def reads_the_newest_on_the_phone(self) -> None:
        """Read the event that stands first in the list, and no other."""
        self.unread.remove(await self.devices[0].page.evaluate(READ_NEWEST))

    async def has_badges_that_agree(self) -> None:
        """Return once each device has all events, and shows as many unread as there are."""
        for device in self.devices:
            assert await device.got(len(self.posted)) == self.posted
            assert await device.page.evaluate("window.gaps") == []
            await device.page.wait_for_function(BADGE, arg=len(self.unread))
        assert await self._recount() == len(self.unread)

    async def _recount(self) -> int:
        """Count in history, as soon as the proxy no longer holds both gateways for failed."""
        while True:
            try:
                return await recount(self.http, page=100)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.BAD_GATEWAY:
                    raise
            await asyncio.sleep(0.1)


@dataclass
class House:
    """The service with two gateways behind one address, and the mails that were sent."""

    street: Street
    gateways: tuple[Role, Role]
    url: str
    mails: MailServer
    people: list[Person] = field(default_factory=list)

    @asynccontextmanager
    async def person(self, name: str, devices: int) -> AsyncIterator[Person]:
        """Let a person open the shop in so many browsers."""
        async with AsyncExitStack() as stack:
            tabs = []
            for _ in range(devices):
                context = await self.street.browser.new_context()
                stack.push_async_callback(context.close)
                tabs.append(await self.street.visit(context, name, url=self.url))
                await tabs[-1].opened()
            headers = {"authorization": f"Bearer {token(name)}"}
            client = httpx.AsyncClient(
                base_url=self.url, headers=headers, timeout=30, verify=NO_AUTHORITIES
            )
            person = Person(name, tabs, await stack.enter_async_context(client))
            self.people.append(person)
            yield person

    async def post(
        self, name: str, *people: Person, others: tuple[str, ...] = (), **members: object
    ) -> None:
        """Post an event to people, and to others who have no browser."""
        for person in people:
            person.posted.append(name)
            if not members.get("silent"):
                person.unread.append(name)
        users = [*(person.name for person in people), *others]
        await self.street.producer.send({"users": users, "type": "t", "id": name, **members})

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Post events meanwhile, to one person, to the other, and to both; some are silent."""
        enough = asyncio.Event()

        async def post() -> None:
            first, second = self.people
            for number in range(MOST):
                people = ((first,), (second,), (first, second))[number % 3]
                await self.post(f"flow-{number}", *people, silent=number % 5 == 0)
                with suppress(TimeoutError):
                    await asyncio.wait_for(enough.wait(), PACE)
                if enough.is_set():
                    return

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(post())
            yield
            enough.set()


@pytest.fixture
async def house(
    tmp_path: Path, amqp_url: str, redis_url: str, chromium: str, js_client: Path
) -> AsyncIterator[House]:
    ports = [{"NOTIFIER_GATEWAY_PORT": str(free_port())} for _ in range(2)]
    service = service_of(tmp_path, amqp_url, redis_url, **SETTINGS, **ports[0])
    redis = {"NOTIFIER_REDIS_URL": redis_url}
    other = Role("gateway", tmp_path / "other.log", **redis, **TOKENS, **SETTINGS, **ports[1])
    gateways = (service.gateway, other)
    async with AsyncExitStack() as stack:
        stack.enter_context(running(other))
        street = await stack.enter_async_context(street_of(service, chromium, js_client, tmp_path))
        first, second = (each.port("NOTIFIER_GATEWAY_PORT") for each in gateways)
        api = service.api.port("NOTIFIER_API_PORT")
        proxy = stack.enter_context(RunningProxy("nginx", tmp_path, (first, second), api))
        mails, _ = await stack.enter_async_context(mailing(amqp_url, tmp_path))
        yield House(street, gateways, proxy.url, mails)


async def test_badges_agree_and_mail_goes_to_the_absent_while_gateways_are_killed_and_drained(
    house: House,
) -> None:
    async def restart(gateway: Role) -> None:
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.wait_until_ready)

    async with house.person("ann", devices=3) as ann, house.person("bob", devices=2) as bob:
        killed, drained = house.gateways
        assert all(
            each.metric("notifier_connections", transport="websocket") for each in house.gateways
        )
        await house.post("hint", ann, bob, silent=True)
        for name in ("one", "two", "three"):
            await house.post(name, ann, bob)
        await ann.has_badges_that_agree()
        await ann.reads_the_newest_on_the_phone()
        assert ann.unread == ["one", "two"]
        for person in (ann, bob):
            await person.has_badges_that_agree()

        async with house.flowing():
            await house.post("order", ann, bob, others=("cid", "dan"), undelivered_after=AFTER)
            killed.kill()
            await asyncio.gather(ann.reads_all_on_the_phone(), bob.reads_all_on_the_phone())
            await restart(killed)
            assert await asyncio.to_thread(drained.stop, 60) == 0
            await asyncio.gather(ann.reads_all_on_the_phone(), bob.reads_all_on_the_phone())
            await restart(drained)
        for name in ("last", "very last"):
            await house.post(name, ann, bob)
        for person in (ann, bob):
            await person.has_badges_that_agree()
        assert ann.unread
        await ann.reads_all_on_the_phone()
        assert ann.unread == []
        for person in (ann, bob):
            await person.has_badges_that_agree()

    absent = ["cid@example.org", "dan@example.org"]
    await eventually(lambda: len(house.mails.receivers) >= len(absent), seconds=60)

    # All users of an order are judged together, and those who are present stand first.
    assert sorted(house.mails.receivers) == absent
