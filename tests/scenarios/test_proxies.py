"""Each proxy that the documents have a recipe for, run from it, before real gateways and an api."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from notifier.gateway.poll import LONGEST_WAIT
from notifier.http.incoming import LONGEST_PAUSE
from tests.support.clients import Client, connected
from tests.support.producers import HttpProducer, http_producer
from tests.support.recipes import (
    FILES,
    RECIPES,
    RunningProxy,
    TwoGateways,
    in_front_of,
    recipe_of,
)
from tests.support.roles import KEY, token
from tests.support.streams import ids, polled, streamed
from tests.support.tls import NO_AUTHORITIES

PROXIES = tuple(FILES)


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest,
    gateways: TwoGateways,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningProxy]:
    with in_front_of(gateways, request.param, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    """A user of the test's own."""
    return re.sub(r"\W", "-", request.node.name)[-100:]


@pytest.fixture
async def producer(proxy: RunningProxy) -> AsyncIterator[HttpProducer]:
    async with http_producer(proxy.producers_url) as producer:
        yield producer


@pytest.fixture
async def http(proxy: RunningProxy, user: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {token(user)}"}
    async with httpx.AsyncClient(
        base_url=proxy.url, headers=headers, timeout=30, verify=NO_AUTHORITIES
    ) as http:
        yield http


def ws(proxy: RunningProxy) -> str:
    return proxy.url.replace("http", "ws", 1)


async def test_a_websocket_gets_events_through_the_proxy(
    proxy: RunningProxy, producer: HttpProducer, user: str
) -> None:
    async with connected(ws(proxy), token(user)) as client:
        await producer.send({"users": [user], "type": "t", "id": "w-1"})

        assert (await client.next_event())["id"] == "w-1"


@pytest.mark.parametrize("path", ["/v1/event", "/events", "/", "/api/v1/events"])
async def test_a_post_to_a_misspelt_path_is_refused(proxy: RunningProxy, path: str) -> None:
    headers = {"authorization": f"Bearer {KEY.secret}"}
    async with httpx.AsyncClient(
        base_url=proxy.producers_url, headers=headers, verify=NO_AUTHORITIES
    ) as http:
        answer = await http.post(path, json={"users": ["42"], "type": "t"})

    assert answer.status_code in (403, 404)


async def test_a_first_server_sent_event_is_not_held_back(
    producer: HttpProducer, http: httpx.AsyncClient, user: str
) -> None:
    async with streamed(http) as stream:
        await stream.next_of("hello")
        await producer.send({"users": [user], "type": "t", "id": "s-1"})

        assert await stream.next_ids(1) == ["s-1"]


async def test_a_poll_waits_for_its_event(
    producer: HttpProducer, http: httpx.AsyncClient, user: str
) -> None:
    cursor = (await polled(http, wait=0))["cursor"]
    waiting = asyncio.ensure_future(polled(http, cursor, wait=25))
    await producer.send({"users": [user], "type": "t", "id": "p-1"})

    assert ids((await waiting)["frames"]) == ["p-1"]


# Chunks pass nginx's buffers at once: over HTTP/1.0 a stream has none.
OVER_1_0 = {"proxy_http_version 1.1": "proxy_http_version 1.0"}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"proxy_buffering off": "proxy_buffering on"}, id="our header alone"),
        pytest.param(
            {"proxy_buffering off": "proxy_ignore_headers X-Accel-Buffering; proxy_buffering off"},
            id="the recipe alone",
        ),
    ],
)
async def test_nginx_holds_no_server_sent_event_back_over_http_1_0(
    gateways: TwoGateways, tmp_path: Path, user: str, changed: dict[str, str]
) -> None:
    headers = {"authorization": f"Bearer {token(user)}"}
    with in_front_of(gateways, "nginx", tmp_path, OVER_1_0 | changed) as proxy:
        async with (
            http_producer(proxy.producers_url) as producer,
            httpx.AsyncClient(
                base_url=proxy.url, headers=headers, timeout=30, verify=NO_AUTHORITIES
            ) as http,
            streamed(http) as stream,
        ):
            await stream.next_of("hello")
            await producer.send({"users": [user], "type": "t", "id": "s-1"})

            assert await stream.next_ids(1) == ["s-1"]


@pytest.mark.parametrize("origin", ["https://app.example", "own"])
async def test_an_allowed_page_and_one_of_the_own_host_connect(
    proxy: RunningProxy, user: str, origin: str
) -> None:
    headers = {"Origin": proxy.url if origin == "own" else origin}

    async with connected(ws(proxy), token(user), headers=headers) as client:
        assert client.frames[0]["user"] == user


async def test_the_proxy_and_not_the_client_says_which_scheme_was_used(
    proxy: RunningProxy, user: str
) -> None:
    cookie = {"cookie": f"notifier_token={token(user)}", "origin": proxy.url}
    async with httpx.AsyncClient(base_url=proxy.url, headers=cookie, verify=NO_AUTHORITIES) as http:
        answer = await http.get("/v1/history", headers={"x-forwarded-proto": "https"})

    assert answer.status_code == 200, answer.text


async def test_producers_reach_events_alone_and_clients_no_api(
    proxy: RunningProxy, producer: HttpProducer
) -> None:
    assert (await producer.http.get("/metrics")).status_code in {200, 403, 404}
    async with http_producer(proxy.url) as outside:
        assert (await outside.post({"everyone": True, "type": "t"})).status_code in {404, 405}


async def test_a_large_event_with_ten_thousand_users_fits(
    producer: HttpProducer,
) -> None:
    users = [f"{number:096}" for number in range(10_000)]

    answer = await producer.post({"users": users, "type": "t"})

    assert answer.status_code == 202, answer.text


async def test_a_gateway_that_shuts_down_says_bye_and_the_other_one_takes_its_clients(
    proxy: RunningProxy, producer: HttpProducer, gateways: TwoGateways, user: str
) -> None:
    service = gateways.service
    async with AsyncExitStack() as stay:
        clients: list[Client] = []
        while not service.gateway.metric("notifier_connections", transport="websocket"):
            clients.append(await stay.enter_async_context(connected(ws(proxy), token(user))))
        last = clients[-1]
        stopping = asyncio.ensure_future(asyncio.to_thread(service.gateway.stop))

        assert await last.closed_with() == 4000
        assert last.frames[-1]["type"] == "bye"
        await producer.send({"users": [user], "type": "t", "id": "missed"})
        assert await resumed(ws(proxy), user, last.cursor) == "missed"
        assert await stopping == 0
        service.gateway.start()
        await asyncio.to_thread(service.gateway.wait_until_ready)


async def resumed(url: str, user: str, cursor: str) -> str:
    """The id of the next event, after as many attempts as a client may make."""
    for _ in range(20):
        try:
            async with connected(url, token(user), since=cursor) as client:
                return str((await client.next_event())["id"])
        except (InvalidStatus, WebSocketException, OSError):
            await asyncio.sleep(0.5)
    raise AssertionError("no gateway takes the client")


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_gives_up_an_idle_connection_before_notifier_does(name: str) -> None:
    idle = {
        "nginx": r"keepalive_timeout (\d+)s",
        "haproxy": r"pool-purge-delay (\d+)s",
        "caddy": r"keepalive (\d+)s",
    }

    seconds = [int(each) for each in re.findall(idle[name], recipe_of(name))]

    assert seconds
    assert max(seconds) < LONGEST_PAUSE


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_a_proxy_waits_longer_than_the_longest_poll(name: str) -> None:
    wait = {"nginx": r"proxy_read_timeout (\d+)s;   # longer", "haproxy": r"timeout server (\d+)s"}

    [seconds] = re.findall(wait[name], recipe_of(name))

    assert int(seconds) > LONGEST_WAIT


def test_the_documents_show_each_recipe_as_it_is_run(pytestconfig: pytest.Config) -> None:
    document = (pytestconfig.rootpath / "docs/proxies.md").read_text()

    for name in PROXIES:
        assert f"\n{(RECIPES / FILES[name]).read_text()}```\n" in document
