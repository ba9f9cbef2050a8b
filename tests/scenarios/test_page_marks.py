"""The developer page shows what is unread, and all tabs of a user agree on it."""

import asyncio
import re

import httpx
import pytest
from playwright.async_api import expect

from tests.support.producers import http_producer
from tests.support.roles import Role
from tests.support.tls import NO_AUTHORITIES
from tests.support.visitor import Visit, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def sees(me: Visitor, *unread: str) -> None:
    """Return once exactly these types are marked as unread, newest first."""
    await expect(me.events.and_(me.page.locator(".unread")).locator("strong")).to_have_text(
        list(unread)
    )


async def test_two_tabs_agree_on_unread(visit: Visit) -> None:
    phone, laptop = await visit("adam", width=360), await visit("adam")
    for number in (1, 2, 3):
        await phone.send("User", "adam", f"event.{number}")
        await phone.accepted()
    for tab in (phone, laptop):
        await sees(tab, "event.3", "event.2", "event.1")
        await expect(tab.page.get_by_role("listitem").get_by_text("3", exact=True)).to_be_visible()

    await laptop.events.filter(has_text="event.2").click()

    for tab in (phone, laptop):
        await sees(tab, "event.3", "event.1")
        await expect(tab.page.get_by_role("listitem").get_by_text("2", exact=True)).to_be_visible()
    await phone.page.get_by_role("button", name="Read all").click()
    for tab in (phone, laptop):
        await sees(tab)
        await expect(tab.unread).to_be_hidden()
        await expect(tab.page).to_have_title("adam · notifier dev")


async def test_a_reload_keeps_the_events_shown(visit: Visit) -> None:
    me = await visit("bruno")
    for number in (1, 2):
        await me.send("User", "bruno", f"event.{number}")
        await me.accepted()
    await expect(me.events).to_have_count(2)

    await me.page.get_by_role("button", name="Mark event.1 as read").press("Enter")
    await sees(me, "event.2")
    await me.page.reload()

    await expect(me.events).to_have_count(2)
    await sees(me, "event.2")
    await expect(me.page).to_have_title(re.compile(r"^\(\d+\) bruno · notifier dev$"))


async def test_a_further_topic_has_its_own_unread(visit: Visit) -> None:
    me = await visit("clara")
    await me.follow("page-unread")
    row = (
        me.page.get_by_role("listitem")
        .filter(has_text="page-unread")
        .filter(has=me.page.get_by_role("button", name="Unfollow page-unread"))
    )

    await me.send("Topic", "page-unread", "headline")

    await expect(row.get_by_text("1", exact=True)).to_be_visible()
    await me.events.filter(has_text="headline").click()
    await expect(row.get_by_text("1", exact=True)).to_have_count(0)
    await sees(me)


async def test_a_silent_event_is_never_unread(visit: Visit, dev: Role) -> None:
    me = await visit("doris")
    async with http_producer(dev.api_url) as producer:
        await producer.send({"users": ["doris"], "type": "refresh", "silent": True})

    await expect(me.types_seen).to_have_text(["refresh"])
    await sees(me)


async def test_an_event_whose_producer_waits_for_it_is_marked_received(
    visit: Visit, dev: Role
) -> None:
    me = await visit("frieda")
    async with http_producer(dev.api_url) as producer:
        await producer.post({"users": ["frieda"], "type": "t", "id": "e", "undelivered_after": 60})

    await expect(me.events).to_have_count(1)
    async with (
        httpx.AsyncClient(base_url=dev.api_url, verify=NO_AUTHORITIES) as api,
        asyncio.timeout(30),
    ):
        while (told := (await api.get("/v1/users/frieda/events/e")).json())["fate"] == "published":
            pass
    assert told["fate"] == "received"


async def test_text_of_an_event_can_be_selected_without_marking_it(visit: Visit) -> None:
    me = await visit("egon")
    await me.send("User", "egon", "greeting", '{"text": "Hello"}')
    await sees(me, "greeting")

    data = await me.events.locator("pre").bounding_box()
    assert data is not None
    await me.page.mouse.move(data["x"] + 15, data["y"] + 15)
    await me.page.mouse.down()
    await me.page.mouse.move(data["x"] + 80, data["y"] + 15)
    await me.page.mouse.up()
    await me.send("User", "egon", "second")

    await sees(me, "second", "greeting")


async def test_marking_without_a_connection_tells_the_remedy(visit: Visit) -> None:
    me = await visit("frank")
    await me.send("User", "frank", "greeting")
    await sees(me, "greeting")
    await me.page.get_by_role("button", name="Disconnect").click()

    await me.events.click()

    await expect(me.page.locator("#marks-error")).to_contain_text("Connect first")
    await me.page.get_by_role("button", name="Connect", exact=True).click()
    await me.signed_in("frank")
    await expect(me.page.locator("#marks-error")).to_be_empty()
