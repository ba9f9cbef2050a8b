import asyncio
import json
import math
import socket
from contextlib import suppress
from typing import ClassVar

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from notifier.core.ports import Listener
from notifier.core.publications import Publication
from notifier.core.rate_limit import RateLimit
from notifier.gateway.deflate import SMALLEST
from notifier.gateway.websocket import WebSocketConnection
from tests.support.eventually import eventually
from tests.support.gateways import Client, House, served

UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Authorization: Bearer ann\r\n\r\n"
)


COMPRESSING = UPGRADE.replace(
    b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


class Impatient(WebSocketConnection):
    """Closes whoever lets more than a few frames wait."""

    send_buffer = 64 * 1024


class Enduring(WebSocketConnection):
    """Takes any flood."""

    frame_limit = byte_limit = RateLimit(rate=math.inf, burst=1)


class Strict(WebSocketConnection):
    """Takes four frames at once, or two hundred bytes, and hardly any more later."""

    frame_limit = RateLimit(rate=0.001, burst=4_000)
    byte_limit = RateLimit(rate=0.001, burst=200_000)


async def test_an_event_arrives() -> None:
    async with served() as it, it.welcomed() as client:
        position = it.broker.post("user:42", "e1")

        assert await client.next_frame() == {
            "type": "event",
            "topic": "user:42",
            "position": position,
            "event": {"id": "e1"},
        }


@pytest.mark.parametrize("size", [10, 125, 126, 65_535, 65_536, 200_000])
async def test_an_event_of_any_size_arrives_whole(size: int) -> None:
    async with served() as it, it.welcomed() as client:
        it.broker.post("user:42", "x" * size)

        assert (await client.next_of("event"))["event"] == {"id": "x" * size}


async def test_all_connections_of_a_user_get_the_event_and_others_do_not() -> None:
    async with (
        served() as it,
        it.welcomed() as one,
        it.welcomed() as two,
        it.welcomed("bob") as bob,
    ):
        own = it.broker.post("user:42")
        all_ = it.broker.post("everyone")

        for client in (one, two):
            assert (await client.next_of("event"))["position"] == own
            assert (await client.next_of("event"))["position"] == all_
        assert (await bob.next_of("event"))["position"] == all_


async def test_the_endpoints_task_has_ended_once_the_connection_is_handed_over() -> None:
    async with served() as it:
        before = {task.get_name() for task in asyncio.all_tasks()}
        async with it.welcomed(), it.welcomed("bob"):
            await eventually(lambda: {task.get_name() for task in asyncio.all_tasks()} <= before)


# Messages.


async def test_a_fragmented_message_is_one_frame() -> None:
    async with served() as it, it.welcomed() as client:
        await client.socket.send(iter(['{"type":', '"ping"', "}"]))

        await client.next_of("pong")


async def test_a_ping_is_answered_with_its_payload_even_between_fragments() -> None:
    async with served() as it, it.welcomed() as client:
        answered = await client.socket.ping(b"payload")

        await asyncio.wait_for(answered, 10)


async def test_messages_that_come_before_the_hand_over_are_heard() -> None:
    async with served() as it:
        it.tokens.open.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(UPGRADE)
        await it.tokens.asked.wait()
        writer.write(Frame(Opcode.TEXT, b'{"type":"ping"}').serialize(mask=True))
        await answer_to(it, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")  # by then
        it.tokens.open.set()

        received = await asyncio.wait_for(reader.readuntil(b'{"type":"pong"}'), 10)

        assert received.startswith(b"HTTP/1.1 101 ")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"binary", 1003), ("x" * (64 * 1024 + 1), 1009), ("x" * 10_000_000, 1009)],
)
async def test_a_message_that_is_not_taken_has_a_close_code(
    message: str | bytes, code: int
) -> None:
    async with served() as it, it.welcomed() as client:
        await client.socket.send(message)

        assert await client.closed_with() == code


async def test_a_message_of_64_kib_is_taken() -> None:
    async with served() as it, it.welcomed() as client:
        text = json.dumps({"type": "ping", "x": ""})

        await client.socket.send(text[:-2] + "x" * (64 * 1024 - len(text)) + text[-2:])

        await client.next_of("pong")


async def test_text_that_is_no_utf8_has_a_close_code() -> None:
    async with served() as it, it.welcomed() as client:
        await client.socket.send(b"\xff", text=True)

        assert await client.closed_with() == 1007


async def test_five_frames_that_are_none_close_with_4502() -> None:
    async with served() as it, it.welcomed() as client:
        for _ in range(5):
            await client.socket.send("nonsense")

        assert await client.closed_with() == 4502


async def test_a_client_that_broke_the_protocol_and_still_sends_is_closed_and_not_reset() -> None:
    async with served() as it, it.plain(UPGRADE) as (reader, writer):
        writer.write(b"\x83\x80mask")
        assert (await asyncio.wait_for(reader.read(), 10))[2:4] == (1002).to_bytes(2)

        for _ in range(100):
            writer.write(b"x" * 100_000)
            await asyncio.wait_for(writer.drain(), 10)


# Compression.


@pytest.mark.parametrize("size", [10, SMALLEST, 65_535, 200_000])
async def test_an_event_of_any_size_arrives_whole_from_a_compressed_frame(size: int) -> None:
    async with served() as it, it.client() as client:
        await client.next_of("hello")
        assert client.socket.protocol.extensions

        it.broker.post("user:42", "x" * size)

        assert (await client.next_of("event"))["event"] == {"id": "x" * size}


async def test_a_large_event_is_compressed_and_a_small_one_is_not() -> None:
    async with served() as it, it.plain(COMPRESSING) as (reader, _):
        it.broker.post("user:42", "x" * 100)
        it.broker.post("user:42", "x" * 10_000)

        small = await reader.readexactly(2)
        await reader.readexactly(
            small[1] if small[1] < 126 else int.from_bytes(await reader.readexactly(2))
        )
        large = await reader.readexactly(2)

        assert small[0] == 0x81
        assert large[0] == 0xC1
        assert large[1] < 126


async def test_connections_of_one_window_share_their_frames() -> None:
    opened: list[WebSocketConnection] = []

    class Noted(WebSocketConnection):
        def hand_over(self, listener: Listener) -> None:
            opened.append(self)
            super().hand_over(listener)

    async with (
        served(connection=Noted) as it,
        it.client(),
        it.client("bob"),
        it.client(compression=None),
    ):
        one, two, without = opened

        assert one.encode is two.encode
        assert one.encode is not without.encode


async def test_a_compressed_message_of_a_client_is_read() -> None:
    async with served() as it, it.client() as client:
        await client.next_of("hello")

        await client.say(type="ping", x="x" * 50_000)

        await client.next_of("pong")


async def test_a_message_that_grows_over_the_bound_has_a_close_code() -> None:
    async with served() as it, it.client() as client:
        await client.socket.send("x" * 10_000_000)

        assert await client.closed_with() == 1009


async def test_compression_that_was_not_agreed_on_is_a_violation() -> None:
    async with served() as it, it.plain(UPGRADE) as (reader, writer):
        writer.write(b"\xc1\x80mask")

        assert (await reader.read())[2:4] == (1002).to_bytes(2)


# The end.


async def test_a_close_is_answered_with_its_code_and_ends_the_session() -> None:
    async with served() as it:
        async with it.welcomed() as client:
            await client.socket.close(4321)
            answered = client.socket.protocol.close_rcvd

        assert answered is not None
        assert answered.code == 4321
        await it.gone()
        assert it.count("notifier_connections_closed_total", reason="client") == 1


async def test_a_connection_that_is_cut_ends_the_session() -> None:
    async with served() as it, it.welcomed() as client:
        client.socket.transport.abort()

        await it.gone()

        assert it.count("notifier_connections_closed_total", reason="client") == 1


async def test_nothing_that_follows_a_close_frame_is_heard() -> None:
    async with served() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(UPGRADE)
        await asyncio.wait_for(reader.readuntil(b'"hello"'), 10)
        it.tokens.asked.clear()
        close = Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)
        auth = Frame(Opcode.TEXT, b'{"type":"auth","token":"ann"}').serialize(mask=True)

        writer.write(close + auth)
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await it.gone()

        assert not it.tokens.asked.is_set()


async def test_a_slow_client_is_closed_with_4002_and_others_go_on() -> None:
    async with (
        served(connection=Impatient) as it,
        it.welcomed(max_queue=1, compression=None) as slow,
        it.welcomed() as quick,
    ):
        posted = []
        for _ in range(400):
            posted.append(it.broker.post("user:42", "x" * 50_000))
            assert (await quick.next_of("event"))["position"] == posted[-1]

        got, code = await read_to_the_end(slow)

        assert code == 4002
        assert got == posted[: len(got)]
        assert len(got) < len(posted)
        await it.gone(left=1)
        assert it.count("notifier_slow_consumers_total") == 1


async def read_to_the_end(client: Client) -> tuple[list[str], int]:
    """Return the positions of all events, and the close code."""
    got: list[str] = []
    while True:
        try:
            frame = await client.next_frame()
        except ConnectionClosed:
            return got, await client.closed_with()
        if frame["type"] == "event":
            got.append(frame["position"])


async def test_a_slow_client_that_reconnects_after_4002_misses_nothing() -> None:
    async with served(connection=Impatient) as it:
        async with it.welcomed(max_queue=1, compression=None) as slow, it.welcomed() as quick:
            posted = []
            for _ in range(90):
                posted.append(it.broker.post("user:42", "x" * 200_000))
                await quick.next_of("event")
            got, code = await read_to_the_end(slow)
        since = f"?since=user:42@{got[-1]}"
        async with it.client(query=since) as again:
            await again.next_of("hello")
            rest = [(await again.next_of("event"))["position"] for _ in posted[len(got) :]]

    assert code == 4002
    assert got + rest == posted


# Requests that are no upgrade.


async def answer_to(it: House, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        (b"Version: 13", b"Version: 12", "Sec-WebSocket-Version"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short", "Sec-WebSocket-Key"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: x;\r\n\r\n", "Sec-WebSocket-Extensions"),
        (b"Connection: Upgrade", b"Connection: Upgrade, a b", "Connection"),
    ],
)
async def test_a_broken_upgrade_is_answered_with_its_fault(
    old: bytes, new: bytes, field: str
) -> None:
    assert old in UPGRADE
    async with served() as it:
        with capture_logs() as logs:
            answer = await answer_to(it, UPGRADE.replace(old, new))

        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split(b" ", 2)[1] == b"400"
        assert b"sec-websocket-version: 13" in head.lower()  # RFC 6455, section 4.4
        problem = json.loads(body)
        assert (problem["code"], problem["field"]) == ("invalid", field)
        assert problem["detail"].startswith(f"{field}: must ")
        [line] = [line for line in logs if line["event"] == "refused"]
        assert (line["client"], line["reason"]) == ("127.0.0.1", problem["detail"])


@pytest.mark.parametrize("path", [b"/v1/sse", b"/v1/ws/x", b"/v1/other", b"/"])
async def test_an_upgrade_of_another_path_is_told_the_right_one(path: bytes) -> None:
    async with served() as it:
        answer = await answer_to(it, UPGRADE.replace(b"/v1/ws", path))

        assert answer.split(b" ", 2)[1] == b"404"
        assert b"there is a WebSocket at /v1/ws" in answer


async def test_a_client_that_goes_during_the_handshake_is_forgotten() -> None:
    async with served() as it:
        for _ in range(3):
            plain = socket.create_connection(("127.0.0.1", it.port))
            plain.sendall(UPGRADE)
            plain.close()
        async with it.welcomed() as client:
            it.broker.post("user:42")
            await client.next_of("event")
        await it.gone()

        assert it.count("notifier_connections", transport="websocket") == 0


async def test_connections_open_when_the_server_shuts_down_are_closed_with_1012() -> None:
    async with served() as it:
        client = it.client()
        opened = await client.__aenter__()
        await opened.next_of("hello")

    assert await opened.closed_with() == 1012
    await client.__aexit__(None, None, None)


async def test_a_flood_of_pings_is_answered_to_the_last_and_holds_nobody_up() -> None:
    async with (
        served(connection=Enduring) as it,
        it.welcomed() as flooding,
        it.welcomed() as other,
    ):
        pongs = [await flooding.socket.ping(f"{n}".encode()) for n in range(1_000)]

        await other.socket.send('{"type":"ping"}')
        await other.next_of("pong")

        await asyncio.wait_for(asyncio.gather(*pongs), 10)


# Floods.


@pytest.mark.parametrize(
    ("flood", "reason"),
    [
        ([Frame(Opcode.TEXT, b'{"type":"ping"}')] * 5, "too_many_frames"),
        ([Frame(Opcode.PING, b"")] * 5, "too_many_frames"),
        ([Frame(Opcode.PONG, b"")] * 5, "too_many_frames"),
        ([Frame(Opcode.TEXT, b" " * 250)], "too_many_bytes"),
        (
            [Frame(Opcode.TEXT, b" ", fin=False), *[Frame(Opcode.CONT, b"", fin=False)] * 50],
            "too_many_bytes",
        ),
        (
            [Frame(Opcode.TEXT, b"", fin=False), *[Frame(Opcode.CONT, b"", fin=False)] * 4],
            "too_many_frames",
        ),
        (
            [
                Frame(Opcode.TEXT, b"", fin=False),
                *[Frame(Opcode.PING, b""), Frame(Opcode.CONT, b"", fin=False)] * 2,
            ],
            "too_many_frames",
        ),
    ],
)
async def test_a_client_over_its_rate_limit_gets_an_error_and_is_closed_with_4502(
    flood: list[Frame], reason: str
) -> None:
    async with served(connection=Strict) as it, it.client() as client:
        await client.next_of("hello")

        write(client, b"".join(frame.serialize(mask=True) for frame in flood))

        while (frame := await client.next_frame())["type"] == "pong":
            pass
        assert (frame["type"], frame["code"]) == ("error", "too_many")
        assert (await client.next_of("bye"))["code"] == 4502
        assert await client.closed_with() == 4502
        assert it.count("notifier_frames_refused_total", reason=reason) == 1


class CountingWrites(WebSocketConnection):
    """Counts its writes of publications, each of them a system call."""

    writes: ClassVar[int] = 0

    def write(self, data: bytes, publication: Publication | None = None) -> None:
        """See Connection."""
        type(self).writes += b'"type":"event"' in data
        super().write(data, publication)


async def test_a_client_that_reconnects_gets_what_it_missed_by_one_system_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CountingWrites, "writes", 0)
    async with served(connection=CountingWrites) as it:
        posted = it.broker.post_many("user:42", 10)
        async with it.client("ann", query=f"?since=user:42@{posted[0]}") as client:
            await client.next_of("hello")
            events = [await client.next_of("event") for _ in range(9)]

    assert [event["position"] for event in events] == posted[1:]
    assert CountingWrites.writes == 1


class Counting(Enduring):
    """Counts how often it left the rest to a later turn of the event loop."""

    turns: ClassVar[int] = 0

    def _go_on_later(self) -> None:
        type(self).turns += 1
        super()._go_on_later()


async def test_fragments_take_turns_as_messages_do() -> None:
    async with served(connection=Counting) as it, it.welcomed() as client:
        first, *others = [Frame(Opcode.CONT, b"", fin=False)] * 450
        frames = [Frame(Opcode.TEXT, b'{"type":', fin=False), first, *others]
        frames.append(Frame(Opcode.CONT, b'"ping"}'))

        write(client, b"".join(frame.serialize(mask=True) for frame in frames))

        await client.next_of("pong")
    assert Counting.turns >= 4


# Half a message.


class Hurried(Enduring):
    """Holds half a message hardly at all."""

    longest_message = 0.05


@pytest.mark.parametrize(
    "half",
    [
        Frame(Opcode.TEXT, b'{"type":"ping"}').serialize(mask=True)[:-1],
        Frame(Opcode.TEXT, b'{"type":', fin=False).serialize(mask=True),
        b"\x81",
    ],
    ids=["all but a byte", "all but a fragment", "half a head"],
)
async def test_a_message_that_never_becomes_whole_is_closed_with_1008(half: bytes) -> None:
    async with served(connection=Hurried) as it, it.welcomed() as client:
        write(client, half)

        assert await client.closed_with() == 1008


async def test_a_message_that_never_becomes_whole_is_not_kept_up_by_pings() -> None:
    async with served(connection=Hurried) as it, it.welcomed() as client:
        write(client, Frame(Opcode.TEXT, b"{", fin=False).serialize(mask=True))
        with suppress(ConnectionClosed):
            while True:
                await asyncio.wait_for(await client.socket.ping(), 10)

        assert await client.closed_with() == 1008


async def test_when_the_pieces_make_a_whole_message_no_more_is_waited_for() -> None:
    ping = Frame(Opcode.TEXT, b'{"type":"ping"}').serialize(mask=True)
    async with served() as it, it.welcomed() as client:
        write(client, ping[:5])
        write(client, ping[5:])
        await client.next_of("pong")

        [session] = it.gateway._clients  # noqa: SLF001  # nothing else tells that none is waited for
        assert session.connection._late is None  # type: ignore[attr-defined]  # noqa: SLF001


async def test_bytes_behind_a_final_block_stall_no_other_client() -> None:
    block = b"\x03\x00"  # a final one, without content
    begin = bytearray(Frame(Opcode.TEXT, block, fin=False).serialize(mask=True))
    begin[0] |= 0x40  # compressed
    others = [Frame(Opcode.CONT, block * 20, fin=False).serialize(mask=True)] * 3
    async with served() as it, it.welcomed() as client:
        write(client, b"".join((begin, *others)))

        assert await client.closed_with() == 1009


async def test_frames_within_the_rate_limit_are_accepted() -> None:
    async with served(connection=Strict) as it, it.client() as client:
        await client.next_of("hello")

        for _ in range(4):
            await client.say(type="ping")
            await client.next_of("pong")


def write(client: Client, data: bytes) -> None:
    """Send bytes as they are."""
    client.socket.transport.write(data)
