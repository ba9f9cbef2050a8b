import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from notifier.core.conversation import Terms
from notifier.core.errors import TokenExpired
from notifier.core.signals import Kind, Signal
from notifier.gateway import outgoing
from notifier.gateway.outgoing import Outgoing
from notifier.http.backlog import Backlog
from tests.support.eventually import eventually
from tests.support.gateways import House, served
from tests.support.streams import streamed


@pytest.fixture
def _impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outgoing, "send_buffer", 64 * 1024)
        patch.setattr(outgoing, "_CLOSE_TIMEOUT", 0.2)
        yield


async def test_a_stream_begins_with_hello_and_a_time_to_reconnect() -> None:
    async with served() as it, it.http() as http, streamed(http, "?topics=news") as stream:
        first = await stream.next()
        hello = await stream.next_of("hello")

    assert first is not None
    assert 500 <= (first.retry or 0) <= 5000
    assert hello.data["user"] == "42"
    positions = {topic: start["position"] for topic, start in hello.data["topics"].items()}
    assert hello.id == ",".join(f"{topic}@{position}" for topic, position in positions.items())
    assert positions.keys() == {"user:42", "everyone", "news"}


async def test_proxies_are_told_to_let_events_through_at_once() -> None:
    async with served() as it, it.http() as http, streamed(http) as stream:
        headers = stream.response.headers

    assert headers["content-type"] == "text/event-stream"
    assert {"no-cache", "no-transform"} <= set(re.split(r",\s*", headers["cache-control"]))
    assert headers["x-accel-buffering"] == "no"
    assert "date" in headers


async def test_each_event_is_a_chunk_and_the_stream_ends_with_the_last() -> None:
    async with served() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET /v1/sse HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        chunks = [await chunk(reader) for _ in range(2)]
        it.broker.post("user:42", "e1")
        chunks.append(await chunk(reader))
        await it.gateway.drain()
        chunks += [await chunk(reader), await chunk(reader)]
        rest = await reader.read()
        writer.close()

    assert b"\r\ntransfer-encoding: chunked\r\n" in head
    assert chunks[0].startswith(b"retry: ")
    assert [each.partition(b"\n")[0] for each in chunks[1:3]] == [b"event: hello", b"event: event"]
    assert all(each.endswith(b"\n\n") for each in chunks[:-1])
    assert (chunks[-1], rest) == (b"", b"")


async def chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await asyncio.wait_for(reader.readline(), 10), 16)
    data = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return data


async def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    async with served() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET /v1/sse HTTP/1.0\r\nAuthorization: Bearer ann\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readline()
        writer.close()

    assert b"transfer-encoding" not in head
    assert first.startswith(b"retry: ")


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "text/event-stream, */*;q=0.1",
        "text/html;q=0, Text/Event-Stream; q=0.001",
    ],
)
async def test_a_gateway_that_cannot_serve_says_so_in_the_streams_own_language(
    accept: str,
) -> None:
    async with served() as it, it.http() as http:
        it.gateway.draining = True
        answer = await http.get("/v1/sse", headers={"accept": accept})

    assert answer.status_code == 200
    assert "event: bye" in answer.text
    assert "retry: " in answer.text


@pytest.mark.parametrize(
    "accept", ["*/*", "text/event-stream;q=0", "text/event-stream; Q=0.0", "text/event-streams"]
)
async def test_a_client_that_takes_no_stream_is_told_by_a_problem_that_a_gateway_cannot_serve(
    accept: str,
) -> None:
    async with served() as it, it.http() as http:
        it.gateway.draining = True
        answer = await http.get("/v1/sse", headers={"accept": accept})

    assert answer.status_code == 503
    assert answer.json()["code"] == "unavailable"


async def test_an_event_is_the_frame_and_its_id_the_cursor() -> None:
    async with served() as it, it.http() as http, streamed(http) as stream:
        await stream.next_of("hello")

        position = it.broker.post("user:42", "e1")
        told = await stream.next_of("event")

        assert told.data == {
            "type": "event",
            "topic": "user:42",
            "position": position,
            "event": {"id": "e1"},
        }
        assert told.id == f"user:42@{position},everyone@{it.broker.head('everyone')}"


async def test_a_dashboard_starts_with_the_newest_of_each_collapse_key() -> None:
    async with served() as it, it.http() as http:
        it.broker.post("news", "old", collapse_key="eur")
        it.broker.post("news", "new", collapse_key="eur")
        async with streamed(http, "?since=news@start") as stream:
            told = await stream.next_of("event")

    assert told.data["event"]["id"] == "new"


async def test_a_signal_is_an_event_of_its_own_type_and_leaves_the_cursor() -> None:
    async with served() as it, it.http() as http, streamed(http) as stream:
        await stream.next_of("hello")

        signal = Signal("user:42", Kind.FRAME, "typing", b'{"type":"typing"}')
        await it.broker.signal([signal])
        told = await stream.next_of("typing")

    assert (told.data, told.id) == ({"type": "typing"}, None)


async def test_a_browser_reconnects_by_itself_and_resumes() -> None:
    async with served() as it, it.http() as http:
        async with streamed(http) as stream:
            await stream.next_of("hello")
            it.broker.post("user:42", "seen")
            await stream.next_of("event")
        await it.gone(transport="sse")
        it.broker.post("user:42", "missed")

        at_first = "?since=user:42@gone.1"  # of the address, which a browser never changes
        async with streamed(http, at_first, last_event_id=stream.cursor) as again:
            hello = await again.next_of("hello")
            ids = await again.next_ids(1)

    assert hello.data["topics"]["user:42"]["resumed"] is True
    assert ids == ["missed"]


async def test_a_gap_is_told_and_moves_the_cursor() -> None:
    async with served() as it, it.http() as http:
        head = it.broker.post("user:42")
        async with streamed(http, "?since=user:42@gone.7") as stream:
            hello = await stream.next_of("hello")
            gap = await stream.next_of("gap")

    assert hello.data["topics"]["user:42"]["resumed"] is False
    assert "user:42@gone.7" in (hello.id or "")  # the stream may break before the gap is told
    assert gap.data == {"type": "gap", "topic": "user:42", "position": head, "reason": "restarted"}
    assert f"user:42@{head}" in (gap.id or "")


async def test_a_topic_that_is_not_allowed_is_told_under_a_name_browsers_leave_alone() -> None:
    async with served() as it, it.http() as http, streamed(http, "?topics=staff") as stream:
        failure = await stream.next_of("failure")

    assert failure.data["code"] == "forbidden"
    assert failure.id is None


async def test_a_heartbeat_is_a_comment_that_needs_no_answer() -> None:
    often = Terms(heartbeat=1)
    async with served(terms=often) as it, it.http() as http, streamed(http) as stream:
        await stream.next_of("hello")
        comments = 0
        while comments < 2:
            told = await stream.next()
            assert told is not None
            comments += told.comment


async def test_an_open_stream_is_no_task() -> None:
    async with served() as it, it.http() as http:
        before = len(asyncio.all_tasks())
        async with streamed(http) as stream:
            await stream.next_of("hello")

            await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_client_that_leaves_is_no_longer_served() -> None:
    async with served() as it, it.http() as http:
        async with streamed(http) as stream:
            await stream.next_of("hello")
            during = it.count("notifier_connections", transport="sse")
        await it.gone(transport="sse")

    assert during == 1
    assert it.count("notifier_connections_closed_total", reason="client") == 1


async def test_megabytes_of_history_are_no_reason_to_be_closed() -> None:
    async with served() as it, it.http() as http:
        begin = it.broker.head("user:42")
        for number in range(100):
            it.broker.post("user:42", f"{number}-" + "x" * 60_000)

        async with streamed(http, f"?since=user:42@{begin}") as stream:
            ids = await stream.next_ids(100)

    assert [each.partition("-")[0] for each in ids] == [str(number) for number in range(100)]


@pytest.mark.usefixtures("_impatient")
async def test_a_slow_client_is_closed_and_others_are_not() -> None:
    async with served() as it, it.http() as http, streamed(http) as reading:
        await reading.next_of("hello")
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=1024)
        writer.write(b"GET /v1/sse HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n\r\n")
        await reader.readuntil(b"event: hello")

        async with asyncio.timeout(20):
            while it.count("notifier_slow_consumers_total") == 0:
                it.broker.post("user:42", "x" * 50_000)
                await reading.next_of("event")
        last = it.broker.post("user:42", "last")

        assert (await reading.next_of("event")).data["position"] == last
        writer.close()


UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Authorization: Bearer ann\r\n\r\n"
)
STREAM = b"GET /v1/sse HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n\r\n"


@pytest.mark.parametrize("request_", [UPGRADE, STREAM], ids=["websocket", "sse"])
async def test_bytes_that_wait_for_all_clients_together_are_bounded(
    request_: bytes,
) -> None:
    backlog = Backlog(2 * 1024 * 1024)
    async with (
        served(backlog=backlog) as it,
        it.http() as http,
        streamed(http) as reading,
        AsyncExitStack() as on,
    ):
        await reading.next_of("hello")
        deaf = [await asyncio.open_connection("127.0.0.1", it.port, limit=1024) for _ in range(6)]
        for reader, writer in deaf:
            on.callback(writer.transport.abort)
            writer.write(request_)
            await reader.readuntil(b'"hello"')

        most = 0
        async with asyncio.timeout(30):
            while it.count("notifier_slow_consumers_total") < 3:
                it.broker.post("user:42", "x" * 60_000)
                await reading.next_of("event")
                most = max(most, backlog.total)

    assert 1024 * 1024 < most <= 4 * 1024 * 1024
    assert backlog.total == 0


async def test_a_gateway_that_shuts_down_says_when_to_reconnect_and_ends_the_stream() -> None:
    async with served() as it, it.http() as http, streamed(http) as stream:
        await stream.next_of("hello")

        await it.gateway.drain()
        bye = await stream.next_of("bye")

        assert await stream.next() is None
        assert bye.data["code"] == 4000
        assert bye.retry == bye.data["reconnect_after_ms"]


async def test_a_browser_that_is_refused_for_a_while_gets_a_stream_and_reconnects() -> None:
    async with served() as it, it.http() as http:
        it.broker.trouble = "away"
        async with streamed(http, accept="text/event-stream") as stream:
            status = stream.response.status_code
            bye = await stream.next_of("bye")
        others = await http.get("/v1/sse")

    assert (status, bye.data["code"]) == (200, 4004)
    assert 1000 <= (bye.retry or 0) <= 5000
    assert (others.status_code, others.headers["retry-after"]) == (503, "5")


async def test_a_browser_with_an_expired_token_gets_a_stream_and_reconnects_with_another() -> None:
    async with served() as it, it.http(token="late") as http:
        it.tokens.table["late"] = TokenExpired("the token expired")
        async with streamed(http, accept="text/event-stream") as stream:
            status = stream.response.status_code
            bye = await stream.next_of("bye")
        others = await http.get("/v1/sse")

    assert (status, bye.data["code"], bye.data["reason"]) == (200, 4001, "token_expired")
    assert 1000 <= (bye.retry or 0) <= 5000
    assert (others.status_code, others.json()["code"]) == (401, "token_expired")


async def test_without_a_token_there_is_no_stream() -> None:
    async with served() as it, it.http(token=None) as http:
        answer = await http.get("/v1/sse", headers={"accept": "text/event-stream"})

    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorized"


async def test_a_malformed_cursor_in_a_header_is_refused_by_the_headers_name() -> None:
    async with served() as it, it.http() as http:
        answer = await http.get("/v1/sse", headers={"last-event-id": "garbage"})

    assert (answer.status_code, answer.json()["field"]) == (400, "Last-Event-ID")


async def refused_bytes(it: House, size: int) -> bytes:
    """Send that much behind the request, and return what comes back after it was all sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    writer.write(b"GET /v1/sse HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n\r\n")
    await reader.readuntil(b"everyone@")
    writer.write(b"x" * size)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""


async def test_a_client_that_floods_its_own_stream_loses_it() -> None:
    async with served() as it:
        await refused_bytes(it, 200_000)

        await it.gone(transport="sse")


# Pages of other sites.


async def test_an_allowed_page_may_read_the_stream_with_its_cookie() -> None:
    async with served(origins=["https://app.example"]) as it, it.http(token=None) as http:
        headers = {"origin": "https://app.example", "cookie": "notifier_token=ann"}
        async with streamed(http, **headers) as stream:
            answer = stream.response

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["vary"] == "origin"


async def test_a_page_of_another_site_may_not() -> None:
    async with served(origins=["https://app.example"]) as it, it.http() as http:
        answer = await http.get("/v1/sse", headers={"origin": "https://evil.example"})

    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_may_ask_whether_it_may_send_a_token() -> None:
    async with served(origins=["https://app.example"]) as it, it.http(token=None) as http:
        answer = await http.options("/v1/poll", headers={"origin": "https://app.example"})
        refused = await http.options("/v1/poll", headers={"origin": "https://evil.example"})

    assert (answer.status_code, refused.status_code) == (204, 403)
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
