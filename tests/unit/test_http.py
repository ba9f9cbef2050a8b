import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier import http
from notifier.http import plain_upgrade
from tests.support.echoes import EchoConnection, echoing

UPGRADE = (
    b"GET /v1/ws?topics=a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
HELLO = b"\x81\x85\0\0\0\0hello"  # masked by noughts


class Parsed:
    """What httptools makes of a request."""

    def __init__(self, request: bytes) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        parser: Any = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(request)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = request[upgrade.args[0] :]
        self.method, self.upgrades = parser.get_method(), parser.should_upgrade()

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        # White space behind a value is no part of it, RFC 9112, section 5.1; httptools leaves it.
        self.headers.append((name.lower(), value.rstrip(b" \t")))


def test_a_request_as_browsers_send_it_is_plain() -> None:
    plain = plain_upgrade(UPGRADE)

    assert plain is not None
    target, headers, length = plain
    assert target == b"/v1/ws?topics=a"
    assert headers == Parsed(UPGRADE).headers
    assert length == len(UPGRADE)


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        (b"GET", b"POST"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"/v1/ws", b"/v1/ ws"),
        (b"Host: x", b"Host : x"),
        (b"Host: x", b"Host: x\r\n folded"),
        (b"Host: x", b"Host: \0"),
        (b"Host: x", b"Host: x\r\nContent-Length: 0"),
        (b"Host: x", b"Host: x\r\nTransfer-Encoding: chunked"),
        (b"\r\n", b"\n"),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"keep-alive, Upgrade", b"keep-alive"),
        (b"\r\n\r\n", b"\r\n"),
        (b"Host: x", b"Host: " + b"x" * 65_536),
        (b"Host: x", b"\r\n".join([b"a:"] * 101)),
    ],
)
def test_whatever_is_not_plain_is_left_to_the_library(what: bytes, instead: bytes) -> None:
    assert plain_upgrade(UPGRADE.replace(what, instead)) is None


@given(
    st.integers(0, len(UPGRADE)),
    st.integers(0, 8),
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from([b"\r\n", b" ", b"\t", b":", b"\r", b"\n", b"\0", b"\x80", b"Host: y\r\n"]),
    ),
)
@example(UPGRADE.index(b"Host"), 0, b"Upgrade: websocket\r\n")
def test_what_is_plain_is_read_as_the_library_reads_it(at: int, cut: int, put: bytes) -> None:
    request = UPGRADE[:at] + put + UPGRADE[at + cut :]
    plain = plain_upgrade(request)
    if plain is None:
        return

    parsed = Parsed(request)

    target, headers, length = plain
    assert (parsed.method, parsed.target, parsed.headers) == (b"GET", target, headers)
    assert parsed.upgrades
    assert parsed.rest == request[length:]


async def conversation(*pieces: bytes) -> bytes:
    """Send the pieces one after another to a server that echoes, and return its first answers."""
    async with echoing() as address:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)  # so that it is a piece of its own
        try:
            return await asyncio.wait_for(reader.readuntil(b"hello"), 10)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""  # closed
        finally:
            writer.close()


@pytest.mark.parametrize(
    "pieces",
    [
        (UPGRADE, HELLO),
        (UPGRADE + HELLO,),
        (UPGRADE[:40], UPGRADE[40:], HELLO),
        (UPGRADE.replace(b"Host: x", b"Host: x\r\nContent-Length: 0"), HELLO),
    ],
    ids=["plain", "with a frame behind it", "in two pieces", "with an empty body"],
)
async def test_an_upgrade_is_answered_however_it_comes(pieces: tuple[bytes, ...]) -> None:
    answer = await conversation(*pieces)

    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\r\n\r\n\x81\x05hello")


async def test_what_a_client_says_before_its_turn_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def later(_: http.Turns, work: Callable[[], None], **__: bool) -> bool:
        asyncio.get_running_loop().call_later(0.2, work)
        return False

    monkeypatch.setattr(http.Turns, "take", later)

    assert (await conversation(UPGRADE, HELLO)).endswith(b"\x81\x05hello")


async def test_who_says_too_much_before_its_turn_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http.Turns, "take", lambda *_, **__: False)

    assert await conversation(UPGRADE, b"\0" * 40_000, b"\0" * 40_000) == b""


async def test_who_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_LONGEST_HEAD", 0.1)

    assert await conversation() == b""


async def test_who_leaves_before_its_turn_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
    upgraded: list[bytes] = []
    monkeypatch.setattr(http.Turns, "take", lambda _, work, **__: waiting.put_nowait(work))
    monkeypatch.setattr(EchoConnection, "upgrade", lambda _, target, __: upgraded.append(target))
    async with echoing() as address:
        host, port = address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(UPGRADE)
        upgrade = await waiting.get()
        writer.transport.abort()
        await asyncio.sleep(0.1)
        upgrade()

    assert upgraded == []


async def test_a_request_is_read_in_its_turn_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
    read: list[bytes] = []
    monkeypatch.setattr(http.Turns, "take", lambda _, work, **__: waiting.put_nowait(work))
    monkeypatch.setattr(http, "plain_upgrade", read.append)
    async with echoing() as address:
        host, port = address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(UPGRADE)
        turn = await waiting.get()
        before = list(read)

        turn()
        writer.close()

    assert (before, read) == ([], [UPGRADE])
