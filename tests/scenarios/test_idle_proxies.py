"""Connections through proxies, from their recipes, on which nothing happens for long.

The long polls wait while other tests go on: the module's tests share an event loop.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from notifier.gateway.poll import LONGEST_WAIT
from tests.support.producers import http_producer
from tests.support.recipes import FILES, RunningProxy, TwoGateways, in_front_of
from tests.support.roles import token
from tests.support.streams import polled
from tests.support.tls import NO_AUTHORITIES

pytestmark = pytest.mark.asyncio(loop_scope="module")

AFTER_A_MINUTE = {
    "nginx": {r"proxy_read_timeout 120s": "proxy_read_timeout 60s"},
    "haproxy": {r"timeout server \d+s": "timeout server 60s"},
    "caddy": {},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def silent_polls(
    gateways: TwoGateways, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[asyncio.Task[httpx.Response]]]:
    """The longest poll through each proxy, which gives up after a minute; it gets no event."""
    with ExitStack() as stack:
        proxies = [
            stack.enter_context(in_front_of(gateways, name, tmp_path_factory.mktemp(name), changed))
            for name, changed in AFTER_A_MINUTE.items()
        ]
        async with asyncio.TaskGroup() as polls:
            yield [polls.create_task(silent_poll(proxy.url, "silent")) for proxy in proxies]


async def silent_poll(url: str, user: str) -> httpx.Response:
    """The answer to the longest poll when nothing happens."""
    headers = {"authorization": f"Bearer {token(user)}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=90, verify=NO_AUTHORITIES
    ) as http:
        cursor = (await polled(http, wait=0))["cursor"]
        return await http.get("/v1/poll", params={"since": cursor, "wait": LONGEST_WAIT})


async def test_posts_over_connections_that_were_idle_are_all_taken(
    gateways: TwoGateways, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        proxies = [
            stack.enter_context(in_front_of(gateways, name, tmp_path / name)) for name in FILES
        ]

        await asyncio.gather(*(post_between_pauses(proxy) for proxy in proxies))


async def post_between_pauses(proxy: RunningProxy) -> None:
    """Post over and over, with idle connections between the proxy and the api."""
    for _ in range(3):
        async with http_producer(proxy.producers_url) as producer:
            posts = [producer.post({"users": ["busy"], "type": "t"}) for _ in range(40)]
            answers = await asyncio.gather(*posts)

        assert {answer.status_code for answer in answers} == {202}
        await asyncio.sleep(5.2)  # an idle connection once ended after 5 s


async def test_the_longest_poll_ends_before_proxies_that_give_up_after_a_minute(
    silent_polls: list[asyncio.Task[httpx.Response]],
) -> None:
    answers = await asyncio.gather(*silent_polls)

    assert [(answer.status_code, answer.json()["frames"]) for answer in answers] == [(200, [])] * 3
