"""The developer page in a real browser, against the process that `notifier dev` starts.

Each test has users and topics of its own: the process may be shared.
"""

import httpx
import pytest
from playwright.async_api import expect

from tests.support.roles import Role
from tests.support.tls import NO_AUTHORITIES
from tests.support.visitor import Visit

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_event_sent_by_the_form_to_my_user_appears_live(visit: Visit) -> None:
    me = await visit("anna")

    await me.send("User", "anna", "order.shipped", '{"order": 12345678901234567}')

    await expect(me.types_seen).to_have_text(["order.shipped"])
    await expect(me.events).to_contain_text("user:anna")
    await me.page.get_by_text("Raw frames").first.click()
    frames = me.page.get_by_role("list", name="Raw frames")
    for shown in (me.events, frames):  # as typed, not as JavaScript rounds
        await expect(shown).to_contain_text("12345678901234567")


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

    for each in (me, other):
        await expect(each.entries.get_by_text("maintenance.emil", exact=True)).to_have_count(1)


async def test_after_a_reconnect_the_missed_events_appear(visit: Visit) -> None:
    me = await visit("gerd")
    await me.follow("page-sport")
    await me.page.get_by_role("button", name="Disconnect").click()
    await me.send("User", "gerd", "missed.personal")
    await me.accepted()
    await me.send("Topic", "page-sport", "missed.sport")
    await me.accepted()

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

    await expect(me.page.locator("#user-error")).to_contain_text("must be 1 to 128")
    await expect(me.state).to_have_text("Signed out")


async def test_neither_the_url_nor_the_page_nor_storage_holds_the_token(visit: Visit) -> None:
    me = await visit("jane")
    await me.page.get_by_text("Raw frames").first.click()

    held = await me.page.evaluate(
        "[location.href, document.documentElement.outerHTML, document.cookie,"
        " JSON.stringify(localStorage), JSON.stringify(sessionStorage)].join()"
    )

    assert "hello" in held  # the frames are there to be looked through
    assert "eyJ" not in held  # every JWT begins so


async def test_no_inline_script_runs_and_none_of_another_site(visit: Visit, dev: Role) -> None:
    me = await visit("jule")

    await me.page.evaluate(
        "() => { const script = document.createElement('script');"
        " script.text = 'window.ran = true'; document.body.append(script); }"
    )

    assert not await me.page.evaluate("window.ran")
    assert "Content Security Policy" in me.complaints[0]
    policy = httpx.get(dev.page_url, verify=NO_AUTHORITIES).headers["content-security-policy"]  # noqa: ASYNC210 - once
    assert policy.startswith("default-src 'self'; connect-src 'self' ws: wss:;")
    assert "unsafe" not in policy


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
