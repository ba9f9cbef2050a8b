"""The page copies its form's event as curl, Python and JavaScript, and each text works when run."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

from notifier.api.keys import new_key
from tests.support.browser import INSECURE_HOST
from tests.support.roles import Role, running
from tests.support.visitor import Visit, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE = shutil.which("node") or "node"
RUN = {
    "curl": ["bash", "-euc"],
    "sh": ["sh", "-euc"],
    "Python": [sys.executable, "-I", "-c"],
    "JavaScript": [NODE, "-e"],
}
AWKWARD = (
    """it's $HOME "$(id)" `id` ${x} \\ %s !! @ # & | ; < > * ? ~ ü 日本 😀 👩‍💻 """
    """\u202e\u2028\u0085\ufeff {{}} </script> \\n"""
)
DATA = f"""{{"text": {json.dumps(AWKWARD, ensure_ascii=False)},
\t"number": 12345678901234567890, "__proto__": {{"none": null, "float": 1.50}},
  "list": [true, false]}}"""


async def copied(me: Visitor, title: str) -> str:
    """The text that the button of this title puts into the clipboard."""
    await me.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await me.page.get_by_role("button", name=title, exact=True).click()
    await expect(me.page.locator("#sent")).to_contain_text(f"Copied as {title}.")
    return str(await me.page.evaluate("navigator.clipboard.readText()"))


async def ran(runner: str, text: str, **environment: str) -> str:
    """The output of the text; its exit code was 0."""
    done = await asyncio.to_thread(
        subprocess.run,
        [*RUN[runner], text],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return done.stdout


@pytest.mark.parametrize(
    ("title", "runner"),
    [("curl", "curl"), ("curl", "sh"), ("Python", "Python"), ("JavaScript", "JavaScript")],
    ids=["curl in bash", "curl in sh", "Python", "JavaScript"],
)
async def test_a_copied_text_sends_the_event_when_it_is_run(
    visit: Visit, title: str, runner: str
) -> None:
    me = await visit(f"copy-{runner}")
    await me.write("User", f"copy-{runner}", 'it\'s $HOME \\ ü "q" `id`', DATA)

    text = await copied(me, title)
    printed = await ran(runner, text)

    await expect(me.types_seen).to_have_text(['it\'s $HOME \\ ü "q" `id`'])
    shown = await me.events.locator("pre").inner_text()
    assert json.loads(shown) == json.loads(DATA)
    assert await me.events.locator("[data-part=id]").inner_text() in printed
    assert "\u202e" not in text


@pytest.mark.parametrize("title", ["curl", "Python", "JavaScript"])
@pytest.mark.parametrize("kind", ["Topic", "Everyone"])
async def test_a_copied_text_has_the_audience_and_no_data_where_there_is_none(
    visit: Visit, title: str, kind: str
) -> None:
    me = await visit("gina")
    await me.follow("page-copies")
    await me.write(kind, "page-copies" if kind == "Topic" else "", f"by.{title}.{kind}", "")

    await ran(title, await copied(me, title))

    await expect(me.entries.get_by_text(f"by.{title}.{kind}", exact=True)).to_be_visible()


@pytest.mark.parametrize("title", ["curl", "Python", "JavaScript"])
async def test_a_copied_text_takes_the_api_key_from_the_environment_where_one_is_needed(
    visit: Visit, tmp_path: Path, title: str
) -> None:
    key = new_key("billing")
    dev = Role("dev", tmp_path / "dev.log", NOTIFIER_API_KEYS=key.entry)
    with running(dev):
        me = await visit("hugo", url=dev.page_url)
        await me.write("User", "hugo", "with.key")

        text = await copied(me, title)
        refused = await ran(title, text, NOTIFIER_API_KEY="wrong")
        await ran(title, text, NOTIFIER_API_KEY=key.secret)

        assert "this API key is not known" in refused
        await expect(me.types_seen).to_have_text(["with.key"])
        await expect(me.page.locator("#sent")).to_contain_text("NOTIFIER_API_KEY")


async def test_where_the_browser_forbids_to_copy_the_text_is_shown_and_selected(
    visit: Visit, tmp_path: Path
) -> None:
    dev = Role("dev", tmp_path / "dev.log", NOTIFIER_HOST="0.0.0.0")  # noqa: S104 - by another name
    with running(dev):
        me = await visit("ilse", url=dev.page_url.replace("127.0.0.1", INSECURE_HOST))

        await me.page.get_by_role("button", name="curl", exact=True).click()

        await expect(me.page.locator("#sent")).to_contain_text("Press Ctrl+C")
        selected = await me.page.evaluate("String(getSelection())")
        assert selected.startswith(f"curl 'http://{INSECURE_HOST}:")


async def test_a_form_with_an_error_is_not_copied(visit: Visit) -> None:
    me = await visit("jens")
    await me.write("User", "jens", "greeting", "{")

    await me.page.get_by_role("button", name="curl", exact=True).click()

    await expect(me.page.locator("#data-error")).to_contain_text("Not valid JSON")
    await expect(me.page.locator("#sent")).to_be_empty()
