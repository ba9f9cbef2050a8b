"""The developer page in a real browser, against the process that `notifier dev` starts.

Each test has users and topics of its own: the process may be shared.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import pytest
from playwright.async_api import Locator, Page, async_playwright, expect

from tests.support.browser import QUIET


class Dev(Protocol):
    @property
    def page_url(self) -> str: ...


@dataclass(frozen=True)
class Visitor:
    """A person at one tab of the page."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    @property
    def events(self) -> Locator:
        return self.page.get_by_role("list", name="Events").get_by_role("listitem")

    @property
    def types_seen(self) -> Locator:
        return self.events.locator("strong")

    async def signed_in(self, user: str) -> None:
        await expect(self.page.get_by_role("status").first).to_have_text(f"Connected as {user}")

    async def follow(self, topic: str) -> None:
        await self.page.get_by_label("Follow another topic").fill(topic)
        await self.page.get_by_role("button", name="Follow", exact=True).click()
        await expect(self.page.get_by_role("button", name=f"Unfollow {topic}")).to_be_visible()

    async def send(self, kind: str, to: str, event_type: str, data: str = "{}") -> None:
        await (
            self.page.locator("label", has_text=kind)
            .and_(self.page.locator("fieldset label"))
            .click()
        )
        if to:
            await self.page.get_by_label(f"To {kind.lower()}").fill(to)
        await self.page.get_by_label("Type").fill(event_type)
        await self.page.get_by_label("Data").fill(data)
        await self.page.get_by_role("button", name="Send").click()


Visit = Callable[..., Awaitable[Visitor]]


@pytest.fixture
async def visit(dev: Dev, chromium: str) -> AsyncIterator[Visit]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=QUIET)

        async def open_tab(user: str, width: int = 1280) -> Visitor:
            page = await browser.new_page(viewport={"width": width, "height": 800})
            visitor = Visitor(page)
            page.on("console", lambda line: visitor.complaints.append(f"{line.type}: {line.text}"))
            page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
            await page.goto(f"{dev.page_url}#user={user}")
            await visitor.signed_in(user)
            return visitor

        yield open_tab
        await browser.close()


async def test_an_event_sent_by_the_form_to_my_user_appears_live(visit: Visit) -> None:
    me = await visit("anna")

    await me.send("User", "anna", "order.shipped", '{"order": 12345678901234567}')

    await expect(me.types_seen).to_have_text(["order.shipped"])
    await expect(me.events).to_contain_text("user:anna")
    await me.page.get_by_text("Raw frames").first.click()
    frames = me.page.get_by_role("list", name="Raw frames")
    await expect(frames).to_contain_text("12345678901234567")  # as typed, not as JavaScript rounds


async def test_an_event_for_another_user_appears_in_their_tab_only(visit: Visit) -> None:
    me = await visit("bert")
    other = await visit("carl")

    await me.send("User", "carl", "for.carl")
    await expect(other.types_seen).to_have_text(["for.carl"])
    await me.send("User", "bert", "for.bert")

    await expect(me.types_seen).to_have_text(["for.bert"])


async def test_an_event_of_a_topic_appears_once_it_is_followed(visit: Visit) -> None:
    me = await visit("dora")
    await me.follow("page-news")

    await me.send("Topic", "page-news", "headline")

    await expect(me.types_seen).to_have_text(["headline"])


async def test_an_event_for_everyone_appears_in_both_tabs(visit: Visit) -> None:
    me = await visit("emil")
    other = await visit("frida")

    await me.send("Everyone", "", "maintenance.emil")

    await expect(me.types_seen).to_have_text(["maintenance.emil"])
    await expect(other.types_seen).to_have_text(["maintenance.emil"])


async def test_after_a_disconnection_what_was_missed_appears(visit: Visit) -> None:
    me = await visit("gerd")
    await me.follow("page-sport")
    await me.page.get_by_role("button", name="Disconnect").click()
    await me.send("User", "gerd", "missed.personal")
    await expect(me.page.get_by_text("Accepted: ")).to_be_visible()
    await me.send("Topic", "page-sport", "missed.sport")
    await expect(me.page.get_by_text("Accepted: ")).to_be_visible()

    await me.page.get_by_role("button", name="Connect", exact=True).click()

    await expect(me.events).to_have_count(2)
    assert sorted(await me.types_seen.all_inner_texts()) == ["missed.personal", "missed.sport"]


async def test_bad_json_is_refused_at_its_field(visit: Visit) -> None:
    me = await visit("hans")

    await me.send("User", "hans", "greeting", '{"text": ')

    data = me.page.get_by_label("Data")
    await expect(data).to_have_attribute("aria-invalid", "true")
    await expect(data).to_be_focused()
    await expect(me.page.locator("#data-error")).to_contain_text("Not valid JSON")


async def test_a_bad_audience_is_refused_at_its_field(visit: Visit) -> None:
    me = await visit("karl")

    await me.send("User", "two words", "greeting", "{}")

    await expect(me.page.locator("#name-error")).to_contain_text("must be 1 to 128")
    await expect(me.page.locator("#name-error")).not_to_contain_text("users[0]")
    await expect(me.page.locator("#sent")).to_be_empty()


async def test_a_bad_user_id_is_refused_at_its_field(visit: Visit) -> None:
    me = await visit("ida")

    await me.page.get_by_label("User id").fill("two words")
    await me.page.get_by_role("button", name="Sign in").click()

    await expect(me.page.locator("#user-error")).to_contain_text("user: must be 1 to 128")
    await expect(me.page.get_by_role("status").first).to_have_text("Signed out")


async def test_neither_the_url_nor_the_page_nor_storage_holds_the_token(visit: Visit) -> None:
    me = await visit("jane")
    await me.page.get_by_text("Raw frames").first.click()

    held = await me.page.evaluate(
        "[location.href, document.documentElement.outerHTML, document.cookie,"
        " JSON.stringify(localStorage), JSON.stringify(sessionStorage)].join()"
    )

    assert "hello" in held  # the frames are there to be looked through
    assert "eyJ" not in held  # every JWT begins so


async def test_the_console_stays_empty(visit: Visit) -> None:
    me = await visit("karl")

    await me.send("User", "karl", "greeting", '"<img src=x onerror=alert(1)>"')
    await expect(me.types_seen).to_have_text(["greeting"])

    assert me.complaints == []


async def test_everything_to_operate_has_a_name_and_the_page_one_heading_and_a_language(
    visit: Visit,
) -> None:
    me = await visit("lena")
    await me.follow("page-names")

    nameless = await me.page.evaluate(
        "[...document.querySelectorAll('input, textarea, button, summary')].filter((one) =>"
        " !(one.labels?.length || one.ariaLabel || one.innerText.trim() || one.hidden))"
        ".map((one) => one.outerHTML)"
    )

    assert nameless == []
    await expect(me.page.get_by_role("heading", level=1)).to_have_count(1)
    await expect(me.page.locator("html")).to_have_attribute("lang", "en")


async def test_the_tab_key_goes_through_the_page_in_reading_order(visit: Visit) -> None:
    me = await visit("mona")
    await me.page.locator("#connection").focus()

    reached = []
    for _ in range(9):
        await me.page.keyboard.press("Tab")
        reached.append(await me.page.evaluate("document.activeElement.id || 'button'"))

    fields = [name for name in reached if name != "button"]
    assert fields == ["user", "to-user", "name", "type", "data", "topic"]


async def test_at_360_pixels_nothing_needs_sideways_scrolling(visit: Visit) -> None:
    long_word = "x" * 128
    me = await visit(long_word, width=360)
    await me.page.get_by_text("Raw frames").first.click()

    await me.send("User", long_word, "y" * 100, f'"{"z" * 500}"')
    await expect(me.events).to_have_count(1)

    assert await me.page.evaluate("document.documentElement.scrollWidth") == 360
