"""The developer page on narrow screens, in both colour schemes, by keyboard and for ears."""

from typing import Literal

import pytest
from playwright.async_api import FloatRect, expect

from tests.support.axe import barriers
from tests.support.visitor import Visit, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The least contrast between a text and its ground (WCAG 2.2, 1.4.3), with the text it was found at.
# A canvas turns every notation of a colour into red, green, blue.
LEAST_CONTRAST = """() => {
  const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = color;
    brush.fillRect(0, 0, 1, 1);
    return [...brush.getImageData(0, 0, 1, 1).data];
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const color = rgb(getComputedStyle(one).backgroundColor);
      if (color[3] === 255) return color;
    }
    return rgb("white");
  };
  const light = (color) => color.slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const contrast = (one, style) => {
    const [dark, bright] = [light(rgb(style.color)), light(ground(one))].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const text = [...one.childNodes].filter((node) => node.nodeType === 3)
      .map((node) => node.data.trim()).join("") || one.value || one.placeholder;
    if (!text || !one.checkVisibility()) continue;
    const part = one.value || !one.placeholder ? null : "::placeholder";
    found.push([contrast(one, getComputedStyle(one, part)), text]);
  }
  return found.sort(([one], [other]) => one - other)[0];
}"""
MARK = "Mark greeting as read"
FORM = ["to-user", "name", "type", "data", "Send", "curl", "Python", "JavaScript"]
SIZES = pytest.mark.parametrize("width", [360, 768, 1280])


async def box(me: Visitor, name: str) -> FloatRect:
    found = await me.page.get_by_role("region", name=name).bounding_box()
    assert found is not None
    return found


async def crowded(visit: Visit, user: str, width: int) -> Visitor:
    """A tab with the longest words, an error at each field, and all parts open."""
    me = await visit(user, width=width)
    await me.page.get_by_text("Raw frames").first.click()
    await me.follow("t" * 128)
    await me.send("User", user, "y" * 100, f'"{"z" * 500}"')
    await expect(me.types_seen.first).to_have_text("y" * 100)
    await me.send("Topic", "two words", "t", "{}")
    await expect(me.page.locator("#name-error")).not_to_be_empty()
    await me.page.get_by_label("Follow another topic").fill("u" * 133)
    await me.page.get_by_role("button", name="Follow", exact=True).click()
    await expect(me.page.locator("#topic-error")).not_to_be_empty()
    return me


@SIZES
async def test_nothing_needs_sideways_scrolling(visit: Visit, width: int) -> None:
    me = await crowded(visit, "x" * 128, width)

    assert await me.page.evaluate("document.documentElement.scrollWidth") == width
    too_wide = await me.page.evaluate(
        "[...document.querySelectorAll('body *:not(.unseen, legend, input, textarea)')]"
        ".filter((one) => one.checkVisibility() && one.clientWidth &&"
        " (one.scrollWidth > one.clientWidth || one.getBoundingClientRect().right > innerWidth))"
        ".map((one) => one.outerHTML)"
    )
    assert too_wide == []


@SIZES
async def test_events_come_first(visit: Visit, width: int) -> None:
    me = await visit("arno", width=width)

    events, form = await box(me, "Events"), await box(me, "Send an event")

    assert events["y"] < 200
    assert events["y"] + events["height"] <= form["y"] or events["x"] < form["x"]
    assert events["y"] <= form["y"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_a_contrast_of_four_and_a_half(
    visit: Visit, scheme: Literal["light", "dark"]
) -> None:
    me = await crowded(visit, "berta", 768)
    await me.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")

    states = {"open": (await me.page.evaluate(LEAST_CONTRAST))}
    for phase in ("idle", "connecting", "lost", "refused"):
        await me.page.evaluate("(it) => document.querySelector('#link').dataset.phase = it", phase)
        states[phase] = await me.page.evaluate(LEAST_CONTRAST)

    assert all(ratio >= 4.5 for ratio, _text in states.values()), states


@pytest.mark.usefixtures("js_client")
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_keeps_people_from_using_the_page(
    visit: Visit, scheme: Literal["light", "dark"]
) -> None:
    me = await crowded(visit, "clara", 768)
    await me.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")

    assert await me.page.evaluate(barriers()) == []


async def test_the_tab_key_goes_through_the_page_in_reading_order_and_shows_where_it_is(
    visit: Visit,
) -> None:
    me = await visit("carla", width=360)
    await me.follow("page-tabs")
    await me.send("User", "carla", "greeting")
    await expect(me.events).to_have_count(1)
    await me.page.get_by_label("User id").focus()

    reached, last = ["user"], -1.0
    while "raw" not in reached:
        await me.page.keyboard.press("Tab")
        name, top, outline = await me.page.evaluate(
            "() => { const one = document.activeElement;"
            " const seen = one.labels?.[0] && one.type === 'radio' ? one.labels[0] : one;"
            " return [one.tagName === 'SUMMARY' ? 'raw' : one.id || one.ariaLabel || one.innerText,"
            " one.getBoundingClientRect().top + scrollY,"
            " parseFloat(getComputedStyle(seen).outlineWidth)]; }"
        )
        assert outline >= 2, name
        assert top > last - 40, f"{name} stands above {reached[-1]}"  # of one row
        reached.append(name)
        last = top

    fields = ["user", "Sign in", "read-all", "clear", "connection", "events", MARK, *FORM]
    assert reached == [*fields, "Unfollow page-tabs", "topic", "Follow", "raw"]


async def test_a_screen_reader_is_told_of_new_events_states_and_errors(visit: Visit) -> None:
    me = await visit("dirk")

    await me.send("User", "dirk", "greeting")

    await expect(me.page.locator("[aria-live=polite]")).to_have_text("1 new event")
    await expect(me.state).to_have_attribute("role", "status")
    for field in ("user", "name", "type", "data", "topic"):
        error = me.page.locator(f"#{field}-error")
        await expect(error).to_have_role("alert")
        await expect(me.page.locator(f"#{field}")).to_have_attribute(
            "aria-describedby", f"{field}-error"
        )
