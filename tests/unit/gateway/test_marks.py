import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.support.gateways import Client, House, served
from tests.support.streams import Frame, ids, polled, streamed

READING = "?marks=true"


async def told(client: Client, topic: str = "user:42") -> dict[str, Any]:
    """Return the next frame of marks of a topic; others are passed over."""
    while True:
        frame = await client.next_frame()
        if frame["type"] == "marks" and frame["topic"] == topic:
            return frame


async def unread(client: Client, topic: str = "user:42") -> int:
    return int((await told(client, topic))["unread"])


async def post_mark(http: httpx.AsyncClient, **frame: object) -> Frame:
    answer = await http.post("/v1/marks", json=frame)
    assert answer.status_code == 200, answer.text
    body: Frame = answer.json()
    return body


async def test_a_client_that_asks_for_marks_is_told_them_after_hello() -> None:
    async with served() as it:
        it.broker.post_many("user:42", 3)
        it.broker.post("everyone")

        async with it.client(query=READING) as client:
            await client.next_of("hello")
            frames = [await client.next_of("marks") for _ in range(2)]

    assert sorted((f["topic"], f["unread"], f.get("read")) for f in frames) == [
        ("everyone", 1, None),
        ("user:42", 3, None),
    ]


async def test_a_client_that_does_not_ask_is_told_nothing_of_marks() -> None:
    async with served() as it, it.welcomed() as client:
        first = it.broker.post("user:42")
        await client.say(type="mark", read=first, id=7)
        it.broker.post("user:42", "last")

        kinds = [(await client.next_frame())["type"] for _ in range(3)]

    assert sorted(kinds) == ["event", "event", "marked"]


async def test_a_mark_is_answered_and_told_to_every_connection_of_the_user() -> None:
    async with (
        served() as it,
        it.client(query=READING) as one,
        it.client(query=READING) as other,
        it.client("bob", query=READING) as bob,
    ):
        assert [await unread(one), await unread(other), await unread(bob, "user:43")] == [0, 0, 0]
        positions = it.broker.post_many("user:42", 3)
        while await unread(one) != 3 or await unread(other) != 3:
            pass

        await one.say(type="mark", read=positions[1], id=7)
        answer = await one.next_of("marked")
        frames = [await told(one), await told(other)]

        it.broker.post("user:43")
        assert await unread(bob, "user:43") == 1
    assert answer == {"type": "marked", "topic": "user:42", "read": positions[1], "id": 7}
    expected = {"type": "marks", "topic": "user:42", "unread": 1, "read": positions[1]}
    assert frames == [expected, expected]


async def test_single_events_are_read_above_the_mark() -> None:
    async with served() as it, it.client(query=READING) as client:
        positions = it.broker.post_many("user:42", 4)
        await client.say(type="mark", read=positions[0], read_only=[positions[2]])

        while "read" not in (frame := await told(client)):
            pass

    assert (frame["read"], frame["read_only"], frame["unread"]) == (
        positions[0],
        [positions[2]],
        2,
    )


async def test_an_event_for_everyone_is_unread_by_each_user_until_marked() -> None:
    async with served() as it, it.client(query=READING) as client:
        assert await unread(client, "everyone") == 0
        position = it.broker.post("everyone")
        assert await unread(client, "everyone") == 1

        await client.say(type="mark", topic="everyone", read=position)

        assert await unread(client, "everyone") == 0


async def test_a_topic_that_is_subscribed_later_is_told_of_too() -> None:
    async with served() as it, it.client(query=READING) as client:
        it.broker.post("news")
        await client.say(type="subscribe", topic="news")

        assert await unread(client, "news") == 1


async def test_silent_events_are_delivered_and_never_unread() -> None:
    silent = b'0:0:\n{"specversion":"1.0","silent":true,"id":"s"}'
    async with served() as it, it.client(query=READING) as client:
        await told(client)
        it.broker._append(it.broker.stream("user:42"), "user:42", silent)  # noqa: SLF001  # as a router would
        assert (await client.next_frame())["type"] in ("event", "marks")
        it.broker.post("user:42")

        assert await unread(client) == 1


@pytest.mark.parametrize(
    ("frame", "code", "message"),
    [
        ({"read": "x"}, "invalid", "read: a position looks like"),
        ({"received": "k.1.2"}, "invalid", "received: a position looks like"),
        ({"read_only": ["HEAD", "x"]}, "invalid", "read_only[1]: a position looks like"),
        ({"read_only": ["HEAD"] * 101}, "invalid", "read_only: must be a list of at most 100"),
        ({"read_only": "HEAD"}, "invalid", "read_only: must be a list, not a string"),
        ({}, "invalid", "read: is missing: give one of"),
        ({"topic": "a b", "read": "HEAD"}, "invalid", "topic: must be"),
        ({"read": "BEYOND"}, "invalid", "read: is beyond the newest event"),
        ({"read": "other.1"}, "invalid", "read: is of a stream that is gone"),
        ({"topic": "user:43", "read": "HEAD"}, "forbidden", "the token does not allow topic"),
        ({"topic": "staff", "read": "HEAD"}, "forbidden", "the token does not allow topic"),
        ({"topic": "news", "read": "other.0"}, "invalid", "read: is of a stream that is gone"),
    ],
)
async def test_a_bad_mark_is_refused_with_its_field_on_both_surfaces(
    frame: dict[str, Any], code: str, message: str
) -> None:
    async with served() as it, it.welcomed() as client, it.http() as http:
        head = it.broker.post("user:42")
        await client.next_of("event")
        text = json.dumps({"type": "mark", "id": 7, **frame})
        text = text.replace("HEAD", head).replace("BEYOND", f"{head}0")

        await client.socket.send(text)
        refused = await client.next_of("error")
        answer = await http.post("/v1/marks", content=text)

        marks = await it.gateway.mark("42", "user:42"), await it.gateway.mark("43", "user:43")
    problem = answer.json()
    assert (refused["code"], refused["id"]) == (code, 7)
    assert refused["message"].startswith(message)
    field, _, rest = message.partition(": ")
    assert answer.status_code == (403 if code == "forbidden" else 400)
    if code == "invalid":
        assert (problem["field"], problem["code"]) == (field, code)
        assert rest in problem["detail"]
    assert [mark.read or mark.singles for mark in marks] == [(), ()]


async def test_marks_by_post_are_answered_with_unread_and_told_to_sockets() -> None:
    async with served() as it, it.http() as http, it.client(query=READING) as client:
        await told(client)
        positions = it.broker.post_many("user:42", 3)

        answer = await post_mark(http, read=positions[0])

        while (frame := await told(client)) != answer:
            pass
    assert frame["unread"] == 2


async def test_a_stream_of_server_sent_events_is_told_of_marks() -> None:
    async with served() as it, it.http() as http, streamed(http, READING) as stream:
        position = it.broker.post("user:42")
        await post_mark(http, read=position)

        while (event := await stream.next_of("marks")).data.get("read") != position:
            pass

    assert (event.data["unread"], event.id) == (0, None)


async def held(it: House) -> None:
    async with asyncio.timeout(10):
        while not it.count("notifier_connections", transport="poll"):  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.001)


async def poll(http: httpx.AsyncClient, cursor: str, marks: str, wait: int = 20) -> Frame:
    query = {"since": cursor, "marks": marks, "wait": str(wait)}
    answer = await http.get("/v1/poll", params=query)
    assert answer.status_code == 200, answer.text
    body: Frame = answer.json()
    return body


async def test_a_poll_is_answered_when_marks_have_moved_and_held_while_they_have_not() -> None:
    async with served() as it, it.http() as http:
        position = it.broker.post("user:42")
        cursor = (await polled(http))["cursor"]

        first = await poll(http, cursor, "true")
        quiet = await poll(http, cursor, first["marks"], wait=0)
        asked = asyncio.ensure_future(poll(http, cursor, first["marks"]))
        await held(it)
        await post_mark(http, read=position)
        moved = await asked
        missed = await poll(http, cursor, first["marks"])  # as if that answer had been lost

    assert {frame["topic"]: frame["unread"] for frame in first["frames"]} == {
        "user:42": 1,
        "everyone": 0,
    }
    assert quiet["frames"] == []
    assert [frame["unread"] for frame in moved["frames"]] == [0]
    assert moved["frames"] == missed["frames"]


async def test_a_list_says_which_events_are_read() -> None:
    async with served() as it, it.http() as http:
        positions = it.broker.post_many("user:42", 4)
        await post_mark(http, read=positions[0], read_only=[positions[2]])

        answer = await http.get("/v1/history", params={"order": "newest"})

    frames = answer.json()["frames"]
    assert [(frame["position"], frame["read"]) for frame in frames] == [
        (positions[3], False),
        (positions[2], True),
        (positions[1], False),
        (positions[0], True),
    ]
    assert ids(frames) == ["x"] * 4


async def test_a_mark_is_taken_over_by_the_epoch_that_continues_its_own() -> None:
    async with served() as it, it.http() as http:
        positions = it.broker.post_many("user:42", 3)
        await post_mark(http, read=positions[1])
        it.broker.stream("user:42").go_on()
        it.broker.post("user:42")

        answer = await post_mark(http, received=positions[0])

    epoch = it.broker.head("user:42").partition(".")[0]
    assert answer == {"type": "marks", "topic": "user:42", "unread": 2, "read": f"{epoch}.2"}


async def test_a_stream_that_begins_anew_has_nothing_read() -> None:
    async with served() as it, it.client(query=READING) as client, it.http() as http:
        positions = it.broker.post_many("user:42", 3)
        await post_mark(http, read=positions[2])
        it.broker.stream("user:42").restart()
        it.broker.post("user:42")

        while "read" in (frame := await told(client)) or frame["unread"] != 1:
            pass


async def test_marks_are_answered_while_redis_is_away_and_told_once_it_is_back() -> None:
    async with served() as it, it.client(query=READING) as client:
        await told(client)
        position = it.broker.post("user:42")
        it.broker.away = True
        await client.say(type="mark", read=position, id=7)
        while (frame := await client.next_frame())["type"] != "error":
            pass
        assert frame["code"] == "unavailable"

        it.broker.away = False
        it.broker.post("user:42")
        while await unread(client) != 2:
            pass


@pytest.mark.parametrize(
    ("path", "field"),
    [("ws?marks=1", "marks"), ("sse?marks=0a1b2c3d", "marks"), ("poll?marks=x", "marks")],
)
async def test_a_parameter_of_marks_that_is_none_is_refused(path: str, field: str) -> None:
    async with served() as it, it.http() as http:
        if path.startswith("ws"):
            async with it.client(query=path[2:]) as client:
                assert (await client.next_of("error"))["message"].startswith(f"{field}: must be")
        else:
            answer = await http.get(f"/v1/{path}")
            assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_a_post_takes_no_parameters_and_no_large_body() -> None:
    async with served() as it, it.http() as http:
        extra = await http.post("/v1/marks?topics=news", json={"read": "k.1"})
        large = await http.post("/v1/marks", content=b" " * 70_000)
        wrong = await http.post("/v1/marks", content=b"{")

    assert (extra.status_code, extra.json()["field"]) == (400, "topics")
    assert large.status_code == 413
    assert (wrong.status_code, wrong.json()["code"]) == (400, "unreadable")


@pytest.mark.parametrize("path", ["/v1/marks", "/v1/publish"])
async def test_a_compressed_body_is_refused_by_name(path: str) -> None:
    async with served() as it, it.http() as http:
        answer = await http.post(path, content=b"{}", headers={"content-encoding": "gzip"})

        assert (answer.status_code, answer.json()["field"]) == (415, "content_encoding")


async def test_a_body_that_is_too_large_is_refused_before_its_end() -> None:
    head = b"POST /v1/marks HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ann\r\n"
    async with served() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        chunk = b"%x\r\n%s\r\n" % (70_000, b" " * 70_000)
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        async with asyncio.timeout(10):
            status = await reader.readline()
        writer.close()

    assert status.startswith(b"HTTP/1.1 413")


async def test_a_mark_needs_a_token_and_a_page_that_is_allowed() -> None:
    async with served(origins=["https://app.example"]) as it, it.http(None) as http:
        position = it.broker.post("user:42")
        body = {"read": position}
        cookie = {"Cookie": "notifier_token=ann"}

        answers = [
            await http.post("/v1/marks", json=body, headers=headers)
            for headers in (
                {},
                cookie,
                cookie | {"Origin": "https://evil.example"},
                cookie | {"Sec-Fetch-Site": "cross-site"},
            )
        ]
        marked = await it.gateway.mark("42", "user:42")
        allowed = await http.post(
            "/v1/marks", json=body, headers=cookie | {"Origin": "https://app.example"}
        )

    assert [answer.status_code for answer in answers] == [401, 401, 403, 401]
    assert marked.read == 0
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"


async def test_sessions_that_are_gone_leave_nothing_behind() -> None:
    async with served() as it:
        async with it.client(query=READING) as client:
            await told(client)
        await it.gone()

        badges, hub = it.gateway.badges, it.gateway.hub
        assert (badges._users, badges._users_of, hub._watchers) == ({}, {}, {})  # noqa: SLF001  # leaks cannot be seen otherwise
