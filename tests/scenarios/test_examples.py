"""The examples in a real browser; PICTURES=docs draws them for the documents."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect, sync_playwright

from examples.house import create_app
from notifier.serving import serve
from notifier.testing import running
from tests.support.axe import barriers
from tests.support.browser import QUIET
from tests.support.process import Process, free_port, wait_until
from tests.support.tls import NO_AUTHORITIES

ROOT = Path(__file__).parents[2]
PATIENCE = 30_000


@pytest.fixture(scope="module", autouse=True)
def _client() -> None:
    """Have the client for browsers built; `make test` has done that before."""
    subprocess.run(["make", "--silent", "clients/js/dist/.made"], cwd=ROOT, check=True, timeout=300)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*QUIET])
        yield browser
        browser.close()


@dataclass(frozen=True, slots=True)
class House:
    """An example that is being served."""

    url: str
    browser: Browser

    @contextmanager
    def visitor(self, user: str) -> Iterator[Page]:
        """A person at a device of their own, connected."""
        with self.browser.new_context(viewport={"width": 640, "height": 400}) as context:
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            complaints: list[str] = []
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(f"{self.url}#user={user}")
            expect(page.locator("#state")).to_have_text("open", timeout=PATIENCE)
            yield page
            assert page.evaluate(barriers()) == []
            assert complaints == []


@asynccontextmanager
async def _served(app: FastAPI) -> AsyncIterator[int]:
    async with (
        app.router.lifespan_context(app),
        serve(app, host="127.0.0.1", port=0, setting="X") as port,
    ):
        yield port


@pytest.fixture
def house(request: pytest.FixtureRequest, browser: Browser) -> Iterator[House]:
    """The example that is named, in threads of the test's own process."""
    example = import_module(f"examples.{request.param}.__main__").EXAMPLE
    with (
        running() as notifier,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_served(create_app(example, notifier))) as port,
    ):
        yield House(f"http://127.0.0.1:{port}/", browser)


def picture(page: Page, name: str) -> None:
    """Keep a picture for the documents, if they are asked for."""
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=ROOT / folder / f"example-{name}.png")


def test_make_example_serves_one_until_it_is_stopped(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}/"
    command = [sys.executable, "-m", "examples.notifications", str(port)]
    log = tmp_path / "example.log"

    def answers() -> bool:
        assert example.is_running, example.log_tail()
        with suppress(httpx.TransportError):
            return httpx.post(f"{url}orders/7?user=ann", verify=NO_AUTHORITIES).is_success
        return False

    with Process(command, log=log, environment={"PYTHONPATH": str(ROOT)}) as example:
        wait_until(answers, seconds=60, otherwise=example.log_tail)
        assert f"Open {url}#user=ann" in log.read_text()


@pytest.mark.parametrize("house", ["notifications"], indirect=True)
def test_the_badge_agrees_on_two_devices_and_survives_a_reload(house: House) -> None:
    def shows(page: Page, unread: int) -> None:
        bell = f"Notifications, {unread} unread" if unread else "Notifications"
        expect(page.get_by_role("button", name=bell, exact=True)).to_be_visible(timeout=PATIENCE)
        expect(page.locator("[part=badge]")).to_have_text(str(unread), timeout=PATIENCE)

    with house.visitor("ann") as laptop, house.visitor("ann") as phone:
        for count in (1, 2, 3):
            laptop.get_by_role("button", name="Order something").click()
            for device in (laptop, phone):
                shows(device, count)
        phone.get_by_role("button", name="Notifications").click()
        phone.get_by_role("listitem").first.get_by_role("button").click()
        shows(laptop, 2)
        laptop.get_by_role("button", name="Notifications").click()
        expect(laptop.locator("[part~=unread]")).to_have_count(2, timeout=PATIENCE)
        picture(laptop, "notifications")

        laptop.reload()
        shows(laptop, 2)
        laptop.get_by_role("button", name="Notifications").click()
        expect(laptop.get_by_role("listitem")).to_have_count(3, timeout=PATIENCE)
        laptop.get_by_role("button", name="Mark all as read").click()
        expect(phone.locator("[part~=unread]")).to_have_count(0, timeout=PATIENCE)
        shows(phone, 0)


_HINT = """hint => { window.hinted = new Promise((done) => new MutationObserver(() => {
    if (typing.textContent === hint) done();
}).observe(typing, { childList: true })); }"""


@contextmanager
def told_of_typing(page: Page, hint: str) -> Iterator[None]:
    """Leave once the page has shown the hint, for however short a time."""
    page.evaluate(_HINT, hint)
    yield
    page.evaluate("() => window.hinted")


@pytest.mark.parametrize("house", ["chat"], indirect=True)
def test_a_room_has_history_order_and_a_hint_of_who_types(house: House) -> None:
    def say(page: Page, text: str) -> None:
        page.get_by_label("Message", exact=True).fill(text)
        page.get_by_role("button", name="Send").click()

    with house.visitor("ann") as ann, house.visitor("bob") as bob:
        say(ann, "Is the build green?")
        for page in (ann, bob):
            expect(page.get_by_role("listitem")).to_have_text(["annIs the build green?"])
        with told_of_typing(ann, "bob is typing …"):
            bob.get_by_label("Message", exact=True).fill("Yes")
        say(bob, "Since noon.")
        expect(ann.get_by_role("listitem")).to_have_count(2)
        with told_of_typing(bob, "ann is typing …"):
            ann.get_by_label("Message", exact=True).fill("Then")
        picture(bob, "chat")
        bob.get_by_role("button", name="random").click()
        expect(bob.get_by_role("listitem")).to_have_count(0)

        with house.visitor("cid") as late:
            said = ["annIs the build green?", "bobSince noon."]
            expect(late.get_by_role("listitem")).to_have_text(said)


@pytest.mark.parametrize("house", ["dashboard"], indirect=True)
def test_a_dashboard_has_each_last_value_at_once_and_paints_them_together(
    house: House,
) -> None:
    with house.visitor("ann") as page:
        expect(page.get_by_role("listitem")).to_have_count(40, timeout=PATIENCE)
        page.wait_for_function("Number(rate.value) > 100")
        shown = page.get_by_role("list").inner_text()
        page.wait_for_function("shown => prices.innerText !== shown", arg=shown)
        picture(page, "dashboard")

    names = shown.split()[::2]
    assert names == sorted(names)


@pytest.mark.parametrize("house", ["collaboration"], indirect=True)
def test_a_board_shows_edits_and_pointers_of_others_and_is_there_after_a_reload(
    house: House,
) -> None:
    with house.visitor("ann") as ann, house.visitor("bob") as bob:
        ann.get_by_role("button", name="Add a note").click()
        ann.get_by_label("Note").fill("Ship it")
        expect(bob.get_by_label("Note")).to_have_value("Ship it", timeout=PATIENCE)
        bob.get_by_label("Note").fill("Ship it on Friday")
        expect(ann.get_by_label("Note")).to_have_value("Ship it on Friday", timeout=PATIENCE)

        ann.mouse.move(60, 110)
        ann.mouse.down()
        ann.mouse.move(300, 200, steps=5)
        ann.mouse.up()
        moved = ann.get_by_label("Note").get_attribute("style")
        expect(bob.get_by_label("Note")).to_have_attribute("style", str(moved), timeout=PATIENCE)
        expect(bob.locator("#board span")).to_have_text("ann", timeout=PATIENCE)
        picture(bob, "collaboration")

        bob.reload()
        expect(bob.get_by_label("Note")).to_have_value("Ship it on Friday", timeout=PATIENCE)
        expect(bob.get_by_label("Note")).to_have_attribute("style", str(moved))
