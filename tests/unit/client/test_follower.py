"""The follower: against a gateway on memory, and against one whose every frame a test gives."""

import asyncio
import json
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from notifier.client import ClientError, Closed, Event, Follower, Gap, NoAnswer
from notifier.core.access import Identity
from tests.support.eventually import eventually
from tests.support.gateways import served

Frame = dict[str, Any]
Scene = Sequence[Frame | int]  # frames, and then perhaps the code that it closes with
NOTHING_MORE: Scene = ()


def hello(**topics: str) -> Frame:
    return {
        "type": "hello",
        "user": "42",
        "topics": {name: {"position": position} for name, position in topics.items()},
    }


def event(position: str, topic: str = "news") -> Frame:
    content = {"id": position, "source": "shop", "type": "headline", "data": {"n": 1}}
    return {"type": "event", "topic": topic, "position": position, "event": content}


BYE_SOON: Frame = {"type": "bye", "code": 4000, "reason": "draining", "reconnect_after_ms": 1}


class Gateway:
    """Plays a scene to each connection in turn, and keeps the last one open."""

    def __init__(self, *scenes: Scene) -> None:
        self.url = ""
        self.queries: list[dict[str, list[str]]] = []
        self.tokens: list[str] = []
        self.said: list[Frame] = []
        self.refusals: list[Response] = []
        self._scenes = list(scenes)

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.refusals:
            return self.refusals.pop(0)
        self.queries.append(parse_qs(urlsplit(request.path).query))
        self.tokens.append(request.headers["Sec-WebSocket-Protocol"].partition("bearer.")[2])
        del connection
        return None

    async def play(self, socket: ServerConnection) -> None:
        for part in self._scenes.pop(0):
            if isinstance(part, int):
                await socket.close(part, "reason")
                return
            await socket.send(json.dumps(part))
        with suppress(ConnectionClosed):
            async for message in socket:
                self.said.append(json.loads(message))


@asynccontextmanager
async def playing(*scenes: Scene) -> AsyncIterator[Gateway]:
    gateway = Gateway(*scenes)
    async with serve(
        gateway.play,
        "127.0.0.1",
        0,
        process_request=gateway.admit,
        subprotocols=[Subprotocol("notifier.v1")],
    ) as server:
        gateway.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        yield gateway


@asynccontextmanager
async def ending_early(may_read: asyncio.Event) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Take upgrades; end the connection at once, and only then read what comes."""
    heads: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        key = heads[-1].partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r")[0].decode()
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")
        writer.write(
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n" % accept_key(key).encode()
        )
        writer.write(b"Sec-WebSocket-Protocol: notifier.v1\r\n\r\n")
        await reader.readexactly(1)
        writer.write_eof()
        await may_read.wait()
        while await reader.read(1024 * 1024):
            pass
        writer.close()

    # On a slow machine the large token may come in the head of a later upgrade.
    server = await asyncio.start_server(upgrade, "127.0.0.1", 0, limit=2**26)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*(each.wait_closed() for each in writers), return_exceptions=True)


async def first(number: int, follower: Follower) -> list[str]:
    """Return the ids of so many events."""
    found: list[str] = []
    async with asyncio.timeout(30), aclosing(aiter(follower)) as events:
        async for each in events:
            found.append(each.id)
            if len(found) == number:
                break
    return found


def token(lifetime: float, name: str = "t") -> str:
    claims = json.dumps({"sub": "42", "exp": time.time() + lifetime, "name": name}).encode()
    return f"head.{urlsafe_b64encode(claims).decode().rstrip('=')}.{name}"


def quiet(_: str) -> None:
    pass


async def test_an_event_has_its_type_data_and_place() -> None:
    async with playing([hello(news="a.4"), event("a.5")]) as gateway:
        async for each in Follower(gateway.url, lambda: "t", topics=("news", "b")):
            assert each == Event("news", "a.5", event("a.5")["event"])
            assert (each.id, each.source, each.type) == ("a.5", "shop", "headline")
            assert each.data == {"n": 1}
            break

    assert gateway.queries == [{"topics": ["news,b"]}]


async def test_a_follower_reconnects_with_its_positions_and_drops_duplicates() -> None:
    async with playing(
        [hello(news="a.4", other="z.1"), event("a.5"), event("a.5"), event("a.6"), BYE_SOON, 4000],
        [hello(news="a.6", other="z.1"), event("a.6"), event("a.7"), event("b.1")],
    ) as gateway:
        follower = Follower(gateway.url, lambda: "t")
        got = await first(4, follower)

    assert got == ["a.5", "a.6", "a.7", "b.1"]
    assert gateway.queries[1] == {"since": ["news@a.6,other@z.1"]}
    assert follower.cursor == "news@b.1,other@z.1"


async def test_a_later_follower_goes_on_from_the_cursor() -> None:
    async with playing([hello(news="a.4"), event("a.5")]) as gateway:
        await first(1, Follower(gateway.url, lambda: "t", since="news@a.4,prices@start"))

    assert gateway.queries == [{"since": ["news@a.4,prices@start.0"]}]


async def test_bye_says_when_to_come_back() -> None:
    notes: list[str] = []
    bye = BYE_SOON | {"reconnect_after_ms": 7}
    async with playing([hello(), bye, 4005], [hello(), event("a.1")]) as gateway:
        await first(1, Follower(gateway.url, lambda: "t", note=notes.append))

    assert notes == ["closed with 4005 reason; coming back in 0.0 s"]


@pytest.mark.parametrize("code", [4500, 4501, 4502, 4504])
async def test_a_final_close_code_ends_it_with_an_error(code: int) -> None:
    async with playing([hello(), code]) as gateway:
        with pytest.raises(Closed) as ended:
            await first(1, Follower(gateway.url, lambda: "t"))

    assert (ended.value.code, ended.value.reason) == (code, "reason")


async def test_a_gap_is_told_before_later_events_come() -> None:
    order: list[object] = []
    gap = {"type": "gap", "topic": "news", "position": "b.9", "reason": "restarted"}

    async def load_anew(told: Gap) -> None:
        await asyncio.sleep(0)
        order.append(told)

    async with playing([hello(), gap, event("b.10")]) as gateway:
        order += await first(1, Follower(gateway.url, lambda: "t", on_gap=load_anew))

    assert order == [Gap("news", "b.9", "restarted"), "b.10"]


async def test_a_gap_that_is_still_to_be_told_keeps_the_position() -> None:
    missed = {"type": "hello", "topics": {"news": {"position": "b.9", "resumed": False}}}
    async with playing([missed, BYE_SOON, 4000], [hello(), event("a.9")]) as gateway:
        await first(1, Follower(gateway.url, lambda: "t", since="news@a.4"))

    assert [query["since"] for query in gateway.queries] == [["news@a.4"]] * 2


async def test_without_on_gap_a_gap_is_a_warning_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gap = {"type": "gap", "topic": "news", "position": "b.9", "reason": "expired"}
    refusal = {"type": "error", "code": "forbidden", "message": "the token does not allow staff"}
    with caplog.at_level(logging.WARNING, "notifier.client"):
        async with playing([hello(), gap, refusal, event("b.10")]) as gateway:
            await first(1, Follower(gateway.url, lambda: "t"))

    assert [record.getMessage() for record in caplog.records] == [
        "events of news were missed (expired): fetch your state anew",
        "the gateway refuses: the token does not allow staff",
    ]


async def test_a_token_is_renewed_in_place_before_it_expires() -> None:
    lives = iter([(1.0, "first"), (3600.0, "second")])
    async with playing([hello(), event("a.1")]) as gateway:
        frames = Follower(gateway.url, lambda: token(*next(lives))).frames()
        for _ in range(2):
            await anext(frames)
        waiting = asyncio.ensure_future(anext(frames))
        await eventually(lambda: bool(gateway.said))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await frames.aclose()

    [said] = gateway.said
    assert said["type"] == "auth"
    assert said["token"].endswith(".second")
    assert len(gateway.tokens) == 1


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def get_token() -> str:
        if left:
            raise left.pop(0)
        return "t"

    return get_token


async def test_a_token_that_the_network_fails_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifier.core.backoff.Backoff.next", lambda _: 0.0)
    get_token = failing(httpx.ConnectError("down"), NoAnswer("down"), OSError("down"))
    async with playing([hello(), event("a.1")]) as gateway:
        got = await first(1, Follower(gateway.url, get_token, note=quiet))

    assert got == ["a.1"]


async def test_another_error_of_get_token_is_the_callers() -> None:
    with pytest.raises(LookupError):
        await first(1, Follower("ws://127.0.0.1:9", failing(LookupError())))


@pytest.mark.parametrize("given", [None, "", 42, "<!doctype html>\n", "Bearer a.b.c", "a\nb"])
async def test_a_token_that_is_none_is_told(given: object) -> None:
    async def get_token() -> str:
        return cast("str", given)

    with pytest.raises(
        ClientError, match=r"^get_token gave no token, but (NoneType|int|str of [0-9]+ characters)$"
    ):
        await first(1, Follower("ws://127.0.0.1:9", get_token))


async def test_a_full_gateway_is_asked_again_when_it_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    monkeypatch.setattr("notifier.client.follower.seconds_in", lambda text: float(text) / 100)
    async with playing([hello(), event("a.1")]) as gateway:
        full = Response(503, "Full", Headers({"Retry-After": "3"}))
        gateway.refusals.append(full)
        await first(1, Follower(gateway.url, lambda: "t", note=notes.append))

    assert notes == ["refused with HTTP 503; coming back in 0.0 s"]


@pytest.mark.parametrize("scheme", ["http", "HTTP", "ws"])
async def test_an_address_may_have_the_scheme_of_http(scheme: str) -> None:
    async with playing([hello(), event("a.1")]) as gateway:
        url = gateway.url.replace("ws", scheme, 1)

        got = await first(1, Follower(url, lambda: "t", note=quiet))

    assert got == ["a.1"]


async def test_an_address_that_is_none_of_a_gateway_is_told() -> None:
    with pytest.raises(ClientError, match="no address of a gateway"):
        await first(1, Follower("push.example", lambda: "t"))


async def test_it_follows_a_real_gateway_through_the_expiry_of_its_tokens() -> None:
    async with served() as house:
        house.tokens.table["short"] = Identity("42", time.time() + 1, ("news",))
        given = iter(["short", "ann"])
        url = f"ws://127.0.0.1:{house.port}"
        follower = Follower(url, lambda: next(given), topics=("news",), note=quiet)
        async with asyncio.timeout(60), aclosing(aiter(follower)) as events:
            one = asyncio.ensure_future(anext(events))
            await eventually(lambda: "news@" in follower.cursor)  # hello has come
            house.broker.post("news", "before")
            before = await one
            await house.gone()
            house.broker.post("news", "meanwhile")
            meanwhile = await anext(events)

    ids = [each.attributes["id"] for each in (before, meanwhile)]
    assert ids == ["before", "meanwhile"]


async def test_events_are_marked_received_where_their_producers_wait_for_it() -> None:
    asking = [{**event(f"e.{number}"), "ack": True} for number in (1, 2, 3)]
    async with playing([hello(news="e.0"), asking[0], event("e.9", "other"), *asking[1:]]) as it:
        follower = Follower(it.url, lambda: token(600), note=quiet)
        found = await first(4, follower)
        await eventually(lambda: {"type": "mark", "topic": "news", "received": "e.3"} in it.said)

    assert found == ["e.1", "e.9", "e.2", "e.3"]
    assert {said["topic"] for said in it.said} == {"news"}
    assert len(it.said) <= len(asking)


async def test_a_follower_comes_back_to_a_gateway_that_ended_while_it_was_sending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connections: list[ClientConnection] = []
    may_read = asyncio.Event()

    async def noted(url: str, **more: Any) -> ClientConnection:  # noqa: ANN401
        connections.append(await connect(url, **more))
        return connections[-1]

    monkeypatch.setattr("notifier.client.follower.connect", noted)
    monkeypatch.setattr("notifier.core.backoff.Backoff.next", lambda _: 0.0)
    tokens = iter([token(0.1), "t" * 20_000_000])  # more than sockets hold

    async with ending_early(may_read) as (url, heads):
        following = asyncio.create_task(first(1, Follower(url, lambda: next(tokens, "t"))))
        await eventually(lambda: bool(connections) and connections[0].transport.is_closing())
        may_read.set()
        await eventually(lambda: len(heads) > 1 or following.done())
        following.cancel()

    assert len(heads) > 1
    assert following.cancelled() or not following.done()
