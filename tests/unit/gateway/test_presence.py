"""A gateway says which users are connected, and tells of a topic's members.

In memory only one gateway is asked.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from notifier.adapters.memory.presence import MemoryPresenceQueries
from notifier.core.access import Identity, WiderIdentity
from notifier.core.names import GATEWAYS
from notifier.core.presence import MOST_SHOWN, WHO, Presence
from notifier.core.signals import Kind, Signal
from tests.support.gateways import Client, House, served
from tests.support.streams import polled, streamed


async def asked(house: House, *users: str, detailed: bool = False) -> Presence:
    return await house.presence_queries.ask(list(users), detailed=detailed)


async def test_the_connections_of_each_user_are_counted() -> None:
    async with served() as it, it.welcomed("ann"), it.welcomed("ann"), it.welcomed("bob"):
        found = await asked(it, "42", "43", "44")

        assert found == Presence({"42": 2, "43": 1, "44": 0}, [], complete=True)


async def test_a_connection_is_told_with_its_transport_its_age_and_its_positions() -> None:
    began = int(time.time())
    async with served() as it, it.client("ann", query="?topics=news") as client:
        hello = await client.next_of("hello")
        posted = it.broker.post("news", "e1")
        await client.next_of("event")

        [seen] = (await asked(it, "42", detailed=True)).connections

        assert (seen.session, seen.transport) == (hello["session"], "websocket")
        assert began <= datetime.fromisoformat(seen.since).timestamp() <= time.time()
        assert seen.topics.keys() == {"user:42", "everyone", "news"}
        assert seen.topics["news"] == posted
        assert seen.gateway


async def test_each_transport_counts_and_a_client_that_left_does_not() -> None:
    async with served() as it, it.http("ann") as http:
        cursor = (await polled(http))["cursor"]
        waiting = asyncio.ensure_future(polled(http, cursor))
        async with http.stream("GET", "/v1/sse") as stream, it.welcomed("ann"):
            lines = stream.aiter_lines()  # kept, or the stream would end with it
            await anext(lines)
            await it.came(3)
            found = await asked(it, "42", detailed=True)
        it.broker.post("user:42", "e1")
        await waiting
        for transport in ("sse", "websocket", "poll"):
            await it.gone(transport=transport)

        assert {seen.transport for seen in found.connections} == {"sse", "poll", "websocket"}
        assert (await asked(it, "42")).counts == {"42": 0}


async def test_a_follower_of_the_personal_topic_of_another_is_not_that_user() -> None:
    async with served() as it:
        it.tokens.table["admin"] = Identity("7", time.time() + 3600, ("user:*",))
        async with it.client("admin", query="?topics=user:42") as admin:
            await admin.next_of("hello")

            assert (await asked(it, "42", "7")).counts == {"42": 0, "7": 1}


async def test_of_many_connections_some_are_told_and_all_are_counted() -> None:
    async with served() as it, asyncio.timeout(60):
        clients = [it.welcomed("ann") for _ in range(MOST_SHOWN + 2)]
        for client in clients:
            await client.__aenter__()

        found = await asked(it, "42", detailed=True)

        assert (found.counts, len(found.connections)) == ({"42": MOST_SHOWN + 2}, MOST_SHOWN)
        for client in clients:
            await client.__aexit__(None, None, None)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id":7}', b"\xff"])
async def test_a_question_of_another_version_is_passed_over(body: bytes) -> None:
    async with served() as it, it.welcomed("ann"):
        await it.broker.subscribe([GATEWAYS])
        await it.broker.signal([Signal(GATEWAYS, Kind.ORDER, WHO, body)])

        assert (await asked(it, "42")).counts == {"42": 1}


async def test_without_an_answer_in_time_the_presence_is_not_complete() -> None:
    async with served() as it:
        await it.broker.unsubscribe([GATEWAYS])

        assert await MemoryPresenceQueries(it.broker).ask(["42"]) == Presence(
            {"42": 0}, [], complete=False
        )


ROOM = "?topics=room:7&presence=true"


@asynccontextmanager
async def attended() -> AsyncIterator[House]:
    """A gateway where ann and bob may be members of rooms, and cid may only follow them."""
    async with served() as it:
        later = time.time() + 3600
        rooms = ("room:*",)
        it.tokens.table |= {
            "ann": WiderIdentity("42", later, rooms, presence=("*",)),
            "bob": WiderIdentity("43", later, rooms, presence=rooms),
            "cid": Identity("44", later, rooms),
            "dan": WiderIdentity("45", later, rooms, publish=rooms),
        }
        yield it


async def count_of(client: Client, count: int) -> dict[str, Any]:
    """Return the first frame that tells so many members."""
    while (frame := await client.next_frame()).get("count") != count:
        assert frame["type"] in ("hello", "presence"), frame
    return frame


async def test_members_of_a_topic_are_told_of_each_other() -> None:
    async with attended() as it, it.client("ann", query=ROOM) as ann:
        await ann.next_of("hello")
        assert await ann.next_of("presence") == {
            "type": "presence",
            "topic": "room:7",
            "count": 1,
            "members": ["42"],
        }

        async with it.client("bob", query=ROOM) as bob:
            assert (await count_of(bob, 2))["members"] == ["42", "43"]
            joined = await ann.next_of("presence")
            assert (joined["joined"], joined["left"], joined["count"]) == (["43"], [], 2)

            await bob.say(type="unsubscribe", topic="room:7")
            left = await ann.next_of("presence")
            assert (left["joined"], left["left"], left["count"]) == ([], ["43"], 1)


async def test_a_newcomer_is_a_member_too_and_of_topics_that_it_subscribes_to_later() -> None:
    async with attended() as it, it.client(None, query="?presence=true") as ann:
        await ann.say(type="auth", token="ann")
        await ann.next_of("authenticated")
        await ann.next_of("hello")

        await ann.say(type="subscribe", topic="room:7")

        await ann.next_of("subscribed")
        assert (await ann.next_of("presence"))["members"] == ["42"]


async def test_a_renewed_token_without_the_claim_ends_the_membership() -> None:
    async with (
        attended() as it,
        it.client("bob", query=ROOM) as bob,
        it.client("ann", query=ROOM) as ann,
    ):
        assert (await count_of(ann, 2))["members"] == ["42", "43"]
        it.tokens.table["less"] = Identity("43", time.time() + 3600, ("room:*",))

        await bob.say(type="auth", token="less")

        assert (await count_of(ann, 1))["left"] == ["43"]


async def test_members_are_told_over_server_sent_events() -> None:
    async with attended() as it, it.http("ann") as http, it.client("bob", query=ROOM) as bob:
        await count_of(bob, 1)
        async with streamed(http, ROOM) as stream:
            told = await stream.next_of("presence")

    assert (told.data["members"], told.id) == (["42", "43"], None)


@pytest.mark.parametrize("token", ["cid", "dan"])
async def test_without_the_claim_a_client_is_refused_and_told_nothing(token: str) -> None:
    async with attended() as it, it.client("ann", query=ROOM) as ann:
        await count_of(ann, 1)
        async with it.client(token, query=ROOM) as other:
            await other.next_of("hello")
            error = await other.next_of("error")
            assert error["code"] == "forbidden"
            assert "claim presence" in error["message"]

            await other.say(type="ping")
            await other.next_of("pong")
        async with it.client("bob", query=ROOM):
            assert (await ann.next_of("presence"))["joined"] == ["43"]


async def test_nobody_is_a_member_of_everyone_or_of_topics_that_the_token_does_not_open() -> None:
    topics = "?topics=hall:1&presence=true"
    async with attended() as it, it.client("ann", query=topics) as ann:
        await ann.next_of("hello")
        await ann.next_of("error")

        assert it.gateway.attendance._topics == {}  # noqa: SLF001  # nothing else shows it


async def test_a_client_without_presence_gets_no_members() -> None:
    async with attended() as it, it.client("ann", query="?topics=room:7") as ann:
        await ann.next_of("hello")

        assert it.gateway.attendance._topics_of == {}  # noqa: SLF001  # nothing else shows it


@pytest.mark.parametrize("query", ["presence=false", "presence", "presence=true&presence=true"])
async def test_a_malformed_presence_is_refused(query: str) -> None:
    async with attended() as it, it.client("ann", query=f"?{query}") as client:
        error = await client.next_of("error")

        assert error["message"].startswith("presence")


@pytest.mark.parametrize("path", ["poll", "history"])
async def test_long_poll_and_history_have_no_presence(path: str) -> None:
    async with attended() as it, it.http("ann") as http:
        answer = await http.get(f"/v1/{path}?presence=true")

    assert (answer.status_code, answer.json()["field"]) == (400, "presence")
