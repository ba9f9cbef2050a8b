import asyncio
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from notifier.http import incoming, outgoing, turns
from notifier.http.backlog import UNCOUNTED, Backlog
from tests.support.conversations import Talk, echo, respond, talking
from tests.support.echoes import EchoConnection, app

UPGRADE = (
    b"GET /v1/ws?topics=a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
HELLO = b"\x81\x85\0\0\0\0hello"  # masked by noughts
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
BODIES = {
    "counted": b"Content-Length: 5\r\n\r\nhello",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "chunked with a trailer": (
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nAuthorization: x\r\n\r\n"
    ),
    "expected": b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
}
PIPELINE = b"".join(
    [
        b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n\r\n\r\nGET /",
        b"POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"4\r\n\r\n\r\n\r\n1\r\n0\r\n0\r\n\r\n",
        b"\r\nPUT /4 HTTP/1.1\r\nHost: x\r\n" + H2C + b"Content-Length: 4\r\n\r\n\r\n\r\n",
        b"GET /5 HTTP/1.1\r\nHost: x\r\n" + WEBSOCKET + b"Content-Length: 1\r\n\r\n5",
        b"POST /6 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + WEBSOCKET + b"\r\n",
        LAST,
    ]
)
PIPELINED = [
    b"GET /1 ",
    b"POST /2 \r\n\r\nGET /",
    b"POST /3 \r\n\r\n0",
    b"PUT /4 \r\n\r\n",
    b"GET /5 5",
    b"POST /6 ",
]


# Offers to upgrade.


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("cut", ["nowhere", "behind the head", "everywhere"])
@pytest.mark.parametrize(
    ("method", "offer"), [(b"POST", H2C), (b"POST", WEBSOCKET), (b"GET", H2C), (b"GET", WEBSOCKET)]
)
async def test_a_request_with_an_offer_to_upgrade_keeps_its_body_and_its_connection(
    method: bytes, offer: bytes, body: str, cut: str
) -> None:
    request = b"%s /events HTTP/1.1\r\nHost: x\r\n%s%s" % (method, offer, BODIES[body])
    head, _, rest = request.partition(b"\r\n\r\n")
    pieces = {
        "nowhere": [request],
        "behind the head": [head + b"\r\n\r\n", rest],
        "everywhere": [request[at : at + 1] for at in range(len(request))],
    }
    async with talking(echo, EchoConnection) as talk:
        await talk.say(*pieces[cut])
        answer = await talk.answer() if body != "expected" else await continued(talk)
        await talk.say(LAST)
        last = await talk.rest()

    assert answer.endswith(b"\r\n\r\n%s /events hello" % method)
    assert last.endswith(b"\r\n\r\nGET /last ")


async def continued(talk: Talk) -> bytes:
    assert await talk.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    return await talk.answer()


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        (b"GET", b"POST"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Upgrade: websocket", b"Upgrade: TLS/1.3"),
        (b"Upgrade: websocket", b"Upgrade: h2c, websocket2"),
        (b"keep-alive, Upgrade", b"keep-alive"),
        (b"Host: x\r\n", b"Host: x\r\nTransfer-Encoding: chunked\r\n"),
    ],
)
async def test_only_a_get_of_http_1_1_without_a_body_becomes_a_websocket(
    what: bytes, instead: bytes
) -> None:
    async with talking(echo, EchoConnection) as talk:
        await talk.say(UPGRADE.replace(what, instead) + b"0\r\n\r\n" * (b"chunked" in instead))

        assert (await talk.answer()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_where_there_are_no_websockets_none_is_made() -> None:
    async with talking(echo) as talk:
        await talk.say(UPGRADE)

        assert (await talk.answer()).endswith(b"GET /v1/ws ")


@pytest.mark.parametrize(
    "pieces",
    [
        (UPGRADE, HELLO),
        (UPGRADE + HELLO,),
        (UPGRADE[:40], UPGRADE[40:], HELLO),
        (UPGRADE.replace(b"Host: x", b"Host: x\r\nContent-Length: 0"), HELLO),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + UPGRADE + HELLO,),
        (UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: h2c,WebSocket"), HELLO),
        (UPGRADE.replace(b"Host: x", b"Host: x\r\nUpgrade: h2c"), HELLO),
        (UPGRADE.replace(b"Host: x", b"Host: x\r\nSec-WebSocket-Extensions:"), HELLO),
    ],
    ids=[
        *("plain", "with a frame behind it", "in two pieces", "with an empty body", "pipelined"),
        *("among other offers", "with another offer on a line of its own"),
        "with an empty list of extensions",
    ],
)
async def test_an_upgrade_is_answered_however_it_comes(pieces: tuple[bytes, ...]) -> None:
    async with talking(both, EchoConnection) as talk:
        await talk.say(*pieces)
        answer = await asyncio.wait_for(talk.reader.readuntil(b"hello"), 10)
        talk.writer.transport.abort()

    assert b"HTTP/1.1 101 " in answer
    assert answer.endswith(b"\r\n\r\n\x81\x05hello")


async def both(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo messages of WebSockets, and requests."""
    await (app if scope["type"] == "websocket" else echo)(scope, receive, send)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://x:80/v1/ws?topics=a", b"/v1/ws"),
        (b"ws://x/v1/ws?topics=a", b"/v1/ws"),
        (b"/v1/ws?topics=a#b", b"/v1/ws"),
        (b"http://x?topics=a", b"/"),
    ],
)
@pytest.mark.parametrize("offer", [b"", H2C, UPGRADE.partition(b"Host: x\r\n")[2][:-2]])
async def test_a_target_may_be_a_whole_url(target: bytes, path: bytes, offer: bytes) -> None:
    asked: list[tuple[bytes, bytes]] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append((scope["raw_path"], scope["query_string"]))
        await both(scope, receive, send)

    async with talking(note, EchoConnection) as talk:
        await talk.say(b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (target, offer))
        head = await asyncio.wait_for(talk.reader.readuntil(b"\r\n\r\n"), 10)
        talk.writer.transport.abort()

    assert b" 101 " in head if b"websocket" in offer else b" 200 " in head
    assert asked == [(path, b"topics=a")]


async def test_letters_that_no_url_has_are_refused_by_a_sentence_that_says_so() -> None:
    async with talking(echo) as talk:
        await talk.say("GET /größe HTTP/1.1\r\nHost: x\r\n\r\n".encode())

        assert (await talk.rest()).endswith(b"is no URL; percent-encode all but ASCII.")


# One request after the other.


@given(st.lists(st.integers(1, len(PIPELINE) - 1), max_size=8))
def test_requests_are_answered_one_after_another_wherever_they_are_cut(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(PIPELINE)]
    pieces = [PIPELINE[start:end] for start, end in itertools.pairwise(ends)]

    async def ask() -> list[bytes]:
        async with talking(echo, EchoConnection) as talk:
            await talk.say(*pieces)
            answers = [await talk.answer() for _ in PIPELINED]
            return [*answers, await talk.rest()]

    answers = asyncio.run(ask())

    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [*PIPELINED, b"GET /last "]


async def test_no_request_is_read_before_the_one_in_front_is_answered() -> None:
    asked: list[str] = []
    go_on = asyncio.Event()

    async def slow(scope: Scope, _: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await go_on.wait()
        await respond(send, b"done")

    async with talking(slow) as talk:
        await talk.say(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)
        await talk.say(b"")
        before = list(asked)
        go_on.set()
        await talk.rest()

    assert (before, asked) == (["/1"], ["/1", "/last"])


async def test_bytes_behind_a_request_are_bounded_by_reading_no_further() -> None:
    go_on = asyncio.Event()

    async def slow(_: Scope, __: Receive, send: Send) -> None:
        await go_on.wait()
        await respond(send, b"done")

    request = b"GET /1 HTTP/1.1\r\nHost: x\r\na: " + b"x" * 10_000 + b"\r\n\r\n"
    async with talking(slow) as talk:
        talk.writer.write(request * 400 + LAST)
        for _ in range(1000):
            await asyncio.sleep(0)
        unsent = talk.unsent
        go_on.set()
        answers = await talk.rest()

    assert unsent > 3_000_000
    assert answers.count(b"HTTP/1.1 200 OK") == 401


async def test_bytes_of_a_request_after_its_answer_are_dropped() -> None:
    async def refuse(_: Scope, __: Receive, send: Send) -> None:
        await respond(send, b"no", 413)

    async with talking(refuse) as talk:
        await talk.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n")
        first = await talk.answer()
        await talk.say(b"GET / " * 50_000, b"x" * 100_000 + LAST)
        second = await talk.rest()

    assert first.startswith(b"HTTP/1.1 413 ")
    assert second.count(b"HTTP/1.1") == second.count(b"HTTP/1.1 413 ") == 1


async def test_a_client_that_was_not_told_to_continue_is_closed_as_its_next_bytes_are_unknown() -> (
    None
):
    async def refuse(_: Scope, __: Receive, send: Send) -> None:
        await respond(send, b"no", 401)

    async with talking(refuse) as talk:
        await talk.say(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = await talk.rest()

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in answer


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET /%ff\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n" + H2C + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"x" * 70_000,
    ],
)
async def test_a_malformed_request_is_refused_behind_the_answer_to_the_one_before(
    request_: bytes,
) -> None:
    async with talking(echo) as talk:
        await talk.say(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n" + request_)
        good, refused = await talk.answer(), await talk.rest()

    assert good.endswith(b"GET /good ")
    assert refused.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("before", [b"", b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize("cut", [1_000, 71_000])
async def test_a_head_is_bounded_however_it_comes(cut: int, before: bytes) -> None:
    head = b"GET /%s HTTP/1.1\r\nHost: x\r\na: %s\r\n\r\n" % (b"x" * 35_000, b"x" * 35_000)
    async with talking(echo) as talk:
        await talk.say(before)
        if before:
            await talk.answer()
        await talk.say(head[:cut], head[cut:])
        answer = await talk.rest()

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"A request's head has at most 65536 bytes.")


@pytest.mark.parametrize("offer", [b"", H2C, UPGRADE.partition(b"Host: x\r\n")[2][:-2]])
@pytest.mark.parametrize(
    ("version", "hosts"),
    [
        (b"1.1", b""),
        (b"1.1", b"Host: x\r\nHost: x\r\n"),
        (b"1.1", b"Host: x\r\nhost:\r\n"),
        (b"1.0", b"Host: x\r\nHost: y\r\n"),
        (b"1.1", b"Host: x y\r\n"),
        (b"1.1", b"Host: x/y\r\n"),
        (b"1.1", b"Host: me@x\r\n"),
        (b"1.1", b"Host: x:80:80\r\n"),
        (b"1.1", b"Host: [::1\r\n"),
        (b"1.1", b"Host: gr\xc3\xb6\xc3\x9fe\r\n"),
    ],
)
async def test_a_request_that_does_not_name_one_host_is_refused_by_a_sentence_that_says_so(
    version: bytes, hosts: bytes, offer: bytes
) -> None:
    async with talking(echo, EchoConnection) as talk:
        await talk.say(b"GET http://x/ HTTP/%s\r\n%s%s\r\n" % (version, hosts, offer) + LAST)
        answer = await talk.rest()

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"\r\n\r\n") == 1
    assert b"Host" in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /a HTTP/1.0\r\n\r\n",
        *(
            b"GET /a HTTP/%s\r\nConnection: close\r\nHost:%s\r\n\r\n" % (version, host)
            for version in (b"1.0", b"1.1")
            for host in (
                *(b"", b" ", b" app.example", b" app.example:8000", b" a_b-c:", b" xn--gre-6ka.de"),
                *(b" 10.0.0.1:80", b" [::1]:80", b" [fe80::1%25eth0]", b" gr%C3%B6%C3%9Fe"),
            )
        ),
    ],
)
async def test_a_request_names_its_host_or_is_of_http_1_0(request_: bytes) -> None:
    async with talking(echo) as talk:
        await talk.say(request_)

        assert (await talk.rest()).endswith(b"\r\n\r\nGET /a ")


async def test_a_body_that_is_damaged_is_refused_once() -> None:
    damaged = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxx\r\nnone\r\n"
    async with talking(echo) as talk:
        await talk.say(damaged)
        answer = await talk.rest()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"\r\n\r\n") == 1


# Time.


async def test_a_client_that_sends_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "_LONGEST_HEAD", 0.1)
    async with talking(echo) as talk:
        assert await talk.rest() == b""


async def test_a_client_that_sends_nothing_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "LONGEST_PAUSE", 0.1)
    async with talking(echo) as talk:
        await talk.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

        assert (await talk.rest()).endswith(b"GET / ")


@pytest.mark.parametrize("offer", [b"", H2C])
async def test_a_client_that_does_not_send_the_body_is_closed(
    monkeypatch: pytest.MonkeyPatch, offer: bytes
) -> None:
    monkeypatch.setattr(incoming, "_LONGEST_BODY", 0.1)
    async with talking(echo) as talk:
        await talk.say(b"POST / HTTP/1.1\r\nHost: x\r\n%sContent-Length: 5\r\n\r\n" % offer)

        assert await talk.rest() == b""


@pytest.mark.parametrize("size", [3_000_000, 300_000])
@pytest.mark.parametrize("keep", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("uncounted", [UNCOUNTED, 100_000_000])
async def test_a_client_that_does_not_read_an_answer_is_closed(
    monkeypatch: pytest.MonkeyPatch, size: int, keep: bytes, uncounted: int
) -> None:
    async def large(_: Scope, __: Receive, send: Send) -> None:
        await respond(send, b"x" * size)

    monkeypatch.setattr(outgoing, "UNCOUNTED", uncounted)
    monkeypatch.setattr(incoming, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(outgoing, "_LONGEST_ANSWER", 0.2)
    async with talking(large) as talk:
        talk.pause()
        await talk.say(b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n" % keep * 12)

        await talk.gone()


# Turns.


async def test_a_request_is_read_in_its_turn_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
    monkeypatch.setattr(turns.Turns, "take", lambda _, work: waiting.put_nowait(work))
    asked: list[str] = []

    async def note(scope: Scope, _: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await respond(send, b"done")

    async with talking(note) as talk:
        await talk.say(LAST[:30])
        turn = await waiting.get()
        await talk.say(LAST[30:])
        before = list(asked)
        turn()
        await talk.rest()

    assert (before, asked) == ([], ["/last"])
    assert waiting.empty()


async def test_a_client_that_leaves_before_its_turn_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
    begun: list[bytes] = []
    monkeypatch.setattr(turns.Turns, "take", lambda _, work: waiting.put_nowait(work))
    monkeypatch.setattr(EchoConnection, "begin_handshake", lambda _, path, *__: begun.append(path))
    async with talking(echo, EchoConnection) as talk:
        await talk.say(UPGRADE)
        turn = await waiting.get()
        talk.writer.transport.abort()
        await talk.gone()
        turn()

    assert begun == []


# Bytes that wait, and how many.


async def large(_: Scope, __: Receive, send: Send) -> None:
    await respond(send, b"x" * 3_000_000)


async def test_an_answer_is_cut_off_when_too_much_waits_in_all() -> None:
    cut: list[None] = []
    backlog = Backlog(1024 * 1024, lambda: cut.append(None))
    async with talking(large, backlog=backlog) as talk:
        talk.pause()
        await talk.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 12)

        await talk.gone()

    assert (len(cut), backlog.total) == (1, 0)


async def test_no_bytes_wait_for_a_client_that_reads() -> None:
    backlog = Backlog(4 * 1024 * 1024)
    async with talking(large, backlog=backlog) as talk:
        await talk.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + LAST)
        answers = await talk.rest()

    assert answers.count(b"x") == 12_000_000
    assert backlog.total == 0


async def test_an_unread_answer_holds_the_next_request_up() -> None:
    backlog, asked = Backlog(), list[str]()

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await large(scope, receive, send)

    async with talking(note, backlog=backlog) as talk:
        talk.pause()
        await talk.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 12)
        await talk.say(*[b""] * 100)
        waiting = backlog.total
        talk.writer.transport.abort()

    assert len(asked) == 1
    assert 0 < waiting < 3_100_000


@pytest.mark.parametrize("request_", [LAST, UPGRADE])
async def test_clients_beyond_the_bound_of_a_port_are_refused(request_: bytes) -> None:
    async with talking(echo, EchoConnection, most=0) as talk:
        await talk.say(request_)
        answer = await talk.rest()

    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n")
