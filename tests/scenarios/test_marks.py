"""Three devices of one person on two gateways: their badges agree, and are right."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.support.eventually import eventually
from tests.support.process import free_port
from tests.support.producers import http_producer
from tests.support.roles import TOKENS, Role, running, service_of, token
from tests.support.streams import Frame, recount, streamed
from tests.support.tls import NO_AUTHORITIES

USER = "reader"
TOPIC = f"user:{USER}"


class Device:
    """A client that comes back to any gateway, and shows what it was last told."""

    def __init__(self, name: str, headers: dict[str, str], *urls: str) -> None:
        self.name = name
        self.positions: dict[str, str] = {}  # of events, by their id
        self.cursor = ""
        self.badge: int | None = None
        self.is_greeted = False
        self._headers = headers
        self._urls = urls

    def take(self, frame: Frame) -> None:
        self.is_greeted = True
        if frame["type"] == "event":
            self.positions[frame["event"]["id"]] = frame["position"]
        elif frame["type"] == "marks" and frame["topic"] == TOPIC:
            self.badge = frame["unread"]

    async def run(self, stay: Callable[["Device", httpx.AsyncClient], Awaitable[None]]) -> None:
        for url in cycle(self._urls):
            with suppress(httpx.HTTPError, WebSocketException, OSError):
                async with httpx.AsyncClient(
                    base_url=url, headers=self._headers, timeout=40, verify=NO_AUTHORITIES
                ) as http:
                    await stay(self, http)


async def by_socket(device: Device, http: httpx.AsyncClient) -> None:
    url = str(http.base_url).replace("http:", "ws:")
    headers = {"Authorization": http.headers["authorization"]}
    async with connect(f"{url}/v1/ws?marks=true", additional_headers=headers) as socket:
        async for text in socket:
            device.take(json.loads(text))


async def by_stream(device: Device, http: httpx.AsyncClient) -> None:
    async with streamed(http, "?marks=true", last_event_id=device.cursor) as stream:
        while told := await stream.next():
            device.cursor = stream.cursor or device.cursor
            if told.data:
                device.take(told.data)


async def by_poll(device: Device, http: httpx.AsyncClient) -> None:
    query = {"marks": "true", "since": ""}
    while True:
        answer = (await http.get("/v1/poll", params=query)).raise_for_status().json()
        query = {"marks": answer.get("marks", "true"), "since": answer["cursor"]}
        for frame in answer["frames"]:
            device.take(frame)


@asynccontextmanager
async def at_work(*devices: tuple[Device, Callable[..., Awaitable[None]]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running_ = [tasks.create_task(device.run(stay)) for device, stay in devices]
        yield
        for each in running_:
            each.cancel()


async def test_badges_agree_and_equal_a_recount_though_a_gateway_is_killed(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    ports = [{"NOTIFIER_GATEWAY_PORT": str(free_port())} for _ in range(2)]
    service = service_of(tmp_path, amqp_url, redis_url, **ports[0])
    redis = {"NOTIFIER_REDIS_URL": redis_url}
    other = Role("gateway", tmp_path / "other.log", **redis, **TOKENS, **ports[1])
    headers = {"authorization": f"Bearer {token(USER)}"}
    async with AsyncExitStack() as stack:
        stack.enter_context(running(service.api, service.router, service.gateway, other))
        first, second = (g.gateway_url.replace("ws:", "http:") for g in (service.gateway, other))
        phone = Device("phone", headers, first, second)
        laptop = Device("laptop", headers, second)
        tablet = Device("tablet", headers, first, second)
        devices = (phone, laptop, tablet)
        producer = await stack.enter_async_context(http_producer(service.api.api_url))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=second, headers=headers, timeout=30, verify=NO_AUTHORITIES)
        )
        await stack.enter_async_context(
            at_work((phone, by_socket), (laptop, by_stream), (tablet, by_poll))
        )

        async def post(*names: str, **members: object) -> None:
            events = [{"users": [USER], "type": "t", "id": n, **members} for n in names]
            await producer.send_batch(events)
            await eventually(lambda: laptop.positions.keys() >= set(names))

        async def mark(**frame: object) -> None:
            (await http.post("/v1/marks", json=frame)).raise_for_status()

        async def all_show(number: int) -> None:
            try:
                await eventually(lambda: all(device.badge == number for device in devices))
            except TimeoutError as error:
                shown = {device.name: device.badge for device in devices}
                raise AssertionError(f"{shown}, and not {number}") from error
            assert await recount(http) == number

        await eventually(lambda: laptop.is_greeted)  # events of before are not for its stream
        await post("a", "b", "c", "d", "e")
        await post("hint", silent=True)
        await post("first", "second", collapse_key="k")
        await all_show(6)  # a to e, and the second of one key
        await mark(read=laptop.positions["b"])
        await all_show(4)
        await mark(read_only=[laptop.positions["d"]])
        await all_show(3)

        service.gateway.kill()
        await mark(read=laptop.positions["c"])  # touches d, which is read
        await post("f")
        await all_show(3)  # e, second and f
        service.gateway.start()
        service.gateway.wait_until_ready()
        other.kill()
        phone.badge = tablet.badge = None  # they have to be told anew
        other.start()
        other.wait_until_ready()
        await post("g")
        await all_show(4)
