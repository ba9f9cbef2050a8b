"""The promises of all marks (`notifier.core.ports.Marks`).

To add an adapter: write a Backend for it below, and name it in `backend`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from itertools import count
from typing import Protocol

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from notifier.adapters.memory.broker import MemoryBroker, MemoryStreams
from notifier.adapters.memory.marks import MemoryMarks
from notifier.adapters.redis.broker import RedisBroker
from notifier.adapters.redis.marks import RedisMarks
from notifier.core.errors import Invalid, NotifierError, TooMany
from notifier.core.history import Before, History, Published
from notifier.core.marks import MOST_SINGLES, MOST_TOPICS, UNMARKED, Mark, Move
from notifier.core.ports import Broker, Marks
from notifier.core.positions import Position
from notifier.core.publications import NewPublication
from notifier.core.signals import Kind, Signal
from notifier.telemetry.metrics import Metrics
from tests.support.backends import on_each
from tests.support.brokers import record
from tests.support.listening import Listening

_NAMES = count()


class Backend(Protocol):
    """Where marks and streams are kept."""

    def gateway(self) -> AbstractAsyncContextManager[tuple[Broker, Marks]]:
        """Make one more of both, as another gateway would."""


class MemoryBackend:
    def __init__(self, _: pytest.FixtureRequest) -> None:
        self._streams = MemoryStreams()
        self._kept: dict[str, dict[str, Mark]] = {}

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[tuple[Broker, Marks]]:
        broker = MemoryBroker(self._streams)
        yield broker, MemoryMarks(broker, self._kept)


class RedisBackend:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._url = request.getfixturevalue("redis_url")

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[tuple[Broker, Marks]]:
        metrics = Metrics()
        async with (
            RedisBroker(self._url, metrics=metrics) as broker,
            RedisMarks(self._url, metrics=metrics) as marks,
        ):
            yield broker, marks


backend = on_each(memory=MemoryBackend, redis=RedisBackend)


async def publish(broker: Broker, topic: str, number: int) -> list[Position]:
    news = [NewPublication(topic, f"{next(_NAMES):032x}", record("x")) for _ in range(number)]
    answers = await broker.publish(news)
    return [answer.position for answer in answers if isinstance(answer, Published)]


async def moved(marks: Marks, move: Move) -> Mark | NotifierError:
    [answer] = await marks.move([move])
    return answer


async def test_a_mark_moves_forward_and_never_back(backend: Backend) -> None:
    async with backend.gateway() as (broker, marks):
        at = await publish(broker, "user:42", 5)

        await moved(marks, Move("42", "user:42", read=at[2], received=at[3]))
        after = await moved(marks, Move("42", "user:42", read=at[1], received=at[0]))

    assert after == Mark(at[0].epoch, read=3, received=4)


async def test_single_ones_stay_above_and_are_folded_in_when_they_touch(backend: Backend) -> None:
    async with backend.gateway() as (broker, marks):
        at = await publish(broker, "user:42", 6)

        apart = await moved(marks, Move("42", "user:42", read_only=(at[4], at[2], at[4])))
        touching = await moved(marks, Move("42", "user:42", read=at[1]))

    assert apart == Mark(at[0].epoch, singles=(3, 5))
    assert touching == Mark(at[0].epoch, read=3, singles=(5,))


async def test_every_gateway_knows_the_marks_of_each_user_and_topic(backend: Backend) -> None:
    async with backend.gateway() as (broker, marks), backend.gateway() as (_, others):
        own = await publish(broker, "user:42", 2)
        all_ = await publish(broker, "everyone", 2)
        answers = await marks.move(
            [
                Move("42", "user:42", read=own[0]),
                Move("42", "everyone", received=all_[1]),
                Move("43", "everyone", read=all_[0]),
            ]
        )

        told = await others.of(["42", "43", "44"])

    assert told == [{"user:42": answers[0], "everyone": answers[1]}, {"everyone": answers[2]}, {}]


async def test_hundreds_of_moves_and_users_at_once_are_answered_in_order(backend: Backend) -> None:
    async with backend.gateway() as (broker, marks):
        [at] = await publish(broker, "everyone", 1)
        users = [f"u{number}" for number in range(600)]

        answers = await marks.move([Move(user, "everyone", read=at) for user in users])
        told = await marks.of(users)

    assert answers == [Mark(at.epoch, 1)] * 600
    assert told == [{"everyone": Mark(at.epoch, 1)}] * 600


async def test_a_position_that_the_stream_does_not_have_is_refused(backend: Backend) -> None:
    async with backend.gateway() as (broker, marks):
        [at] = await publish(broker, "user:42", 1)
        good = Move("42", "user:42", received=at)
        forged = [
            Move("42", "user:42", read=at._replace(offset=2)),
            Move("42", "user:42", received=at._replace(offset=10**15)),
            Move("42", "user:42", read_only=(at, at._replace(epoch="other"))),
            Move("42", "never", read=at),
        ]

        first, *refusals, last = await marks.move([good, *forged, good])

        assert [each.field for each in refusals if isinstance(each, Invalid)] == [
            *("read", "received", "read_only[1]", "read"),
        ]
        assert first == last == Mark(at.epoch, received=1)
        assert await marks.of(["42"]) == [{"user:42": first}]
        [untouched] = await broker.read([Before("never")])
    assert untouched.head.offset == 0


async def test_only_so_many_single_ones_are_kept(backend: Backend) -> None:
    async with backend.gateway() as (broker, marks):
        at = await publish(broker, "user:42", 2 * MOST_SINGLES + 4)
        every_other = tuple(at[1::2])

        most = await moved(marks, Move("42", "user:42", read_only=every_other[:MOST_SINGLES]))
        over = await moved(marks, Move("42", "user:42", read_only=every_other[MOST_SINGLES:]))
        kept = await marks.of(["42"])

    assert isinstance(over, TooMany)
    assert kept == [{"user:42": most}]


async def test_a_user_has_marks_in_so_many_topics_and_moves_those_on(backend: Backend) -> None:
    topics = [f"room:{number}" for number in range(MOST_TOPICS + 1)]
    async with backend.gateway() as (broker, marks):
        at = [(await publish(broker, topic, 2))[-1] for topic in topics]
        moves = [Move("42", t, read=p) for t, p in zip(topics, at, strict=True)]

        answers = await marks.move([*moves, moves[0]])

    assert [isinstance(each, TooMany) for each in answers[-3:]] == [False, True, False]


async def test_reading_is_told_to_the_users_gateways_and_receiving_is_not(
    backend: Backend,
) -> None:
    async with backend.gateway() as (broker, marks), backend.gateway() as (other, _):
        at = await publish(broker, "everyone", 3)
        listening = Listening()
        other.listen(listening)
        await other.subscribe(["user:42"])

        await marks.move(
            [
                Move("42", "everyone", received=at[2]),
                Move("42", "everyone", read=at[0]),
                Move("42", "everyone", read=at[0]),  # says nothing new
                Move("42", "everyone", read_only=(at[2],)),
            ]
        )
        await other.signal([Signal("user:42", Kind.ORDER, "end")])

        told = [await listening.next_signal() for _ in range(3)]
    order = Signal("user:42", Kind.ORDER, "marks", b"everyone")
    assert told == [order, order, Signal("user:42", Kind.ORDER, "end")]


# Against the pure rule, in any order of events.

_STORIES = st.lists(
    st.one_of(
        st.just("publish"),
        # Another process of the broker's: its epoch continues the former one, without the newest.
        st.sampled_from(["restart 0", "restart 1", "restart 2"]),
        st.tuples(
            st.sampled_from(["read", "received", "single"]),
            st.integers(-1, 4),  # how far behind the newest event of its epoch
            st.integers(0, 2),  # which epoch, counted back from the newest
        ),
    ),
    max_size=25,
)


@pytest.mark.services
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=_STORIES)
@example(story=[("read", 0, 0), ("received", 0, 0), "restart 2", ("single", 1, 0)])
@example(story=[("single", 0, 0), ("single", 2, 0), "restart 1", ("received", 0, 0), "publish"])
def test_redis_moves_marks_as_the_rule_says(redis_url: str, story: list[object]) -> None:
    asyncio.run(_compare(redis_url, story))


async def _compare(url: str, story: list[object]) -> None:
    user = f"u{next(_NAMES)}"
    topic = f"user:{user}"
    backend = (RedisBroker(url, metrics=Metrics()), RedisMarks(url, metrics=Metrics()))
    async with backend[0] as broker, backend[1] as marks:
        heads = [(await publish(broker, topic, 5))[-1]]  # the newest that was seen of each epoch
        expected = UNMARKED
        for step in story:
            if step == "publish":
                heads[-1:] = await publish(broker, topic, 1)
            elif isinstance(step, str):
                [history] = await broker.read([Before(topic)])
                _replace_process(url, history.head.offset, topic, int(step[-1]))
                [history] = await broker.read([Before(topic)])
                heads.append(history.head)
            else:
                move = _move(user, topic, heads, step)
                [history] = await broker.read([Before(topic)])
                ruled = _ruled(expected, move, history)
                expected = ruled if isinstance(ruled, Mark) else expected
                assert str(await moved(marks, move)) == str(ruled)
        assert await marks.of([user]) == [{topic: expected} if expected != UNMARKED else {}]


def _ruled(mark: Mark, move: Move, history: History) -> Mark | NotifierError:
    try:
        return mark.moved(move, history)
    except NotifierError as error:
        return error


def _replace_process(url: str, offset: int, topic: str, lost: int) -> None:
    head, log = f"notifier:{{{topic}}}:head", f"notifier:{{{topic}}}:log"
    kept = max(offset - lost, 1)
    with closing(redis.Redis.from_url(url)) as client:
        client.hset(head, mapping={"run": "a former process", "offset": str(kept)})
        client.xdel(log, *(f"{each}-0" for each in range(kept + 1, offset + 2)))
        client.execute_command("XSETID", log, f"{kept}-0")  # type: ignore[no-untyped-call]  # redis-py has no verb for it


def _move(user: str, topic: str, heads: list[Position], step: object) -> Move:
    assert isinstance(step, tuple)
    kind, behind, back = step
    head = heads[-1 - min(back, len(heads) - 1)]
    position = head._replace(offset=max(head.offset - behind, 0))
    match kind:
        case "read":
            return Move(user, topic, read=position)
        case "received":
            return Move(user, topic, received=position)
        case _:
            return Move(user, topic, read_only=(position,))
