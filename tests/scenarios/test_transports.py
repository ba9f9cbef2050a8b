"""A browser's own EventSource, and one cursor over all transports."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from playwright.async_api import Page, async_playwright

from tests.support.browser import QUIET, empty_page
from tests.support.clients import connected
from tests.support.process import free_port
from tests.support.producers import HttpProducer, http_producer
from tests.support.roles import TOKENS, Role, running, service_of, token
from tests.support.streams import ids, polled, streamed
from tests.support.tls import NO_AUTHORITIES

LISTEN = """url => {
  window.got = []; window.told = []; window.opened = 0;
  const source = new EventSource(url, { withCredentials: true });
  source.onopen = () => window.opened++;
  source.addEventListener("event", e => window.got.push(JSON.parse(e.data).event.id));
  const told = event => window.told.push(event.type);
  for (const kind of ["gap", "failure"]) source.addEventListener(kind, told);
  source.onerror = event => source.readyState === EventSource.CLOSED && told(event);
}"""


@asynccontextmanager
async def listening(chromium: str, address: str, gateway: Role, user: str) -> AsyncIterator[Page]:
    """A page, signed in at the gateway by a cookie, that listens to it."""
    url = gateway.gateway_url.replace("ws:", "http:")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=QUIET)
        context = await browser.new_context()
        await context.add_cookies([{"name": "notifier_token", "value": token(user), "url": url}])
        page = await context.new_page()
        await page.goto(address)
        await page.evaluate(LISTEN, f"{url}/v1/sse")
        await page.wait_for_function("opened === 1")
        yield page
        await browser.close()


async def post_until(producer: HttpProducer, user: str, enough: asyncio.Event) -> list[str]:
    posted: list[str] = []
    while not enough.is_set():
        event = {"users": [user], "type": "t", "id": f"{len(posted)}"}
        posted.append(await producer.send(event))
    return posted


async def test_an_event_source_of_a_browser_survives_the_restart_of_its_gateway(
    tmp_path: Path, amqp_url: str, redis_url: str, chromium: str
) -> None:
    port = free_port()
    settings = {
        "NOTIFIER_GATEWAY_PORT": str(free_port()),
        "NOTIFIER_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
        "NOTIFIER_HISTORY_SIZE": "10000",
        "NOTIFIER_INBOX_SIZE": "10000",
    }
    service = service_of(tmp_path, amqp_url, redis_url, **settings)
    with running(service.api, service.router, service.gateway):
        async with (
            empty_page(port) as address,
            listening(chromium, address, service.gateway, "42") as page,
            http_producer(service.api.api_url) as producer,
        ):
            enough = asyncio.Event()
            posting = asyncio.ensure_future(post_until(producer, "42", enough))
            for number in (signal.SIGTERM, signal.SIGKILL):
                await page.wait_for_function("got.length > 5")
                before = await page.evaluate("opened")
                await asyncio.to_thread(restart, service.gateway, number)
                await page.wait_for_function("n => opened > n", arg=before)
            enough.set()
            posted = await posting
            await page.wait_for_function("n => got.length >= n", arg=len(posted))

            assert await page.evaluate("got") == posted
            assert await page.evaluate("told") == []


def restart(gateway: Role, number: signal.Signals) -> None:
    if number == signal.SIGKILL:
        gateway.kill()
    else:
        gateway.signal(number)
        assert gateway.wait() == 0
    gateway.start()
    gateway.wait_until_ready()


async def test_a_client_reconnects_by_another_transport_and_gateway_and_misses_nothing(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    user, bearer = "mover", token("mover")
    service = service_of(tmp_path, amqp_url, redis_url)
    other = Role("gateway", tmp_path / "other.log", NOTIFIER_REDIS_URL=redis_url, **TOKENS)
    headers = {"authorization": f"Bearer {bearer}"}
    with running(service.api, service.router, service.gateway, other):
        first, second = (g.gateway_url.replace("ws:", "http:") for g in (service.gateway, other))
        async with (
            http_producer(service.api.api_url) as producer,
            httpx.AsyncClient(base_url=first, headers=headers, verify=NO_AUTHORITIES) as here,
            httpx.AsyncClient(base_url=second, headers=headers, verify=NO_AUTHORITIES) as there,
        ):

            async def send(count: int) -> list[str]:
                bodies = [{"users": [user], "type": "t"} for _ in range(count)]
                return await producer.send_batch(bodies)

            cursor, got = (await polled(here))["cursor"], list[str]()
            posted = await send(3)
            while len(got) < 3:
                answer = await polled(there, cursor)
                cursor, got = answer["cursor"], got + ids(answer["frames"])
            posted += await send(2)
            async with streamed(here, last_event_id=cursor) as stream:
                got += await stream.next_ids(2)
            posted += await send(2)
            async with connected(other.gateway_url, bearer, since=stream.cursor) as client:
                got += [event["id"] for event in await client.next_events(2)]
            posted += await send(2)
            cursor = client.cursor
            while len(got) < len(posted):
                answer = await polled(here, cursor)
                cursor, got = answer["cursor"], got + ids(answer["frames"])
            history = await there.get("/v1/history", params={"since": client.cursor})

    assert got == posted
    assert ids(history.json()["frames"]) == posted[-2:]
    assert history.json()["cursor"] == cursor
