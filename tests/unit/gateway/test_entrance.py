import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from notifier.adapters.memory.seats import MemorySeats
from notifier.core.access import Identity
from notifier.core.conversation import Terms
from notifier.core.errors import TokenExpired, Unavailable
from notifier.core.names import personal_topic
from notifier.core.rate_limit import RateLimit
from notifier.gateway.admission import Capacity
from notifier.http.proxies import Proxies
from tests.support.gateways import PROTOCOL, House, served

# The ways to hand over a token.


async def test_a_token_is_taken_from_the_header() -> None:
    async with served() as it, it.client("ann") as client:
        assert (await client.next_of("hello"))["user"] == "42"


async def test_a_token_is_taken_from_a_subprotocol_which_is_not_echoed() -> None:
    async with served() as it, it.client(None, subprotocols=(PROTOCOL, "bearer.ann")) as client:
        assert client.socket.subprotocol == PROTOCOL
        assert (await client.next_of("hello"))["user"] == "42"


async def test_a_token_is_taken_from_a_cookie_of_an_allowed_page() -> None:
    headers = {"Cookie": "a=b; notifier_token=ann", "Origin": "https://app.example"}
    async with (
        served(origins=["https://App.example"]) as it,
        it.client(None, headers=headers) as client,
    ):
        assert (await client.next_of("hello"))["user"] == "42"


async def test_a_token_is_taken_from_the_first_frame() -> None:
    async with served() as it, it.client(None) as client:
        await client.say(type="auth", token="ann", id=9)

        assert (await client.next_of("authenticated"))["id"] == 9
        assert (await client.next_of("hello"))["user"] == "42"


async def test_the_header_comes_before_a_subprotocol_and_a_cookie() -> None:
    headers = {"Cookie": "notifier_token=bad", "Origin": "https://app.example"}
    async with (
        served(origins=["https://app.example"]) as it,
        it.client("ann", headers=headers, subprotocols=(PROTOCOL, "bearer.bob")) as one,
    ):
        assert (await one.next_of("hello"))["user"] == "42"


async def test_a_client_without_the_subprotocol_is_served_too() -> None:
    async with served() as it, it.client("ann", subprotocols=()) as client:
        assert client.socket.subprotocol is None
        assert (await client.next_of("hello"))["user"] == "42"


@pytest.mark.parametrize(
    ("subprotocols", "headers"),
    [
        ((PROTOCOL, "bearer.ann"), {}),
        ((), {"Cookie": "notifier_token=ann", "Origin": "https://app.example"}),
    ],
)
async def test_credentials_for_a_proxy_on_the_way_are_passed_over(
    subprotocols: tuple[str, ...], headers: dict[str, str]
) -> None:
    given = {"Authorization": "Basic c3RhZ2luZzpzZWNyZXQ=", **headers}
    async with (
        served(origins=["https://app.example"]) as it,
        it.client(None, subprotocols=subprotocols, headers=given) as client,
    ):
        assert (await client.next_of("hello"))["user"] == "42"


async def test_credentials_for_a_proxy_leave_the_token_to_the_first_frame() -> None:
    async with served() as it, it.client(None, headers={"Authorization": "Basic YTpi"}) as client:
        await client.say(type="auth", token="ann")

        await client.next_of("authenticated")


@pytest.mark.parametrize("value", ["Basic YTpi, Bearer ann", "bearer  ann", "Bearer ann"])
async def test_a_token_is_found_beside_another_scheme(value: str) -> None:
    async with served() as it, it.client(None, headers={"Authorization": value}) as client:
        assert (await client.next_of("hello"))["user"] == "42"


@pytest.mark.parametrize("value", ["Bearer old, Bearer ann", "Bearer ann,Bearer old"])
async def test_of_two_tokens_in_the_header_the_good_one_counts(value: str) -> None:
    async with served() as it, it.client(None, headers={"Authorization": value}) as client:
        assert (await client.next_of("hello"))["user"] == "42"


async def test_of_two_headers_with_tokens_the_good_one_counts() -> None:
    async with served() as it, it.http(None) as http:
        lines = [("authorization", "Bearer old"), ("authorization", "Bearer ann")]
        answer = await http.get("/v1/poll?wait=0", headers=lines)

    assert answer.status_code == 200


async def test_no_more_than_four_tokens_of_the_header_are_verified() -> None:
    value = ", ".join(f"Bearer {each}" for each in ("a", "b", "c", "d", "ann"))
    async with served() as it, it.client(None, headers={"Authorization": value}) as client:
        assert await client.closed_with() == 4500


@pytest.mark.parametrize(
    "cookie",
    [
        "notifier_token=old; notifier_token=ann",
        "notifier_token=ann; a=b; notifier_token=old",
        'notifier_token=old; notifier_token="ann"',
    ],
)
async def test_of_two_cookies_of_the_name_the_good_one_counts(cookie: str) -> None:
    headers = {"Cookie": cookie, "Origin": "https://app.example"}
    async with served(origins=["https://app.example"]) as it, it.client(None, headers=headers) as c:
        assert (await c.next_of("hello"))["user"] == "42"


async def test_no_more_than_four_cookies_are_verified() -> None:
    cookie = "; ".join(f"notifier_token={each}" for each in ("a", "b", "c", "d", "ann"))
    headers = {"Cookie": cookie, "Origin": "https://app.example"}
    async with served(origins=["https://app.example"]) as it, it.client(None, headers=headers) as c:
        assert await c.closed_with() == 4500


async def test_a_cookie_is_not_taken_over_https_from_the_same_hosts_page_over_http() -> None:
    async with served() as it:
        headers = {
            "Origin": f"http://127.0.0.1:{it.port}",
            "X-Forwarded-Proto": "https",
            "Cookie": "notifier_token=ann",
        }
        async with it.client(None, headers=headers) as client:
            assert await client.closed_with() == 4500


# Tokens that are refused: accepted, told why, and closed with 4500.


@pytest.mark.parametrize(
    "ways",
    [
        {"token": "nobody"},
        {"token": None, "subprotocols": (PROTOCOL, "bearer.nobody")},
        {"token": None, "headers": {"Authorization": "Bearer"}},
        {"token": None, "headers": {"Authorization": "a.b.c"}},
        {"token": None, "headers": {"Cookie": "notifier_token=ann"}},
        {"token": None, "query": "?token=ann"},
        {"token": None, "query": "?access_token=ann"},
        {"token": "ann", "query": "?token=ann"},
    ],
)
async def test_a_bad_token_is_told_in_frames_and_closed_with_4500(ways: dict[str, str]) -> None:
    async with served() as it, it.client(**ways) as client:  # type: ignore[arg-type]  # a table
        error, bye = await client.next_of("error"), await client.next_of("bye")

        assert error["code"] == "unauthorized"
        assert bye == {"type": "bye", "code": 4500, "reason": "unauthorized"}
        assert await client.closed_with() == 4500
        assert it.count("notifier_connections_refused_total", reason="unauthorized") == 1


async def test_an_expired_token_is_told_in_frames_and_closed_and_may_reconnect() -> None:
    async with served() as it:
        it.tokens.table["late"] = TokenExpired("the token expired")
        async with it.client("late") as client:
            error, bye = await client.next_of("error"), await client.next_of("bye")

            assert error["code"] == "token_expired"
            assert bye == {"type": "bye", "code": 4001, "reason": "token_expired"}
            assert await client.closed_with() == 4001
            assert it.count("notifier_connections_refused_total", reason="token_expired") == 1


async def test_a_token_is_not_logged_and_not_answered() -> None:
    with capture_logs() as logs:
        async with served() as it:
            async with it.client("s3cret-token") as client:
                error = await client.next_of("error")
            async with it.client(None, query="?token=s3cret-token") as client:
                await client.closed_with()

    assert "s3cret" not in str(logs) + str(error)


async def test_a_bad_first_frame_token_is_closed_with_4500() -> None:
    async with served() as it, it.client(None) as client:
        await client.say(type="auth", token="nobody")

        assert await client.closed_with() == 4500


async def test_a_client_that_never_sends_auth_is_closed_with_4503() -> None:
    async with served(terms=Terms(auth_timeout=0.0)) as it, it.client(None) as client:
        assert await client.closed_with() == 4503


async def test_a_token_that_ends_during_the_stay_is_closed_with_4001() -> None:
    async with served() as it:
        it.tokens.table["brief"] = Identity("42", time.time() + 0.5)
        async with it.client("brief") as client:
            assert await client.closed_with() == 4001


# The parameters.


async def test_topics_of_the_url_are_followed() -> None:
    async with served() as it, it.client("ann", query="?topics=news,news") as client:
        hello = await client.next_of("hello")

        assert list(hello["topics"]) == ["user:42", "everyone", "news"]


async def test_a_cursor_of_the_url_is_resumed() -> None:
    async with served() as it:
        posted = it.broker.post_many("user:42", 3)
        async with it.client("ann", query=f"?since=user:42@{posted[0]}") as client:
            hello = await client.next_of("hello")
            events = [await client.next_of("event"), await client.next_of("event")]

    assert hello["topics"]["user:42"] == {"position": posted[0], "resumed": True}
    assert [event["position"] for event in events] == posted[1:]


@pytest.mark.parametrize(
    "query",
    [
        "?since=nonsense",
        "?since=" + "a@b.1," * 4_000,
        "?sinc=user:42@a.1",
        "?topics=a%20b",
        "?topics=news,",
        "?topics=" + ",".join(f"t{n}" for n in range(101)),
        "?since=" + ",".join(f"t{n}@a.1" for n in range(101)),
        "?topics=t1&topics=t2",
        "?since=news@a.1&since=user:42@a.1",
    ],
)
async def test_a_bad_query_is_told_in_frames_and_closed_with_4502(query: str) -> None:
    async with served() as it, it.client("ann", query=query) as client:
        await client.next_of("error")

        assert await client.closed_with() == 4502


_OF_STREAMS = "is no parameter here; there are topics, since, marks, presence"
_OF_HISTORY = "is no parameter here; there are topics, since, limit, order, before"


@pytest.mark.parametrize(
    ("path", "query", "detail"),
    [
        ("sse", "sinc=user:42@a.1", f"sinc: {_OF_STREAMS}"),
        ("sse", "wait=5", f"wait: {_OF_STREAMS}"),
        ("poll", "limit=5", "limit: is no parameter here; there are topics, since, wait, marks"),
        ("history", "Since=a@b.1", f"Since: {_OF_HISTORY}"),
        ("history", "wait", f"wait: {_OF_HISTORY}"),
        ("poll", "topic=news", "topic: is called topics here: one or several, separated by commas"),
        ("sse", "lastEventId=user:42@a.1", "lastEventId: is called since here"),
    ],
)
async def test_a_parameter_that_there_is_not_is_refused_by_name(
    path: str, query: str, detail: str
) -> None:
    async with served() as it, it.http() as http:
        answer = await http.get(f"/v1/{path}?{query}")

    assert (answer.status_code, answer.json()["detail"]) == (400, detail)
    assert answer.json()["field"] == detail.partition(":")[0]


# A cursor that is not understood: its client does not begin anew without a word.

HINT = "; in a URL write + as %2B, as it stands for a space"


@pytest.mark.parametrize("path", ["sse", "poll", "history"])
@pytest.mark.parametrize(
    ("query", "field", "detail"),
    [
        ("since=user:ann+news@example.org@a.1", "since", HINT),
        ("topics=team+7", "topics", HINT),
        ("since=news@A.1", "since", "a position looks like"),
        ("since=news@a.1,", "since", "a cursor looks like"),
        ("since=news@a.1,news@a.2", "since", "has two positions for topic news"),
        ("since=news@a.1&since=user:42@a.1", "since", "is given more than once"),
        ("topics=news&topics=team", "topics", "is given more than once"),
        ("topics=news,,team", "topics", "must be 1 to 128"),
    ],
)
async def test_a_malformed_cursor_or_topic_is_refused_by_field_rule_and_remedy(
    path: str, query: str, field: str, detail: str
) -> None:
    async with served() as it, it.http() as http:
        answer = await http.get(f"/v1/{path}?{query}")

    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert detail in answer.json()["detail"]


async def test_a_websocket_with_a_plus_that_became_a_space_is_told_the_remedy() -> None:
    query = "?since=user:ann+news@example.org@a.1"
    async with served() as it, it.client("ann", query=query) as client:
        assert HINT in (await client.next_of("error"))["message"]
        assert await client.closed_with() == 4502


async def test_a_cursor_in_a_header_is_read_as_strictly() -> None:
    headers = {"last-event-id": "user:ann news@example.org@a.1"}
    async with served() as it, it.http() as http:
        answer = await http.get("/v1/poll", headers=headers)

    assert (answer.status_code, answer.json()["field"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("between", [", ", "\r\nLast-Event-ID: ", ",user:42@{0},"], ids=ascii)
async def test_a_cursor_in_several_headers_is_read_as_one(between: str) -> None:
    async with served() as it:
        own, news = it.broker.post_many("user:42", 2), it.broker.post_many("news", 2)
        lines = f"user:42@{own[0]}{between.format(own[0])}news@{news[0]}"
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(
            b"GET /v1/history HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n"
            b"Connection: close\r\nLast-Event-ID: %s\r\n\r\n" % lines.encode()
        )
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()

    frames = json.loads(answer.partition(b"\r\n\r\n")[2])["frames"]
    assert [frame["position"] for frame in frames] == [own[1], news[1]]


async def test_two_headers_with_different_positions_of_a_topic_are_refused() -> None:
    lines = [("last-event-id", "news@a.1"), ("last-event-id", "news@a.2")]
    async with served() as it, it.http() as http:
        answer = await http.get("/v1/poll", headers=lines)

    assert (answer.status_code, answer.json()["field"]) == (400, "Last-Event-ID")


async def test_positions_that_only_the_url_has_count_beside_those_of_the_header() -> None:
    async with served() as it, it.http() as http:
        own, news = it.broker.post_many("user:42", 3), it.broker.post_many("news", 2)
        answer = await http.get(
            "/v1/history",
            params={"since": f"user:42@{own[0]},news@{news[0]}"},
            headers={"last-event-id": f"user:42@{own[1]}"},
        )

    positions = [frame["position"] for frame in answer.json()["frames"]]
    assert positions == [own[2], news[1]]


async def test_a_topic_that_only_the_cursor_names_is_followed() -> None:
    async with served() as it:
        posted = it.broker.post_many("news", 3)
        async with it.client("ann", query=f"?since=news@{posted[0]}") as client:
            hello = await client.next_of("hello")
            events = [await client.next_of("event"), await client.next_of("event")]
            live = it.broker.post("news")
            events.append(await client.next_of("event"))

    assert hello["topics"]["news"] == {"position": posted[0], "resumed": True}
    assert [event["position"] for event in events] == [*posted[1:], live]


@pytest.mark.parametrize("topic", ["staff", "user:43"])
async def test_a_topic_of_the_cursor_that_the_token_does_not_allow_is_told(topic: str) -> None:
    query = f"?since={topic}@a.1,everyone@a.1"
    async with served() as it, it.client("ann", query=query) as client:
        hello, error = await client.next_of("hello"), await client.next_of("error")

    assert list(hello["topics"]) == ["user:42", "everyone"]
    assert (error["code"], error["message"]) == (
        "forbidden",
        f"the token does not allow topic {topic}",
    )


async def test_topics_of_the_cursor_count_and_the_own_two_do_not() -> None:
    own = "user:42@a.1,everyone@a.1"
    four = ",".join(f"t{n}@a.1" for n in range(4))
    async with served(terms=Terms(most_topics=5)) as it, it.http() as http:
        at_most = await http.get(f"/v1/poll?topics=t4,everyone&since={own},{four}&wait=0")
        too_many = await http.get(f"/v1/poll?topics=t4,t5&since={own},{four}&wait=0")

    assert at_most.status_code == 200
    assert (too_many.status_code, too_many.json()["code"]) == (400, "too_many")


async def test_topics_are_counted_too_when_the_token_comes_in_a_frame() -> None:
    query = "?topics=t1&since=user:42@a.1,t2@a.1,t3@a.1"
    async with served(terms=Terms(most_topics=2)) as it, it.client(None, query=query) as client:
        await client.say(type="auth", token="ann", id=9)

        assert (await client.next_of("error"))["code"] == "too_many"
        assert await client.closed_with() == 4502


EVERY_CHARACTER = "A-Za-z0-9-._~:@/+=|$!&@k3x9q2.17"


@pytest.mark.parametrize("user", [EVERY_CHARACTER, "a+b@example.org", "a@b.1", "&", "+", "@"])
async def test_a_cursor_of_any_user_survives_a_url_so_that_its_client_resumes(user: str) -> None:
    topic = f"user:{user}"
    async with served() as it, it.http() as http:
        it.tokens.table["ann"] = Identity(user, time.time() + 3600)
        first = (await http.get("/v1/poll")).json()["cursor"]
        it.broker.post_many(topic, 2)
        missed = (await http.get("/v1/poll", params={"since": first})).json()
        history = (await http.get("/v1/history", params={"since": first})).json()
        async with it.client("ann", query=f"?since={quote(first)}") as client:
            hello = await client.next_of("hello")

    assert [frame["topic"] for frame in missed["frames"]] == [topic] * 2
    assert history["frames"] == missed["frames"]
    assert hello["topics"][topic]["resumed"] is True


@pytest.mark.parametrize("path", ["poll", "history"])
async def test_parameters_of_caches_and_proxies_are_ignored(path: str) -> None:
    async with served() as it, it.http() as http:
        answer = await http.get(f"/v1/{path}?_=1790000000&__cf_chl_tk=x&topics=news")

    assert answer.status_code == 200


async def test_a_token_that_stands_in_a_query_without_a_name_is_neither_logged_nor_answered() -> (
    None
):
    token = jwt.encode({"sub": "42"}, "a secret of more than thirty-two bytes")
    with capture_logs() as logs:
        async with served() as it, it.http() as http:
            answer = await http.get(f"/v1/poll?{token}")

    assert answer.json()["code"] == "invalid"
    assert token.rpartition(".")[2] not in str(logs) + answer.text
    assert token.split(".")[1] not in str(logs) + answer.text


async def test_a_cursor_of_a_hundred_topics_is_resumed() -> None:
    topics = [f"team:{n:0100}" for n in range(97)]
    cursor = ",".join(f"{topic}@k3x9q2aa.1700" for topic in topics)
    query = f"?since={cursor}"
    # It reads what it does not take: the answer to its close comes behind a gap for each topic.
    async with served() as it, it.client("ann", query=query, max_queue=None) as client:
        assert (await client.next_of("hello"))["user"] == "42"


# Pages of other sites.


async def test_a_page_of_another_site_is_told_why_and_closed_with_4501() -> None:
    headers = {"Origin": "https://evil.example"}
    async with served(origins=["https://app.example"]) as it, it.client(headers=headers) as client:
        error, bye = await client.next_of("error"), await client.next_of("bye")

        assert error["code"] == "wrong_origin"
        assert "https://evil.example" in error["message"]
        assert bye == {"type": "bye", "code": 4501, "reason": "forbidden"}
        assert await client.closed_with() == 4501
        assert it.count("notifier_connections_refused_total", reason="wrong_origin") == 1


@pytest.mark.parametrize("origin", ["null", "https://", "http://[::1", "https://app.example.evil"])
async def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    async with served() as it, it.client(headers={"Origin": origin}) as client:
        assert await client.closed_with() == 4501


async def test_a_client_with_an_empty_origin_is_no_page() -> None:
    async with served() as it, it.client(headers={"Origin": ""}) as client:
        await client.next_of("hello")


@pytest.mark.parametrize("listed", [[], ["https://app.example"]])
async def test_pages_of_the_gateways_own_host_are_allowed_with_a_list_or_without(
    listed: list[str],
) -> None:
    async with served(origins=listed) as it:
        async with it.client(headers={"Origin": f"http://127.0.0.1:{it.port}"}) as client:
            await client.next_of("hello")
        async with it.client(headers={"Origin": "http://127.0.0.1:1"}) as client:
            assert await client.closed_with() == 4501


async def test_any_page_is_allowed_where_the_list_says_so() -> None:
    headers = {"Origin": "https://any.example"}
    async with served(origins=["*"]) as it, it.client(headers=headers) as client:
        await client.next_of("hello")


# A gateway that cannot deliver.


@pytest.mark.parametrize("part", ["gateway", "broker", "tokens"])
async def test_a_client_that_cannot_be_served_is_refused_before_the_upgrade(part: str) -> None:
    async with served() as it:
        if part == "gateway":
            it.gateway.draining = True
        else:
            (it.broker if part == "broker" else it.tokens).trouble = "away"

        refusal = await it.refused()

        assert refusal.response.status_code == 503
        assert int(refusal.response.headers["Retry-After"]) > 0
        assert refusal.response.headers["Content-Type"] == "application/problem+json"
        assert it.count("notifier_connections_refused_total", reason="unavailable") == 1


async def test_an_issuer_out_of_reach_is_no_fault_of_the_token() -> None:
    async with served() as it:
        it.tokens.table["ann"] = Unavailable("issuer", "timed out")

        refusal = await it.refused()

        assert refusal.response.status_code == 503


async def test_a_client_that_was_being_verified_when_the_drain_began_is_refused() -> None:
    async with served() as it:
        it.tokens.open.clear()
        coming = asyncio.create_task(it.refused())
        await it.tokens.asked.wait()

        it.gateway.draining = True
        it.tokens.open.set()

        assert (await coming).response.status_code == 503


# A gateway, or a user, with as many connections as there may be.


async def test_a_full_gateway_refuses_before_the_upgrade_until_someone_leaves() -> None:
    async with served(capacity=Capacity(connections=2)) as it, it.welcomed():
        async with it.welcomed():
            it.tokens.asked.clear()
            refusal = await it.refused()
            verified = it.tokens.asked.is_set()
        await it.gone(left=1)
        async with it.welcomed():
            pass

        assert refusal.response.status_code == 503
        assert int(refusal.response.headers["Retry-After"]) > 0
        assert not verified
        assert it.count("notifier_connections_refused_total", reason="full") == 1
        assert it.count("notifier_connections_limit") == 2


async def test_a_full_gateway_answers_requests_that_ask_once() -> None:
    full = Capacity(connections=1)
    async with served(capacity=full) as it, it.welcomed(), it.http() as http:
        position = it.broker.post(personal_topic("42"))
        read = await http.get("/v1/history")
        listed = await http.get("/v1/history/", params={"order": "newest"})
        marked = await http.post("/v1/marks", json={"read": position})
        polled = await http.get("/v1/poll")

    assert [each.status_code for each in (read, listed, marked, polled)] == [200, 200, 200, 503]


async def test_clients_verified_while_the_last_place_was_taken_are_refused() -> None:
    async with served(capacity=Capacity(connections=1)) as it:
        it.tokens.open.clear()
        coming = asyncio.create_task(it.refused())
        await it.tokens.asked.wait()

        async with it.client(None) as first:  # says later who it is
            it.tokens.open.set()
            refusal = await coming
            await first.say(type="auth", token="bob")
            await first.next_of("authenticated")

        assert refusal.response.status_code == 503


async def test_clients_over_the_connect_rate_limit_are_refused_before_the_upgrade() -> None:
    async with served(capacity=Capacity(connects=RateLimit(rate=0.001, burst=2_000))) as it:
        async with it.welcomed(), it.welcomed():
            refusal = await it.refused()

        assert refusal.response.status_code == 503
        assert int(refusal.response.headers["Retry-After"]) > 0
        assert it.count("notifier_connections_refused_total", reason="too_fast") == 1


async def test_a_client_refused_for_another_reason_does_not_count_towards_the_rate_limit() -> None:
    async with served(capacity=Capacity(connects=RateLimit(rate=0.001, burst=1_000))) as it:
        async with it.client(headers={"Origin": "https://evil.example"}) as client:
            await client.closed_with()
        it.broker.trouble = "away"
        await it.refused()
        it.broker.trouble = None

        async with it.welcomed():
            pass


async def test_a_user_with_too_many_connections_is_told_in_frames_and_closed_with_4504() -> None:
    async with served(seats=MemorySeats(2)) as it, it.welcomed(), it.welcomed():
        async with it.client() as third:
            assert (await third.next_of("error"))["code"] == "too_many_connections"
            assert (await third.next_of("bye"))["code"] == 4504
            assert await third.closed_with() == 4504
        async with it.welcomed("bob"):
            pass

        assert it.count("notifier_connections_refused_total", reason="too_many_connections") == 1


async def test_tokens_of_a_first_frame_count_as_others_do() -> None:
    async with served(seats=MemorySeats(2)) as it, it.welcomed(), identified(it):
        async with it.client(None) as third:
            await third.say(type="auth", token="ann", id=9)

            assert (await third.next_of("error"))["code"] == "too_many_connections"
            assert await third.closed_with() == 4504

        assert it.count("notifier_connections_refused_total", reason="too_many_connections") == 1


async def test_a_token_renewed_in_place_takes_no_second_seat() -> None:
    async with served(seats=MemorySeats(1)) as it, it.welcomed() as client:
        await client.say(type="auth", token="ann")
        await client.next_of("authenticated")


@pytest.mark.parametrize("first_frame", [False, True])
async def test_a_client_that_leaves_releases_its_seat(first_frame: bool) -> None:  # noqa: FBT001 - a case
    async with served(seats=MemorySeats(1)) as it:
        for _ in range(3):
            async with identified(it) if first_frame else it.welcomed():
                pass
            await it.gone()


async def test_a_client_that_leaves_while_its_token_is_verified_releases_its_seat() -> None:
    async with served(seats=MemorySeats(1)) as it:
        async with it.client(None) as going:
            it.tokens.open.clear()
            await going.say(type="auth", token="ann")
            await it.tokens.asked.wait()
        await it.gone()
        it.tokens.open.set()

        async with it.welcomed():
            pass


class SlowSeats(MemorySeats):
    """Grants seats once `open` is set."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.asked, self.open = asyncio.Event(), asyncio.Event()

    async def claim(self, user: str) -> bool:
        self.asked.set()
        await self.open.wait()
        return await super().claim(user)


async def test_a_client_that_waited_for_a_seat_while_the_gateway_filled_up_releases_it() -> None:
    seats = SlowSeats(1)
    async with served(seats=seats, capacity=Capacity(connections=1)) as it:
        waiting = asyncio.create_task(it.refused())
        await seats.asked.wait()
        async with it.client(None):
            seats.open.set()
            assert (await waiting).response.status_code == 503
        await it.gone()

        async with it.welcomed():
            pass


@asynccontextmanager
async def identified(it: House) -> AsyncIterator[None]:
    """Connect as `ann`, by a token in the first frame."""
    async with it.client(None) as client:
        await client.say(type="auth", token="ann")
        await client.next_of("authenticated")
        await client.next_of("hello")
        yield


async def test_there_is_nothing_else_to_connect_to() -> None:
    async with served() as it:
        refusal = await it.refused(query="/x")

        assert refusal.response.status_code == 404


async def test_a_refused_client_is_logged_with_user_and_address() -> None:
    with capture_logs() as logs:
        async with served() as it, it.http() as http:
            await http.get("/v1/history?limit=x")
            await http.get("/v1/poll", headers={"authorization": "Bearer bad"})
            async with it.client(None, query="?token=a") as client:
                await client.closed_with()

    lines = [line for line in logs if line["event"] == "refused"]
    assert [line["user"] for line in lines] == ["42", "", ""]
    assert {line["client"] for line in lines} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("trusted", "client"), [((), "127.0.0.1"), (("127.0.0.0/8",), "192.0.2.1")]
)
async def test_a_refusal_behind_a_trusted_proxy_has_the_address_of_the_client(
    trusted: tuple[str, ...], client: str
) -> None:
    forwarded = {"x-forwarded-for": "203.0.113.66, 192.0.2.1"}
    with capture_logs() as logs:
        async with served() as it, it.http() as http:
            it.app.state.proxies = Proxies(trusted)
            await http.get("/v1/history?limit=x", headers=forwarded)
            async with it.client(None, query="?token=a", headers=forwarded) as socket:
                await socket.closed_with()

            async with it.client(None, headers=forwarded) as socket:
                await socket.say(type="auth", token="bad")
                await socket.closed_with()

    refusals = ("refused", "token_refused")  # the last one by a token in a frame
    lines = [line["client"] for line in logs if line["event"] in refusals]
    assert lines == [client] * 3


@pytest.mark.parametrize(
    "value", ["000000001000000", "0" * 5_000, "9" * 5_000, "1e9", "-1", "٣", "+1", "", "1.5"]
)
@pytest.mark.parametrize("parameter", ["poll?wait", "history?limit"])
async def test_a_number_that_cannot_be_is_refused(parameter: str, value: str) -> None:
    async with served() as it, it.http() as http:
        answer = await http.get(f"/v1/{parameter}={quote(value)}")

    assert answer.status_code == 400
    assert "must be a whole number from " in answer.json()["detail"]


@given(
    query=st.dictionaries(
        st.sampled_from(["wait", "limit", "since", "topics"]), st.text(max_size=20), max_size=2
    ),
    path=st.sampled_from(["poll", "history"]),
)
@settings(max_examples=20)
async def test_no_query_is_answered_by_a_500(query: dict[str, str], path: str) -> None:
    query = {**query, "wait": "x"} if path == "poll" else query  # so that it is answered at once
    async with served() as it, it.http() as http:
        answer = await http.get(f"/v1/{path}", params=query)

    assert answer.status_code < 500
