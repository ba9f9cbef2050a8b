"""A person at the developer page, in a real Chromium."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.support.browser import NAMES, QUIET


@dataclass(frozen=True)
class Visitor:
    """A person at one tab of the page; `complaints` has the lines of its console."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    @property
    def entries(self) -> Locator:
        """The whole list of events, newest first."""
        return self.page.get_by_role("list", name="Events").get_by_role("listitem")

    @property
    def events(self) -> Locator:
        """The list without those for everyone: other tests at the same server may send some."""
        for_everyone = self.page.locator(".chip").get_by_text("everyone", exact=True)
        return self.entries.filter(has_not=for_everyone)

    @property
    def types_seen(self) -> Locator:
        """The types of `events`."""
        return self.events.locator("strong")

    @property
    def state(self) -> Locator:
        """The line that says how the connection is."""
        return self.page.get_by_role("status").first

    @property
    def unread(self) -> Locator:
        """The badge beside the title; hidden where nothing is unread."""
        return self.page.locator("#badge")

    async def signed_in(self, user: str) -> None:
        """Return once the page says so."""
        said = f"Connected as {user}"
        await expect(self.state).to_have_text(said, timeout=30_000)  # the page may be waiting

    async def follow(self, topic: str) -> None:
        """Follow a further topic."""
        await self.page.get_by_label("Follow another topic").fill(topic)
        await self.page.get_by_role("button", name="Follow", exact=True).click()
        await self.following(topic)

    async def following(self, topic: str) -> None:
        """Return once the page lists the topic."""
        await expect(self.page.get_by_role("button", name=f"Unfollow {topic}")).to_be_visible()

    async def write(self, kind: str, to: str, event_type: str, data: str = "{}") -> None:
        """Fill in the form; `kind` is User, Topic or Everyone."""
        await self.page.locator("fieldset label", has_text=kind).click()
        if to:
            await self.page.get_by_label(f"To {kind.lower()}").fill(to)
        await self.page.get_by_label("Type").fill(event_type)
        await self.page.get_by_label("Data").fill(data)

    async def send(self, kind: str, to: str, event_type: str, data: str = "{}") -> None:
        """Send an event by the form."""
        await self.write(kind, to, event_type, data)
        await self.page.get_by_role("button", name="Send").click()

    async def accepted(self) -> None:
        """Return once the event that was sent last is accepted."""
        await expect(self.page.get_by_text("Accepted: ")).to_be_visible()


Visit = Callable[..., Awaitable[Visitor]]


@asynccontextmanager
async def browser_of(chromium: str) -> AsyncIterator[Browser]:
    """Start a browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=[*QUIET, NAMES])
        yield browser
        await browser.close()


@asynccontextmanager
async def tabs(browser: Browser, page_url: str) -> AsyncIterator[Visit]:
    """Yield how to open a tab: `await visit(user)`; `url` is that of another server's page.

    A tab shares no storage with another, and is closed at the end.
    """

    async def visit(user: str, width: int = 1280, url: str = page_url) -> Visitor:
        visitor = await _opened(browser, width)
        await visitor.page.goto(f"{url}#user={user}")
        await visitor.signed_in(user)
        return visitor

    try:
        yield visit
    finally:
        for context in browser.contexts:
            await context.close()


async def _opened(browser: Browser, width: int) -> Visitor:
    page = await browser.new_page(viewport={"width": width, "height": 800})
    visitor = Visitor(page)
    page.on("console", lambda line: visitor.complaints.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    return visitor
