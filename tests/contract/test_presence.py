"""The promises of presence on Redis: it puts the answers of several gateways together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from notifier.adapters.redis.broker import RedisBroker
from notifier.adapters.redis.presence import RedisPresenceQueries
from notifier.core.errors import Unavailable
from notifier.core.names import GATEWAYS, personal_topic
from notifier.core.presence import Answer, Seen, question_of
from notifier.telemetry.metrics import Metrics
from tests.support.listening import Listening

pytestmark = pytest.mark.services
SEEN = Seen("one", "s1", "websocket", "2026-01-31T09:30:00.000Z", {"user:42": "k3x9.17"})


@asynccontextmanager
async def gateway(url: str, *users: str, answer: Answer | None) -> AsyncIterator[None]:
    """A gateway with these users that answers each question so; with None it hangs."""
    heard = Listening()
    async with (
        RedisBroker(url, metrics=Metrics()) as broker,
        RedisPresenceQueries(url, metrics=Metrics()) as presence_queries,
        asyncio.TaskGroup() as tasks,
    ):
        broker.listen(heard)
        await broker.subscribe([GATEWAYS, *map(personal_topic, users)])

        async def work() -> None:
            while True:
                signal = await heard.next_signal()
                question = question_of(signal.body)
                if question is not None and answer is not None:
                    await presence_queries.answer(question.id, answer)

        working = tasks.create_task(work())
        yield
        working.cancel()


@pytest.fixture
async def backend(redis_url: str) -> AsyncIterator[RedisPresenceQueries]:
    async with RedisPresenceQueries(redis_url, metrics=Metrics()) as presence_queries:
        yield presence_queries


async def test_without_gateways_nobody_is_connected(backend: RedisPresenceQueries) -> None:
    found = await backend.ask(["42", "43"])

    assert (found.counts, found.complete) == ({"42": 0, "43": 0}, True)


async def test_the_answers_of_all_gateways_are_put_together(
    backend: RedisPresenceQueries, redis_url: str
) -> None:
    async with (
        gateway(redis_url, "42", answer=Answer({"42": 1}, [SEEN])),
        gateway(redis_url, "42", "43", answer=Answer({"42": 2, "43": 1})),
        gateway(redis_url, answer=Answer({})),
    ):
        found = await backend.ask(["42", "43", "44"])
        alone = await backend.ask(["42"], detailed=True)

    assert (found.counts, found.complete) == ({"42": 3, "43": 1, "44": 0}, True)
    assert (alone.counts["42"], alone.connections, alone.complete) == (3, [SEEN], True)


async def test_a_gateway_that_hangs_is_left_out_and_that_is_said(
    backend: RedisPresenceQueries, redis_url: str
) -> None:
    async with (
        gateway(redis_url, "42", answer=Answer({"42": 1})),
        gateway(redis_url, "42", answer=None),
    ):
        found = await backend.ask(["42"])

    assert (found.counts, found.complete) == ({"42": 1}, False)


async def test_many_questions_at_once_each_get_their_own_answers(
    backend: RedisPresenceQueries, redis_url: str
) -> None:
    async with gateway(redis_url, "42", answer=Answer({"42": 1})):
        found = await asyncio.gather(*(backend.ask(["42"]) for _ in range(50)))

    assert [each.counts for each in found] == [{"42": 1}] * 50


async def test_without_redis_nothing_is_known() -> None:
    async with RedisPresenceQueries("redis://127.0.0.1:1/0", metrics=Metrics()) as presence_queries:
        with pytest.raises(Unavailable):
            await presence_queries.ask(["42"])
        with pytest.raises(Unavailable):
            await presence_queries.answer("x", Answer({}))
