"""A laptop that sleeps: its network is gone, and its clocks jump when it wakes up."""

import asyncio
from dataclasses import dataclass, field

from playwright.async_api import BrowserContext, Route

from tests.support.proxy import Proxy
from tests.support.roles import token
from tests.support.street import Street, Tab

_LIFE = 300  # of a token, in seconds


@dataclass
class Laptop:
    """A browser whose way to the gateway is a link; `tokens` has those that it asked for."""

    street: Street
    context: BrowserContext
    link: Proxy
    tokens: list[str] = field(default_factory=list)
    _slept: int = 0

    async def visit(self, user: str, tabs: int) -> list[Tab]:
        """Open tabs of one user that share a connection."""

        async def issue(route: Route) -> None:
            self.tokens.append(token(user, seconds=self._slept + _LIFE))
            await route.fulfill(body=self.tokens[-1])

        await self.context.clock.install()
        await self.context.route("**/token?*", issue)
        url = f"http://127.0.0.1:{self.link.port}"
        visits = (self.street.visit(self.context, user, url=url, shared="") for _ in range(tabs))
        opened = list(await asyncio.gather(*visits))
        await asyncio.gather(*(tab.opened() for tab in opened))
        return opened

    def sleep(self) -> None:
        """Fall asleep: from now on nothing comes or goes."""
        self.link.silence()

    async def wake(self, *, after: int) -> None:
        """Wake up so many seconds later: timers that are due by then run once."""
        self._slept = after
        await self.context.clock.fast_forward(after * 1000)
