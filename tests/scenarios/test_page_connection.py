"""The developer page when it is loaded anew, loses its server, or is refused."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import WebSocketRoute, expect

from notifier.adapters.tokens.minting import mint
from tests.support.process import free_port
from tests.support.producers import http_producer
from tests.support.roles import SECRET, Role
from tests.support.visitor import Visit

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def own_dev(tmp_path: Path, **settings: str) -> AsyncIterator[Role]:
    """A `notifier dev` of the test's own, which comes back on the same ports."""
    ports = {"NOTIFIER_GATEWAY_PORT": str(free_port()), "NOTIFIER_API_PORT": str(free_port())}
    role = Role("dev", tmp_path / "dev.log", **ports, **settings)
    await restarted(role)
    try:
        yield role
    finally:
        if role.is_running:
            await asyncio.to_thread(role.stop)


async def restarted(role: Role) -> None:
    role.start()
    await asyncio.to_thread(role.wait_until_ready)


async def test_a_reload_shows_the_events_that_history_has_and_follows_the_topics_again(
    visit: Visit, dev: Role
) -> None:
    me = await visit("nina")
    await me.follow("page-reload")
    async with http_producer(dev.api_url) as producer:
        for number in (1, 3):
            await producer.send({"users": ["nina"], "type": f"own.{number}"})
            await producer.send({"topic": "page-reload", "type": f"news.{number + 1}"})
    seen = ["news.4", "own.3", "news.2", "own.1"]
    await expect(me.events).to_have_count(4)

    await me.page.reload()

    await me.following("page-reload")
    await expect(me.types_seen).to_have_text(seen)
    await me.send("Topic", "page-reload", "news.5")
    await expect(me.types_seen).to_have_text(["news.5", *seen])
    await me.page.reload()  # with the positions of the first reload gone
    await expect(me.types_seen).to_have_text(["news.5", *seen])


async def test_a_new_tab_shows_the_events_that_history_has(visit: Visit) -> None:
    me = await visit("otto")
    await me.send("User", "otto", "before")
    await expect(me.types_seen).to_have_text(["before"])

    other = await visit("otto")

    await expect(other.types_seen).to_have_text(["before"])


async def test_events_missed_while_the_page_was_away_appear_once_behind_those_it_had_shown(
    visit: Visit, dev: Role
) -> None:
    me = await visit("paul")
    await me.send("User", "paul", "seen")
    await expect(me.types_seen).to_have_text(["seen"])
    await me.page.goto("about:blank")
    async with http_producer(dev.api_url) as producer:
        await producer.send({"users": ["paul"], "type": "meanwhile"})

    await me.page.goto(f"{dev.page_url}#user=paul")

    await expect(me.types_seen).to_have_text(["meanwhile", "seen"])


async def test_an_event_that_history_tells_first_appears_once(visit: Visit, dev: Role) -> None:
    me = await visit("pia")
    await me.send("User", "pia", "seen")
    await expect(me.types_seen).to_have_text(["seen"])
    await me.page.goto("about:blank")
    async with http_producer(dev.api_url) as producer:
        await producer.send({"users": ["pia"], "type": "meanwhile"})
    held: list[Callable[[], None]] = []

    def hold_events(tab: WebSocketRoute) -> None:
        def pass_on(text: str | bytes) -> None:
            if '"type":"event"' in str(text):
                held.append(lambda: tab.send(text))
            else:
                tab.send(text)

        tab.connect_to_server().on_message(pass_on)

    await me.page.route_web_socket("**/v1/ws*", hold_events)
    await me.page.goto(f"{dev.page_url}#user=pia")
    await expect(me.types_seen).to_have_text(["seen"])
    for let_go in held:
        let_go()

    await expect(me.types_seen).to_have_text(["meanwhile", "seen"])


async def test_a_topic_that_is_followed_again_shows_nothing_twice(visit: Visit) -> None:
    me = await visit("pepe")
    await me.follow("page-again")
    await me.send("Topic", "page-again", "one")
    await expect(me.types_seen).to_have_text(["one"])
    await me.page.get_by_role("button", name="Unfollow page-again").click()
    await expect(me.page.get_by_role("button", name="Unfollow page-again")).to_have_count(0)
    await me.send("Topic", "page-again", "two")
    await me.accepted()

    await me.follow("page-again")

    await expect(me.types_seen).to_have_text(["two", "one"])


async def test_a_gap_is_told_below_the_events_that_history_still_has(
    visit: Visit, tmp_path: Path
) -> None:
    async with (
        own_dev(tmp_path, NOTIFIER_INBOX_SIZE="3") as dev,
        http_producer(dev.api_url) as producer,
    ):
        me = await visit("rosa", url=dev.page_url)
        await producer.send({"users": ["rosa"], "type": "seen"})
        await expect(me.types_seen).to_have_text(["seen"])
        await me.page.get_by_role("button", name="Disconnect").click()
        for number in range(5):
            await producer.send({"users": ["rosa"], "type": f"missed.{number}"})

        await me.page.get_by_role("button", name="Connect", exact=True).click()

        left = ["missed.4", "missed.3", "missed.2", "Gap", "seen"]
        await expect(me.types_seen).to_have_text(left)


@pytest.mark.parametrize("topic", ["page-past", "__proto__", "constructor"])
async def test_a_topic_that_is_followed_shows_its_history(
    visit: Visit, dev: Role, topic: str
) -> None:
    me = await visit("sven")
    async with http_producer(dev.api_url) as producer:
        await producer.send({"topic": topic, "type": "past"})

    await me.follow(topic)

    await expect(me.types_seen).to_have_text(["past"])


async def test_events_that_were_cleared_stay_away_until_a_reload(visit: Visit) -> None:
    me = await visit("thea")
    await me.send("User", "thea", "one")
    await expect(me.types_seen).to_have_text(["one"])

    await me.page.get_by_role("button", name="Clear").click()
    await expect(me.events).to_have_count(0)
    await me.send("User", "thea", "two")

    await expect(me.types_seen).to_have_text(["two"])
    await me.page.reload()
    await expect(me.types_seen).to_have_text(["two", "one"])


async def test_the_page_counts_down_to_its_next_try_and_tries_now_when_it_is_told_to(
    visit: Visit, tmp_path: Path
) -> None:
    async with own_dev(tmp_path) as dev:
        me = await visit("uwe", url=dev.page_url)
        await me.page.clock.install()
        await me.page.reload()
        await me.signed_in("uwe")
        await me.page.clock.pause_at("2100-01-01T00:00:00Z")

        await asyncio.to_thread(dev.stop)

        await expect(me.state).to_have_text(re.compile(r"^Not connected: .+ \(\d+\)$"))
        countdown = me.page.get_by_text(re.compile(r"^Next try in \d+ s$"))
        await expect(countdown).to_be_visible()
        await restarted(dev)
        await expect(countdown).to_be_visible()  # its own clock stands still
        await me.page.get_by_role("button", name="Try now").click()
        await me.signed_in("uwe")
        await expect(me.page.get_by_role("button", name="Try now")).to_be_hidden()
        await expect(me.page.get_by_text("Next try")).to_have_count(0)
        await expect(me.page.get_by_role("button", name="Disconnect")).to_be_focused()


async def test_the_countdown_falls_and_a_screen_reader_is_not_told_each_second(
    visit: Visit, tmp_path: Path
) -> None:
    async with own_dev(tmp_path) as dev:
        me = await visit("vera", url=dev.page_url)
        await me.page.clock.install()
        await me.page.reload()
        await me.signed_in("vera")
        await me.page.clock.pause_at("2100-01-01T00:00:00Z")
        await me.page.route("**/dev/token", lambda route: route.abort())
        await asyncio.to_thread(dev.stop)
        countdown = me.page.locator("#countdown")
        await expect(countdown).to_have_text(re.compile("Next try"))

        said, seconds = "", 0
        while not said.endswith("does not answer") or seconds < 4:
            await me.page.clock.run_for(seconds * 1000)
            await expect(countdown).to_have_text(re.compile("Next try"))
            seconds = int(re.findall(r"\d+", await countdown.inner_text())[0])
            said = await me.state.inner_text()
        await me.page.clock.run_for(2000)

        await expect(countdown).to_have_text(f"Next try in {seconds - 2} s")
        await expect(me.state).to_have_text(said)


async def test_errors_go_once_they_no_longer_hold(visit: Visit, tmp_path: Path) -> None:
    async with own_dev(tmp_path) as dev:
        me = await visit("willi", url=dev.page_url)
        await asyncio.to_thread(dev.stop)
        await me.page.get_by_label("Follow another topic").fill("news")
        await me.page.get_by_role("button", name="Follow", exact=True).click()
        await expect(me.page.locator("#topic-error")).not_to_be_empty()
        await me.send("User", "willi", "greeting")
        await expect(me.page.get_by_text("The server does not answer.")).to_be_visible()

        await restarted(dev)

        await me.signed_in("willi")
        await expect(me.page.get_by_text("The server does not answer.")).to_have_count(0)
        await expect(me.page.locator("#topic-error")).to_be_empty()


async def test_an_error_at_a_field_goes_once_the_field_is_mended(visit: Visit) -> None:
    me = await visit("xenia")
    await me.send("Topic", "two words", "greeting", "{")
    await expect(me.page.locator("#data-error")).to_contain_text("Not valid JSON")
    await me.page.get_by_label("Data").fill('{"a": ')
    await expect(me.page.locator("#data-error")).to_contain_text("Not valid JSON")
    await me.page.get_by_label("Data").fill('{"a": 1}')
    await expect(me.page.locator("#data-error")).to_be_empty()

    await me.page.get_by_role("button", name="Send").click()
    await expect(me.page.locator("#name-error")).to_contain_text("must be 1 to 128")
    await me.page.get_by_label("To topic").fill("words")
    await expect(me.page.locator("#name-error")).to_be_empty()

    await me.page.get_by_label("Follow another topic").fill("two words")
    await me.page.get_by_role("button", name="Follow", exact=True).click()
    await expect(me.page.locator("#topic-error")).to_contain_text("must be 1 to 128")
    await me.page.get_by_label("Follow another topic").fill("words")
    await expect(me.page.locator("#topic-error")).to_be_empty()


async def test_an_expired_token_is_told_and_the_page_reconnects_with_a_fresh_one(
    visit: Visit, tmp_path: Path
) -> None:
    async with own_dev(tmp_path, NOTIFIER_JWT_SECRET=SECRET) as dev:
        me = await visit("yves", url=dev.page_url)
        await me.page.clock.install()
        await me.page.reload()
        await me.signed_in("yves")
        await me.page.clock.pause_at("2100-01-01T00:00:00Z")
        expired = mint(SECRET, "yves", topics=(), issuer=None, audience=None, lifetime=-60)
        answer = {"token": expired}
        await me.page.route("**/dev/token", lambda route: route.fulfill(json=answer), times=1)
        await me.page.get_by_role("button", name="Disconnect").click()

        await me.page.get_by_role("button", name="Connect", exact=True).click()

        await expect(me.state).to_have_text("Not connected: the token has expired (4001)")
        await me.page.get_by_role("button", name="Try now").click()
        await me.signed_in("yves")


async def test_a_refusal_says_why_and_the_page_does_not_come_back_by_itself(
    visit: Visit, tmp_path: Path
) -> None:
    async with own_dev(tmp_path, NOTIFIER_CONNECTIONS_PER_USER="1") as dev:
        me = await visit("yara", url=dev.page_url)
        other = await visit("zoe", url=dev.page_url)

        await other.page.get_by_label("User id").fill("yara")
        await other.page.get_by_role("button", name="Sign in").click()

        refused = "Refused: the user has too many connections already (4504)"
        await expect(other.state).to_have_text(refused)
        await expect(other.page.get_by_role("button", name="Try now")).to_be_hidden()
        await expect(other.page.locator("#topic-error")).to_be_empty()
        await me.page.get_by_role("button", name="Disconnect").click()
        await other.page.get_by_role("button", name="Connect", exact=True).click()
        await other.signed_in("yara")
