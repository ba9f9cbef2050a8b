"""A shop in a real Chromium, with the package for browsers in its pages, and the real service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from playwright.async_api import Browser, BrowserContext, Page, WebSocket, async_playwright

from tests.support.browser import NAMES, QUIET
from tests.support.eventually import eventually
from tests.support.gatekeeper import Gatekeeper
from tests.support.producers import HttpProducer, http_producer
from tests.support.roles import Service, running
from tests.support.shop import shop

SETTINGS = {
    "NOTIFIER_ALLOWED_ORIGINS": "http://127.0.0.1:*",
    "NOTIFIER_HISTORY_SIZE": "10000",
    "NOTIFIER_INBOX_SIZE": "10000",
}
GOT = "n => window.got && window.got.length >= n"


@dataclass
class Tab:
    """A tab of the shop, its WebSockets, and the lines of its console that complain."""

    page: Page
    sockets: list[WebSocket] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    is_gone: bool = False

    def opens(self, socket: WebSocket) -> None:
        """Note a WebSocket that the tab opens."""
        self.sockets.append(socket)

    @property
    def leads(self) -> bool:
        return not self.is_gone and any(not socket.is_closed() for socket in self.sockets)

    async def opened(self, transport: str = "websocket") -> None:
        """Return once the tab says that events flow by a transport."""
        is_open = "by => window.notifier?.state.transport === by"
        await self.page.wait_for_function(is_open, arg=transport)

    async def got(self, count: int) -> list[str]:
        """The ids of all events that the tab was told of, once there are so many."""
        await self.page.wait_for_function(GOT, arg=count)
        ids: list[str] = await self.page.evaluate("window.got")
        return ids


@dataclass
class Street:
    """The service, a proxy before its gateway, a shop that uses it, and a browser."""

    service: Service
    keeper: Gatekeeper
    address: str
    browser: Browser
    producer: HttpProducer
    pages: Path

    @property
    def gateway_url(self) -> str:
        """The gateway, past the proxy."""
        return f"http://127.0.0.1:{self.keeper.port}"

    async def visit(self, context: BrowserContext, user: str, **asked: str) -> Tab:
        """Open a tab of the shop."""
        return await self.open(context, self.page_of(user, **asked))

    async def open(self, context: BrowserContext, address: str) -> Tab:
        """Open a tab of any page."""
        tab = Tab(await context.new_page())
        tab.page.set_default_timeout(60_000)
        tab.page.on("websocket", tab.opens)
        tab.page.on("console", lambda line: tab.complaints.append(line.text))
        tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.page.on("crash", lambda _: setattr(tab, "is_gone", True))
        await tab.page.goto(address)
        return tab

    def page_of(self, user: str, **asked: str) -> str:
        """The address of a user's page."""
        return f"{self.address}?{urlencode({'user': user, 'url': self.gateway_url, **asked})}"

    async def restart_gateway(self) -> None:
        """Kill the gateway, and have another one behind the proxy."""
        gateway = self.service.gateway
        await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.wait_until_ready)
        self.keeper.target = port_of(self.service)

    async def has_connections(self, count: int) -> None:
        """Return once the gateway has so many connections."""
        await eventually(lambda: connections(self.service) == count)

    @asynccontextmanager
    async def posting(self, user: str) -> AsyncIterator[list[str]]:
        """Post events one after the other meanwhile; the list has the ids of those accepted."""
        posted: list[str] = []
        enough = asyncio.Event()

        async def post() -> None:
            while not enough.is_set():
                event = {"users": [user], "type": "t", "id": f"{len(posted)}"}
                posted.append(await self.producer.send(event))

        task = asyncio.create_task(post())
        try:
            yield posted
        finally:
            enough.set()
            await task


@asynccontextmanager
async def street_of(
    service: Service, chromium: str, package: Path, pages: Path
) -> AsyncIterator[Street]:
    """Run all of it; the shop serves `pages` beside its own."""
    async with AsyncExitStack() as stack:
        stack.enter_context(running(service.api, service.router, service.gateway))
        keeper = await stack.enter_async_context(Gatekeeper(port_of(service)))
        address = await stack.enter_async_context(shop(package, pages))
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=chromium, args=[*QUIET, NAMES])
        stack.push_async_callback(browser.close)
        producer = await stack.enter_async_context(http_producer(service.api.api_url))
        yield Street(service, keeper, address, browser, producer, pages)


def port_of(service: Service) -> int:
    return service.gateway.port("NOTIFIER_GATEWAY_PORT")


def connections(service: Service) -> float:
    return service.gateway.metric("notifier_connections", transport="websocket")
