"""The bell, its list and the hooks of the package for browsers, as the documents show them."""

import re
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.support.axe import barriers
from tests.support.street import Street, Tab

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients/js"
MOST_LINES = 15
PATIENCE = 60_000
PAGE = '<!doctype html><html lang="en"><title>Shop</title><main><h1>Shop</h1>{}</main>'
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
REACT_PAGE = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Bell } from "./bell.jsx";

const getToken = async () => (await fetch("/token")).text();
window.root = createRoot(document.querySelector("main"));
window.root.render(<StrictMode><Bell getToken={getToken} /></StrictMode>);
"""


def documented(heading: str) -> dict[str, str]:
    """The first block of each language below a heading of the page for frontends."""
    [_, section] = (ROOT / "docs/frontends.md").read_text().split(f"\n### {heading}\n")
    blocks = re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)
    return dict(reversed(blocks))


def build(folder: Path, *options: str) -> None:
    """Bundle a page's script as an application does that has the package installed."""
    modules = folder / "node_modules"
    if not modules.exists():
        modules.mkdir()
        for each in (PACKAGE / "node_modules").iterdir():
            (modules / each.name).symlink_to(each)
        (modules / "notifier-push").symlink_to(PACKAGE)
    esbuild = str(PACKAGE / "node_modules/.bin/esbuild")
    command = [esbuild, "--bundle", "--format=esm", "--log-level=warning", *options]
    subprocess.run(command, cwd=folder, check=True, timeout=60)


def page_with_bell(street: Street) -> str:
    """Build the page of the documents, and return its address."""
    blocks = documented("A bell with an inbox")
    assert len((blocks["html"] + blocks["js"]).splitlines()) <= MOST_LINES
    assert blocks["js"].count("https://push.example") == 1
    script = blocks["js"].replace("https://push.example", street.gateway_url)
    (street.pages / "script.js").write_text(script)
    build(street.pages, "script.js", "--outfile=bell.js")
    (street.pages / "bell.html").write_text(PAGE.format(blocks["html"]))
    return f"{street.address}bell.html"


async def sign_in(context: BrowserContext, street: Street, user: str) -> None:
    context.set_default_timeout(PATIENCE)
    await context.add_cookies([{"name": "user", "value": user, "url": street.address}])


async def shows(page: Page, unread: int) -> None:
    """Return once the bell says so to eyes and to screen readers."""
    name = f"Notifications, {unread} unread" if unread else "Notifications"
    bell = page.get_by_role("button", name=name, exact=True)
    await expect(bell).to_be_visible(timeout=PATIENCE)
    await expect(page.locator("[part=badge]")).to_have_text(str(unread), timeout=PATIENCE)
    status = page.locator("notifier-inbox").get_by_role("status")
    await expect(status).to_have_text(f"{unread} unread" if unread else "", timeout=PATIENCE)


async def tell(street: Street, user: str, title: str, **data: str) -> None:
    event = {"users": [user], "type": "told", "data": {"title": title, **data}}
    await street.producer.send(event)


async def test_the_bell_of_the_documents_agrees_over_two_tabs_and_survives_a_gateways_death(
    street: Street, context: BrowserContext
) -> None:
    address = page_with_bell(street)
    await sign_in(context, street, "belle")
    tabs = [await street.open(context, address) for _ in range(2)]
    pages = [tab.page for tab in tabs]

    await tell(street, "belle", "first")
    for page in pages:
        await shows(page, 1)
    assert [tab.complaints for tab in tabs] == [[], []]
    await street.restart_gateway()
    await tell(street, "belle", "second")
    for page in pages:
        await shows(page, 2)
    await pages[0].get_by_role("button", name="Notifications").click()
    await pages[0].get_by_role("button", name="second").click()
    for page in pages:
        await shows(page, 1)
    await pages[1].reload()

    await shows(pages[1], 1)
    await pages[1].get_by_role("button", name="Notifications").click()
    await expect(pages[1].get_by_role("listitem")).to_have_text(
        [re.compile("^second"), re.compile("^Unread:first")], timeout=PATIENCE
    )
    assert not [line for tab in tabs for line in tab.complaints if "Security" in line]


async def focused(page: Page) -> str:
    """The part that has the focus."""
    expression = 'document.querySelector("notifier-inbox").shadowRoot.activeElement?.part.value'
    return str(await page.evaluate(expression))


async def test_the_inbox_is_used_by_the_keyboard_alone(
    street: Street, context: BrowserContext
) -> None:
    await sign_in(context, street, "keys")
    for title in ("first", "second", "third"):
        await tell(street, "keys", title)
    tab = await street.open(context, page_with_bell(street))
    page, press = tab.page, tab.page.keyboard.press
    await shows(page, 3)
    await expect(page.get_by_role("listitem")).to_have_count(0, timeout=PATIENCE)

    await press("Tab")
    assert await focused(page) == "bell"
    await press("Enter")
    await expect(page.get_by_role("dialog", name="Notifications")).to_be_visible(timeout=PATIENCE)
    await expect(page.get_by_role("button", name="Notifications", expanded=True)).to_be_visible(
        timeout=PATIENCE
    )
    await expect(page.get_by_role("listitem")).to_have_count(3, timeout=PATIENCE)
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        assert await page.evaluate(barriers()) == []
    for key in ("ArrowDown", "End", "ArrowUp", "Enter"):
        await press(key)
    await shows(page, 2)
    assert await focused(page) == "item"
    await expect(page.locator("[part='item']")).to_have_text(
        re.compile("^second"), timeout=PATIENCE
    )
    await press("Escape")

    await expect(page.get_by_role("dialog")).to_have_count(0, timeout=PATIENCE)
    assert await focused(page) == "bell"
    assert tab.complaints == []


async def test_the_inbox_lists_page_by_page_and_leads_to_web_addresses_alone(
    street: Street, context: BrowserContext
) -> None:
    await sign_in(context, street, "pages")
    before = await street.visit(context, "pages", shared="")
    await before.opened()
    for number in range(23):
        await tell(street, "pages", f"number {number}")
    await tell(street, "pages", "bad", href="javascript:window.hacked=1")
    await tell(street, "pages", "good", href="/bell.html#orders")
    await street.producer.send({"users": ["pages"], "type": "hint", "silent": True})
    await before.got(26)  # so that all are in history
    tab = await street.open(context, page_with_bell(street))
    page = tab.page
    await shows(page, 25)

    await page.get_by_role("button", name="Notifications").click()
    await expect(page.get_by_role("listitem")).to_have_count(
        19, timeout=PATIENCE
    )  # and the silent one
    await page.get_by_role("button", name="Earlier").click()
    await expect(page.get_by_role("listitem")).to_have_count(25, timeout=PATIENCE)
    await expect(page.get_by_role("button", name="Earlier")).to_be_hidden(timeout=PATIENCE)
    await page.get_by_role("button", name="bad").click()
    await page.get_by_role("link", name="good").click()

    await expect(page).to_have_url(re.compile("#orders$"), timeout=PATIENCE)
    await shows(page, 23)
    assert not await page.evaluate("window.hacked")


@pytest.mark.parametrize("react", ["react", "react-18"])
async def test_the_hooks_hold_one_client_in_strict_mode_and_close_it_with_the_component(
    street: Street, context: BrowserContext, react: str
) -> None:
    source = documented("React")["jsx"]
    assert source.count("https://push.example") == 1
    (street.pages / "bell.jsx").write_text(
        source.replace("https://push.example", street.gateway_url)
    )
    (street.pages / "page.jsx").write_text(REACT_PAGE)
    dom = react.replace("react", "react-dom")
    aliases = (f"--alias:react={react}", f"--alias:react-dom={dom}")
    build(street.pages, "page.jsx", "--jsx=automatic", *aliases, f"--outfile={react}.js")
    script = f"<main></main><script type=module src={react}.js></script>"
    (street.pages / f"{react}.html").write_text("<!doctype html><title>Shop</title>" + script)
    await sign_in(context, street, react)
    await street.has_connections(0)

    tabs: list[Tab] = [
        await street.open(context, f"{street.address}{react}.html") for _ in range(2)
    ]
    await tell(street, react, "first")
    for tab in tabs:
        await expect(tab.page.locator("p")).to_have_text(["• first"], timeout=PATIENCE)
        await expect(tab.page.get_by_role("button")).to_have_text("1 unread", timeout=PATIENCE)
    await tabs[0].page.locator("p").click()
    for tab in tabs:
        await expect(tab.page.locator("p")).to_have_text(["first"], timeout=PATIENCE)
        await expect(tab.page.get_by_role("button")).to_have_text("0 unread", timeout=PATIENCE)
        assert [line for line in tab.complaints if "DevTools" not in line] == []
    await street.has_connections(1)
    for tab in tabs:
        await tab.page.evaluate("window.root.unmount()")

    await street.has_connections(0)
    for tab in tabs:
        locks = "navigator.locks.query().then(({ held, pending }) => [...held, ...pending].length)"
        assert await tab.page.evaluate(locks) == 0
