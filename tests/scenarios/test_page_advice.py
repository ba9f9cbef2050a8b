"""The developer page says so when an event is accepted that its tab does not get."""

import httpx
import pytest
from playwright.async_api import expect

from tests.support.roles import Role
from tests.support.tls import NO_AUTHORITIES
from tests.support.visitor import Visit

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_send_to_a_topic_that_nobody_follows_says_so_and_offers_to_follow(
    visit: Visit,
) -> None:
    me = await visit("anke")

    await me.send("Topic", "page-lonely", "headline")

    said = "You do not follow page-lonely. Nobody else here does. History keeps the event."
    await expect(me.page.locator("#advice-text")).to_have_text(said)
    await expect(me.events).to_have_count(0)
    await me.page.get_by_role("button", name="Follow page-lonely").click()
    await me.following("page-lonely")
    await expect(me.types_seen).to_have_text(["headline"])
    await expect(me.page.locator("#advice")).to_be_hidden()
    await expect(me.page.get_by_role("button", name="Send")).to_be_focused()


async def test_a_send_to_a_topic_that_only_others_follow_says_so(visit: Visit) -> None:
    me, other = await visit("bodo"), await visit("cora")
    await other.follow("page-others")

    await me.send("Topic", "page-others", "headline")

    said = "You do not follow page-others. Other clients do. History keeps the event."
    await expect(me.page.locator("#advice-text")).to_have_text(said)
    await expect(other.types_seen).to_have_text(["headline"])


async def test_a_send_to_a_user_without_a_connection_says_so_and_offers_a_tab(
    visit: Visit,
) -> None:
    me = await visit("dina")

    await me.send("User", "a/b&c", "greeting")

    said = "Nobody is connected here as a/b&c. History keeps the event."
    await expect(me.page.locator("#advice-text")).to_have_text(said)
    async with me.page.expect_popup() as opening:
        await me.page.get_by_role("link", name="Open a tab as a/b&c").click()
    tab = await opening.value
    await expect(tab.get_by_role("status").first).to_have_text("Connected as a/b&c")
    await expect(tab.get_by_role("list", name="Events")).to_contain_text("greeting")


async def test_a_send_that_this_tab_gets_needs_no_advice(visit: Visit) -> None:
    me, other = await visit("ella"), await visit("fips")
    await me.follow("page-mine")

    for kind, to in (("Topic", "page-mine"), ("User", "ella"), ("User", "fips"), ("Everyone", "")):
        await me.send(kind, to, f"to.{kind.lower()}")
        await me.accepted()

    await expect(other.types_seen).to_have_text(["to.user"])
    await expect(me.page.locator("#advice")).to_be_hidden()


async def test_a_bad_topic_is_refused_with_its_rule(dev: Role) -> None:
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as http:
        answer = await http.get(f"{dev.page_url}dev/followed", params={"topic": "two words"})

    assert (answer.status_code, answer.json()["field"]) == (422, "topic")
    assert "must be 1 to 128" in answer.json()["detail"]
