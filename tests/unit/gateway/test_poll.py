import asyncio
import re

import httpx
import pytest

from notifier.core.signals import Kind, Signal
from notifier.gateway import poll
from tests.support.eventually import eventually
from tests.support.gateways import House, served
from tests.support.streams import Frame, ids, polled, streamed


async def start(http: httpx.AsyncClient) -> str:
    """Poll for the first time, and return the cursor."""
    answer = await polled(http)
    assert answer["frames"] == []
    return str(answer["cursor"])


async def held(it: House) -> None:
    """Return when a request is being held."""
    async with asyncio.timeout(10):
        while not it.count("notifier_connections", transport="poll"):  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.001)


async def test_the_first_answer_comes_at_once_and_says_where_it_starts() -> None:
    async with served() as it, it.http() as http:
        answer = await polled(http)

        everyone, own = it.broker.head("everyone"), it.broker.head("user:42")
    assert answer == {"frames": [], "cursor": f"user:42@{own},everyone@{everyone}"}


async def test_no_event_between_two_polls_is_lost() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        it.broker.post("user:42", "a")
        it.broker.post("everyone", "b")

        answer = await polled(http, cursor)
        again = await polled(http, answer["cursor"], wait=0)

    assert sorted(ids(answer["frames"])) == ["a", "b"]
    assert again == {"frames": [], "cursor": answer["cursor"]}


@pytest.mark.parametrize("turns", range(8))
async def test_an_event_that_comes_while_an_answer_is_made_is_in_it_or_in_the_next(
    turns: int,
) -> None:
    async with served() as it, it.http() as http:
        asked = asyncio.ensure_future(polled(http, await start(http)))
        await held(it)
        it.broker.post("user:42", "a")
        for _ in range(turns):
            await asyncio.sleep(0)
        it.broker.post("user:42", "b")
        first = await asked
        second = await polled(http, first["cursor"], wait=0)

    assert ids(first["frames"] + second["frames"]) == ["a", "b"]


async def test_a_request_is_held_until_there_is_something() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        asked = asyncio.ensure_future(polled(http, cursor))
        await held(it)
        it.broker.post("user:42", "live")
        answer = await asked

    assert ids(answer["frames"]) == ["live"]


async def test_a_signal_ends_the_wait_and_leaves_the_cursor() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        asked = asyncio.ensure_future(polled(http, cursor))
        await held(it)
        while not asked.done():  # it may not follow yet, and an ephemeral event waits for nobody
            await it.broker.signal([Signal("everyone", Kind.FRAME, "typing", b'{"type":"typing"}')])
            await asyncio.wait([asked], timeout=0.05)
        answer = await asked

    assert {frame["type"] for frame in answer["frames"]} == {"typing"}
    assert answer["cursor"] == cursor


async def test_frames_of_one_moment_come_in_one_answer() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        asked = asyncio.ensure_future(polled(http, cursor))
        await held(it)
        it.broker.post_many("user:42", 3)
        answer = await asked

    assert len(answer["frames"]) == 3


async def test_a_gap_of_a_topic_that_cannot_be_read_waits_for_other_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poll, "_PAUSE", 60)
    async with served() as it, it.http() as http:
        cursor = await start(http)
        it.broker.failing_topics = {"user:42"}
        asked = asyncio.ensure_future(polled(http, cursor))
        await eventually(lambda: it.count("notifier_gaps_total", reason="restarted") == 1)
        it.broker.post("everyone", "live")
        answer = await asked

    assert [frame["type"] for frame in answer["frames"]] == ["gap", "event"]
    assert f"everyone@{it.broker.head('everyone')}" in answer["cursor"]


@pytest.mark.parametrize("wait", [60, 0])
async def test_a_gap_of_a_topic_that_cannot_be_read_is_told_after_a_pause_and_when_it_can_again(
    monkeypatch: pytest.MonkeyPatch, wait: int
) -> None:
    monkeypatch.setattr(poll, "_PAUSE", 0.01 if wait else 60)
    async with asyncio.timeout(30), served() as it, it.http() as http:
        cursor = await start(http)
        it.broker.failing_topics = {"user:42"}
        first = await polled(http, cursor, wait=wait)
        second = await polled(http, first["cursor"], wait=wait)
        it.broker.failing_topics = set()
        monkeypatch.setattr(poll, "_PAUSE", 60)
        third = await polled(http, second["cursor"], wait=20)

    for answer in (first, second, third):
        assert [frame["type"] for frame in answer["frames"]] == ["gap"]
    assert third["cursor"] == cursor


async def test_a_held_request_is_no_task() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        before = len(asyncio.all_tasks())
        writer.write(request(cursor))
        await held(it)

        await eventually(lambda: len(asyncio.all_tasks()) <= before)
        it.broker.post("user:42")
        assert b" 200 " in await reader.readline()
        writer.close()


def request(cursor: str) -> bytes:
    query = f"since={cursor}&wait=20".replace("@", "%40")
    head = f"GET /v1/poll?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n\r\n"
    return head.encode()


async def body(reader: asyncio.StreamReader) -> bytes:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return await reader.readexactly(int(length.split(b":")[1]))


async def test_a_connection_goes_on_after_the_answer_and_a_request_may_come_early() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(request(cursor))
        await held(it)
        writer.write(request(cursor))  # while the first is being held

        it.broker.post("user:42", "e1")
        answers = [await body(reader) for _ in range(2)]
        writer.write(request(cursor))
        answers.append(await body(reader))
        writer.close()

    assert [answer.count(b'"e1"') for answer in answers] == [1, 1, 1]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_connection_that_its_client_wants_closed_is_closed(version: str) -> None:
    async with served() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        head = f"GET /v1/poll HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer ann\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()

    assert answer.endswith(b'"}')
    assert b"connection: close\r\n" in answer


async def test_a_client_that_leaves_a_held_poll_is_forgotten() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(request(cursor))
        await held(it)
        writer.close()

        await it.gone(transport="poll")


async def test_a_gateway_that_shuts_down_answers_held_polls() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        asked = asyncio.ensure_future(polled(http, cursor))
        await held(it)
        await it.gateway.drain()
        answer = await asked

    [bye] = answer["frames"]
    assert (bye["type"], bye["code"]) == ("bye", 4000)
    assert answer["cursor"] == cursor


async def test_a_gap_is_an_answer() -> None:
    async with served() as it, it.http() as http:
        cursor = (await start(http)).replace("user:42@", "user:42@gone")
        answer = await polled(http, cursor)

        [gap] = answer["frames"]
        assert (gap["type"], gap["topic"]) == ("gap", "user:42")
        assert f"user:42@{it.broker.head('user:42')}" in answer["cursor"]


async def test_a_topic_that_is_not_allowed_does_not_make_a_client_ask_in_a_circle() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        query = {"topics": "staff", "since": cursor}
        asked = asyncio.ensure_future(http.get("/v1/poll", params=query))
        await held(it)
        it.broker.post("user:42", "e1")
        frames: list[Frame] = (await asked).json()["frames"]

    assert [frame["type"] for frame in frames] == ["error", "event"]


async def test_more_than_fits_comes_with_the_next_answers() -> None:
    async with served() as it, it.http() as http:
        cursor, got = await start(http), list[str]()
        for number in range(30):
            it.broker.post("user:42", f"{number}-" + "x" * 50_000)

        answers = 0
        while len(got) < 30:
            answer = await polled(http, cursor, wait=0)
            cursor = answer["cursor"]
            got += ids(answer["frames"])
            answers += 1

    assert [each.partition("-")[0] for each in got] == [str(number) for number in range(30)]
    assert answers > 3


async def test_an_unavailable_broker_is_told_at_once() -> None:
    async with served() as it, it.http() as http:
        it.broker.trouble = "away"
        answer = await http.get("/v1/poll")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize("wait", ["-1", "61", "x", "", "1.5", "9" * 5000, "²"])
async def test_a_wait_that_is_none_is_refused_by_name(wait: str) -> None:
    async with served() as it, it.http() as http:
        answer = await http.get("/v1/poll", params={"wait": wait})

    assert answer.status_code == 400
    assert answer.json()["field"] == "wait"
    assert "from 0 to 60" in answer.json()["detail"]


async def test_one_cursor_serves_on_every_transport() -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        it.broker.post("user:42", "1")
        first = await polled(http, cursor)
        it.broker.post("user:42", "2")
        async with streamed(http, last_event_id=first["cursor"]) as stream:
            second = await stream.next_ids(1)
        it.broker.post("user:42", "3")
        async with it.client(query=f"?since={stream.cursor}") as client:
            await client.next_of("hello")
            third = await client.next_of("event")
        position = third["position"]
        it.broker.post("user:42", "4")
        fourth = await polled(http, f"user:42@{position}")

    assert ids(first["frames"]) == ["1"]
    assert second == ["2"]
    assert third["event"]["id"] == "3"
    assert ids(fourth["frames"]) == ["4"]


# Requests behind a held one.

TOKEN = b"Host: x\r\nAuthorization: Bearer ann\r\n"
POLL = b"GET /v1/poll HTTP/1.1\r\n" + TOKEN + b"\r\n"
HISTORY = b"GET /v1/history HTTP/1.1\r\n" + TOKEN + b"\r\n"
SSE = b"GET /v1/sse HTTP/1.1\r\n" + TOKEN + b"\r\n"
LAST = b"GET /v1/history HTTP/1.1\r\nConnection: close\r\n" + TOKEN + b"\r\n"


@pytest.mark.parametrize(
    ("requests", "statuses"),
    [
        ([POLL, LAST], [200, 200]),
        ([POLL, POLL, HISTORY, POLL, LAST], [200] * 5),
        ([HISTORY, POLL, b"nonsense\r\n\r\n"], [200, 200, 400]),
        ([POLL, POLL[:-2] + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", LAST], [200] * 3),
        ([POLL[:-2] + b"Content-Length: 6\r\n\r\nGET /\n", POLL, LAST], [200] * 3),
        ([POLL[:-2] + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", LAST], [200] * 2),
    ],
)
@pytest.mark.parametrize("cut", [10_000, 150, 7])
async def test_every_request_of_a_pipeline_is_answered_in_its_place(
    requests: list[bytes], statuses: list[int], cut: int
) -> None:
    async with served() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        sent = b"".join(requests)
        for start_ in range(0, len(sent), cut):
            writer.write(sent[start_ : start_ + cut])
            await asyncio.sleep(0)
        answers = await asyncio.wait_for(reader.read(), 10)
        writer.close()

    assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answers)] == statuses


@pytest.mark.parametrize("behind", [POLL, LAST, SSE, b"nonsense\r\n\r\n", b"\0" * 1000])
@pytest.mark.parametrize("before", [b"", POLL, HISTORY, POLL + POLL])
async def test_nothing_stands_inside_a_stream_but_its_events(before: bytes, behind: bytes) -> None:
    async with served() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(before + SSE + behind)
        await asyncio.wait_for(reader.readuntil(b"event: hello"), 10)
        writer.write(behind)
        await asyncio.wait_for(reader.readuntil(b"id: "), 10)
        it.broker.post("user:42", "e1")
        stream = await asyncio.wait_for(reader.readuntil(b'"e1"'), 10)
        await it.gateway.drain()
        stream += await asyncio.wait_for(reader.read(), 10)
        writer.close()

    assert b"HTTP/" not in stream


@pytest.mark.parametrize("early", [b"", b"GET", LAST[:-1], LAST])
async def test_bytes_that_come_while_a_request_is_held_wait_for_its_answer(early: bytes) -> None:
    async with served() as it, it.http() as http:
        cursor = await start(http)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(request(cursor))
        await held(it)
        for byte in early:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        it.broker.post("user:42", "e1")
        answer = await body(reader)
        writer.write(LAST[len(early) :])
        rest = await asyncio.wait_for(reader.read(), 10)
        writer.close()

    assert b'"e1"' in answer
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_the_longest_wait_is_answered_before_proxies_give_up() -> None:
    assert poll.ANSWERED_AFTER < 60  # as nginx does

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poll, "ANSWERED_AFTER", 0.01)
        async with served() as it, it.http() as http:
            cursor = await start(http)
            answer = await asyncio.wait_for(polled(http, cursor, wait=60), 10)

    assert answer == {"frames": [], "cursor": cursor}
