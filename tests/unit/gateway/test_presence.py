"""What a gateway answers when it is asked who is connected. In memory only one gateway is asked."""

import asyncio
import time
from datetime import datetime

import pytest

from notifier.adapters.memory.presence import MemoryWitnesses
from notifier.core.access import Identity
from notifier.core.names import GATEWAYS
from notifier.core.presence import MOST_SHOWN, WHO, Presence
from notifier.core.signals import Kind, Signal
from tests.support.gateways import House, served
from tests.support.streams import polled


async def asked(house: House, *users: str, detailed: bool = False) -> Presence:
    # The gateway hears orders of a topic that it follows; without `control` it follows this one.
    await house.broker.subscribe([GATEWAYS])
    return await house.witnesses.ask(list(users), detailed=detailed)


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


async def test_who_follows_the_personal_topic_of_another_is_not_that_user() -> None:
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

        assert await MemoryWitnesses(it.broker).ask(["42"]) == Presence(
            {"42": 0}, [], complete=False
        )
