import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from notifier.http.exchange import Exchange
from notifier.http.port import HANDOVER
from tests.support.conversations import respond, talking

LAST = b"%s / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
Answer = Callable[[Send], Awaitable[None]]


async def whole(send: Send) -> None:
    await respond(send, b"hello")


async def parts(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hel", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await send({"type": "http.response.body", "body": b"lo"})


async def nothing(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


async def answered(answer: Answer, request: bytes) -> tuple[bytes, bytes]:
    """Return head and body of the response."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await answer(send)

    async with talking(app) as talk:
        await talk.say(request)
        head, _, body = (await talk.rest()).partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    ("answer", "request_", "said", "body"),
    [
        (whole, LAST % b"GET", b"content-length: 5", b"hello"),
        (whole, LAST % b"HEAD", b"content-length: 5", b""),
        (parts, LAST % b"GET", b"transfer-encoding: chunked", b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
        (parts, LAST % b"HEAD", b"HTTP/1.1 200 OK", b""),
        (parts, b"GET / HTTP/1.0\r\n\r\n", b"connection: close", b"hello"),
        (nothing, LAST % b"GET", b"HTTP/1.1 204 No Content", b""),
    ],
)
async def test_a_client_knows_where_the_response_ends(
    answer: Answer, request_: bytes, said: bytes, body: bytes
) -> None:
    head, got = await answered(answer, request_)

    assert said in head.split(b"\r\n")
    assert got == body


async def fails(_: Send) -> None:
    raise LookupError


async def says_nothing(_: Send) -> None:
    return


async def breaks_a_line(send: Send) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]}
    await send(start)


@pytest.mark.parametrize("answer", [fails, says_nothing, breaks_a_line])
async def test_an_application_that_fails_is_an_error_of_the_server(answer: Answer) -> None:
    head, body = await answered(answer, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert body == b"Internal Server Error"


async def too_short(send: Send) -> None:
    headers = [(b"content-length", b"9")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def test_half_a_response_is_never_the_whole() -> None:
    head, body = await answered(too_short, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    assert b"content-length: 9" in head
    assert body == b"half"


async def test_an_application_hears_that_its_client_left() -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        await receive()
        heard.put_nowait("begun")
        heard.put_nowait((await receive())["type"])

    async with talking(app) as talk:
        await talk.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await heard.get()
        talk.writer.close()

        assert await asyncio.wait_for(heard.get(), 10) == "http.disconnect"


async def test_an_application_waits_for_a_client_that_does_not_read() -> None:
    sent = 0

    async def app(_: Scope, __: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for _i in range(100):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            sent += 1
        await send({"type": "http.response.body"})

    async with talking(app) as talk:
        talk.pause()
        await talk.say(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for _i in range(100):
            await asyncio.sleep(0)
        before = sent
        talk.resume()
        body = await talk.rest()

    assert before < 50
    assert body.count(b"x") == 10_000_000


class Taker(asyncio.Protocol):
    """Answers in the application's place, a line for each that it is told to."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._transport = exchange.take_over(self)
        head = exchange.head([(b"content-length", b"5")])
        self._transport.write(head)

    def data_received(self, data: bytes) -> None:
        self._exchange.keep_early(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._exchange.let_go(self)

    def end(self) -> None:
        self._transport.write(b"taken")
        self._exchange.give_back(self, is_paused=False)


@pytest.mark.parametrize("behind", ["in one segment", "while held", "afterwards"])
async def test_a_response_is_handed_over_and_not_the_request_behind_it(behind: str) -> None:
    takers: list[Taker] = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        if scope["path"] == "/held":
            takers.append(Taker(scope["extensions"][HANDOVER]["from"]))
        else:
            await respond(send, b"own")

    held, last = b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n", LAST % b"GET"
    async with talking(app) as talk:
        await talk.say(held + last if behind == "in one segment" else held)
        await talk.say(last if behind == "while held" else b"")
        takers[0].end()
        await talk.say(last if behind == "afterwards" else b"")
        answers = await talk.rest()

    assert answers.count(b"HTTP/1.1") == answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.index(b"taken") < answers.index(b"own")


async def test_a_client_that_leaves_after_the_hand_over_is_forgotten() -> None:
    taken = asyncio.Event()

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        Taker(scope["extensions"][HANDOVER]["from"])
        taken.set()

    async with talking(app) as talk:
        await talk.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await taken.wait()
        talk.writer.transport.abort()

        await talk.gone()


async def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_failure() -> None:
    async def app(scope: Scope, receive: Receive, _: Send) -> None:
        with pytest.raises(ClientDisconnect):
            await Request(scope, receive).body()
        left.set()
        raise ClientDisconnect

    left = asyncio.Event()
    with capture_logs() as logs:
        async with talking(app) as talk:
            await talk.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
        await asyncio.wait_for(left.wait(), 30)

    assert [line["event"] for line in logs if line["log_level"] == "error"] == []
