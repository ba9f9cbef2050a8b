"""How tests start Chromium, and a page of another origin than the gateway's."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from itertools import count
from typing import Any

from playwright.async_api import Browser, CDPSession

_PATIENCE = 60  # seconds that a tab has to answer

# Without a sandbox, which root has none of, and silent on the network.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Browsers trust pages of 127.0.0.1 more than those of another name for the same address.
INSECURE_HOST = "devbox"
NAMES = f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1"


@asynccontextmanager
async def empty_page(port: int) -> AsyncIterator[str]:
    """Serve an empty page; a real server, as Chromium lets no made-up page ask this machine."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n"
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")  # browsers connect ahead, and ask nothing
            writer.write(head + b"connection: close\r\n\r\n")

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"


class BareTab:
    """A tab that Chromium may freeze: Playwright keeps those of its own awake."""

    def __init__(self, browser: CDPSession, session: str) -> None:
        self._browser = browser
        self._session = session
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        browser.on("Target.receivedMessageFromTarget", self._heard)

    async def go(self, url: str) -> None:
        """Load a page; its scripts may still be under way."""
        await self._send("Page.navigate", {"url": url})

    async def evaluate(self, expression: str) -> Any:  # noqa: ANN401  # as Playwright's
        """The value of a JavaScript expression, awaited."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self._send("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Return once a JavaScript expression is true."""
        await self.evaluate(
            "new Promise((done) => { const look = () => "
            f"({condition}) ? done() : setTimeout(look, 20); look(); }})"
        )

    async def turn(self, state: str) -> None:
        """Make the tab `frozen`, as a browser does to save power, or `active` again."""
        await self._send("Page.setWebLifecycleState", {"state": state})

    async def _send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message = json.dumps({"id": number, "method": method, "params": params})
        asked = {"sessionId": self._session, "message": message}
        await self._browser.send("Target.sendMessageToTarget", asked)
        async with asyncio.timeout(_PATIENCE):
            return await answer

    def _heard(self, told: dict[str, str]) -> None:
        message = json.loads(told["message"])
        if told["sessionId"] == self._session and "id" in message:
            assert "error" not in message, message
            self._answers.pop(message["id"]).set_result(message["result"])


@asynccontextmanager
async def bare_tabs(browser: Browser) -> AsyncIterator[Callable[[str], Awaitable[BareTab]]]:
    """How to open tabs of one profile: `await open_tab(url)`."""
    session = await browser.new_browser_cdp_session()
    profile = await session.send("Target.createBrowserContext")
    try:
        yield partial(_bare_tab, session, profile["browserContextId"])
    finally:
        await session.send("Target.disposeBrowserContext", profile)
        await session.detach()


async def _bare_tab(session: CDPSession, profile: str, url: str) -> BareTab:
    asked = {"url": "about:blank", "browserContextId": profile}
    target = await session.send("Target.createTarget", asked)
    attached = await session.send("Target.attachToTarget", {**target, "flatten": False})
    tab = BareTab(session, attached["sessionId"])
    await tab.go(url)
    return tab
