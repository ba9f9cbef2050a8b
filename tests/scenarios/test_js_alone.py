"""Pages whose tabs cannot share a connection: each has one of its own, and stays whole."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Frame, async_playwright

from tests.support.browser import INSECURE_HOST, NAMES, QUIET
from tests.support.eventually import eventually
from tests.support.roles import Role, running
from tests.support.street import GOT, Street, Tab

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUSAL = "new DOMException('blocked', 'SecurityError')"
BROWSERS = {
    "no locks": "delete Navigator.prototype.locks",
    "no channels": "delete globalThis.BroadcastChannel",
    "locks refused": f"navigator.locks.request = () => Promise.reject({REFUSAL})",
    "channels refused": f"BroadcastChannel = class {{ constructor() {{ throw {REFUSAL}; }} }}",
}
FRAME = '<!doctype html><iframe sandbox="allow-scripts" src="{}"></iframe>'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_gateway(street: Street, logs: Path) -> AsyncIterator[Role]:
    """A gateway for all sites: a sandboxed frame is one without a name."""
    gateway = street.service.gateway.another(logs / "open.log", NOTIFIER_ALLOWED_ORIGINS="*")
    with running(gateway):
        yield gateway


def page_of(street: Street, gateway: Role, user: str) -> str:
    url = gateway.gateway_url.replace("ws", "http", 1)
    return street.page_of(user, url=url, shared="", persist="")


async def each_has_a_connection_and_all_events(street: Street, user: str, tabs: list[Tab]) -> None:
    await asyncio.gather(*(tab.opened() for tab in tabs))
    await eventually(lambda: all(tab.leads for tab in tabs))

    posted = [await street.producer.send({"users": [user], "type": "t"}) for _ in range(2)]

    for tab in tabs:
        assert await tab.got(2) == posted
        assert tab.complaints == []


@pytest.mark.parametrize("browser", BROWSERS)
async def test_tabs_of_a_browser_that_cannot_share_have_a_connection_each(
    street: Street, context: BrowserContext, open_gateway: Role, browser: str
) -> None:
    await context.add_init_script(BROWSERS[browser])
    page = page_of(street, open_gateway, user := f"alone-{browser.replace(' ', '-')}")

    tabs = [await street.open(context, page) for _ in range(2)]

    await each_has_a_connection_and_all_events(street, user, tabs)


async def test_tabs_of_an_insecure_site_have_a_connection_each(
    street: Street, context: BrowserContext, open_gateway: Role
) -> None:
    page = page_of(street, open_gateway, "insecure").replace("127.0.0.1", INSECURE_HOST, 1)

    tabs = [await street.open(context, page) for _ in range(2)]

    assert not await tabs[0].page.evaluate("window.isSecureContext")
    await each_has_a_connection_and_all_events(street, "insecure", tabs)


async def test_tabs_whose_user_blocks_storage_have_a_connection_each(
    street: Street, open_gateway: Role, whole_chromium: str, tmp_path: Path
) -> None:
    settings = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (tmp_path / "Default").mkdir()
    (tmp_path / "Default/Preferences").write_text(json.dumps(settings))
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            tmp_path, executable_path=whole_chromium, args=[*QUIET, NAMES]
        )
        page = page_of(street, open_gateway, "blocker")

        tabs = [await street.open(context, page) for _ in range(2)]

        blocked = "try { sessionStorage; '' } catch ({ name }) { name }"
        assert await tabs[0].page.evaluate(blocked) == "SecurityError"
        await each_has_a_connection_and_all_events(street, "blocker", tabs)
        await context.close()


async def test_a_sandboxed_frame_has_a_connection_of_its_own(
    street: Street, context: BrowserContext, open_gateway: Role
) -> None:
    page = page_of(street, open_gateway, "boxed")
    (street.pages / "framed.html").write_text(FRAME.format(page.replace("&", "&amp;")))

    tab = await street.open(context, f"{street.address}framed.html")
    frame: Frame = tab.page.frames[1]
    await frame.wait_for_function("() => window.notifier?.state.phase === 'open'")

    assert await frame.evaluate("window.origin") == "null"
    posted = await street.producer.send({"users": ["boxed"], "type": "t"})
    await frame.wait_for_function(GOT, arg=1)
    assert await frame.evaluate("window.got") == [posted]
    assert tab.complaints == []
