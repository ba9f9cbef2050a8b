"""The developer page shows who is present in a topic."""

import pytest
from playwright.async_api import expect

from tests.support.visitor import Visit, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def sees(me: Visitor, topic: str, text: str) -> None:
    """Return once the row of the topic says so of its members."""
    unfollow = me.page.get_by_role("button", name=f"Unfollow {topic}")
    row = me.page.get_by_role("listitem").filter(has=unfollow)
    await expect(row.locator(".members")).to_have_text(text, timeout=30_000)


async def test_members_come_and_go_in_each_tab(visit: Visit) -> None:
    adam, bruno = await visit("adam", width=360), await visit("bruno")
    await adam.follow("page-room")
    await sees(adam, "page-room", "1 here: adam")
    await bruno.follow("page-room")
    for tab in (adam, bruno):
        await sees(tab, "page-room", "2 here: adam, bruno")

    await bruno.page.get_by_role("button", name="Unfollow page-room").click()

    await sees(adam, "page-room", "1 here: adam")
    await bruno.follow("page-room")
    await sees(bruno, "page-room", "2 here: adam, bruno")
    assert adam.complaints == bruno.complaints == []


async def test_members_are_known_again_after_a_reconnect(visit: Visit) -> None:
    adam, bruno = await visit("anna"), await visit("berta")
    await adam.follow("page-lobby")
    await adam.page.get_by_role("button", name="Disconnect").click()
    await bruno.follow("page-lobby")

    await adam.page.get_by_role("button", name="Connect", exact=True).click()

    await sees(adam, "page-lobby", "2 here: anna, berta")


async def test_topics_without_presence_show_no_members(visit: Visit) -> None:
    me = await visit("clara")
    await me.follow("page-quiet")
    await sees(me, "page-quiet", "1 here: clara")

    rows = me.page.locator("#topics .members")

    await expect(rows).to_have_text(["", "", "1 here: clara"])
