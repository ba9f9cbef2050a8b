"""The promises of every broker (`notifier.core.ports.Broker`).

To add an adapter: write a Backend for it below, and name it in `backend`.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol
from uuid import uuid4

import pytest
import redis

from notifier.adapters.memory.broker import MemoryBroker, MemoryStreams
from notifier.adapters.redis.broker import RedisBroker
from notifier.core.events import SILENT
from notifier.core.history import PAGE, Before, History, Published, Since
from notifier.core.ports import Broker
from notifier.core.positions import NOWHERE, Position
from notifier.core.publications import NewPublication
from notifier.core.recovery import missed
from notifier.core.signals import Kind, Signal
from notifier.telemetry.metrics import Metrics
from tests.support.backends import on_each
from tests.support.brokers import record
from tests.support.listening import Listening


class Backend(Protocol):
    """Where streams are kept."""

    def broker(
        self, *, history_size: int = 100, inbox_size: int = 100, deduplication_seconds: int = 60
    ) -> AbstractAsyncContextManager[Broker]:
        """Make one more broker, as another process would; all see the same streams."""

    def lose(self) -> None:
        """Lose all streams."""


class MemoryBackend:
    def __init__(self, _: pytest.FixtureRequest) -> None:
        self._streams = MemoryStreams()
        self.lose = self._streams.lose

    def broker(
        self, *, history_size: int = 100, inbox_size: int = 100, deduplication_seconds: int = 60
    ) -> AbstractAsyncContextManager[Broker]:
        return nullcontext(
            MemoryBroker(
                self._streams,
                history_size=history_size,
                inbox_size=inbox_size,
                deduplication_seconds=deduplication_seconds,
            )
        )


class RedisBackend:
    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._url = request.getfixturevalue("redis_url")

    def broker(
        self, *, history_size: int = 100, inbox_size: int = 100, deduplication_seconds: int = 60
    ) -> AbstractAsyncContextManager[Broker]:
        return RedisBroker(
            self._url,
            metrics=Metrics(),
            history_size=history_size,
            inbox_size=inbox_size,
            deduplication_seconds=deduplication_seconds,
        )

    def lose(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            client.flushdb()


backend = on_each(memory=MemoryBackend, redis=RedisBackend)


def new(
    topic: str, name: str = "x", *, key: str | None = None, collapse_key: str = ""
) -> NewPublication:
    text = record(name, collapse_key=collapse_key)
    return NewPublication(topic, key or uuid4().hex, text, collapse_key)


async def publish(broker: Broker, *batch: NewPublication) -> list[Published]:
    answers = await broker.publish(batch)
    published = [answer for answer in answers if isinstance(answer, Published)]
    assert len(published) == len(batch), answers
    return published


async def test_reading_can_leave_a_topic_without_a_stream(backend: Backend) -> None:
    async with backend.broker() as broker:
        answers = await broker.read([Since("never", 0, begins=False)] * 2)

    assert answers == [History(NOWHERE)] * 2


async def test_an_empty_answer_does_not_hide_later_publications(backend: Backend) -> None:
    async with backend.broker() as broker:
        [before] = await broker.read([Since("never", 0, begins=False)])
        await publish(broker, new("never"))
        [after] = await broker.read([Since("never", 0, begins=False)])

    assert after.head.offset == 1
    assert missed(before.head, after) == "restarted"


async def test_an_existing_stream_is_read_without_beginning_one(backend: Backend) -> None:
    async with backend.broker() as broker:
        await publish(broker, new("news"), new("news"))

        [asked] = await broker.read([Since("news", 1, begins=False)])

        known = await history(broker, "news", 1)
    assert asked.head == known.head
    assert [p.position for p in asked.publications] == [p.position for p in known.publications]


async def test_all_processes_have_one_clock(backend: Backend) -> None:
    async with backend.broker() as one, backend.broker() as other:
        await one.read([Since("a")])
        await other.read([Since("a")])

        assert one.now() == pytest.approx(other.now(), abs=5)
        assert one.now() == pytest.approx(time.time(), abs=5)  # as all run on one machine here


def typing(topic: str, number: int = 0) -> Signal:
    return Signal(topic, Kind.FRAME, "typing", b'{"type":"typing","at":"%d:0:"}\n' % number)


async def test_signals_reach_the_followers_of_their_topic_on_any_process(backend: Backend) -> None:
    async with backend.broker() as broker, backend.broker() as other:
        heard = [await follow(broker, "news"), await follow(other, "news")]
        order = Signal("news", Kind.ORDER, "disconnect")

        sent = [typing("sales"), *(typing("news", n) for n in range(600)), order]
        answers = await broker.signal(sent)

        assert answers == [None] * len(sent)
        for listening in heard:
            told = [await listening.next_signal() for _ in range(601)]
            assert told == [*(typing("news", n) for n in range(600)), order]


async def test_a_signal_has_no_position_and_no_history(backend: Backend) -> None:
    async with backend.broker() as broker:
        [before] = await publish(broker, new("news"))

        await broker.signal([typing("news"), typing("never")])

        assert (await history(broker, "news", 0)).head == before.position
        assert await broker.read([Since("never", 0, begins=False)]) == [History(NOWHERE)]


async def follow(broker: Broker, *topics: str) -> Listening:
    listening = Listening()
    broker.listen(listening)
    await broker.subscribe(topics)
    return listening


async def history(broker: Broker, topic: str, offset: int | None = None) -> History:
    [answer] = await broker.read([Since(topic, offset)])
    return answer


def offsets(answers: Sequence[Published]) -> list[int]:
    return [answer.position.offset for answer in answers]


async def test_offsets_of_a_topic_count_from_one(backend: Backend) -> None:
    async with backend.broker() as broker:
        first, second = await publish(broker, new("news"), new("news"))
        [third] = await publish(broker, new("news"))

    assert offsets([first, second, third]) == [1, 2, 3]
    assert {answer.position.epoch for answer in (first, second, third)} == {first.position.epoch}


async def test_each_topic_has_a_stream_of_its_own(backend: Backend) -> None:
    async with backend.broker() as broker:
        answers = await publish(broker, new("news"), new("user:42"), new("news"))

        heads = await broker.read([Since("news"), Since("user:42")])

    assert offsets(answers) == [1, 1, 2]
    assert [each.head.offset for each in heads] == [2, 1]


async def test_an_empty_batch_has_an_empty_answer(backend: Backend) -> None:
    async with backend.broker() as broker:
        assert await broker.publish([]) == []
        assert await broker.read([]) == []


async def test_a_batch_is_published_in_its_order_however_long(backend: Backend) -> None:
    names = [f"event-{number}" for number in range(1_200)]
    async with backend.broker(history_size=2_000) as broker:
        listening = await follow(broker, "news")

        answers = await publish(broker, *(new("news", name) for name in names))

        assert offsets(answers) == list(range(1, 1_201))
        assert await listening.next_events(1_200) == [b'{"id":"%s"}' % n.encode() for n in names]


async def test_a_duplicate_is_dropped_and_answered_as_one(backend: Backend) -> None:
    async with backend.broker() as broker:
        listening = await follow(broker, "news")

        first, again, other = await publish(
            broker, new("news", "a", key="a"), new("news", "a", key="a"), new("news", "b")
        )
        [later] = await publish(broker, new("news", "a", key="a"))

        assert [each.duplicate for each in (first, again, other, later)] == [
            *(False, True),
            *(False, True),
        ]
        assert later.position == other.position
        assert await listening.next_events(2) == [b'{"id":"a"}', b'{"id":"b"}']


async def test_the_same_key_in_another_topic_is_no_duplicate(backend: Backend) -> None:
    async with backend.broker() as broker:
        answers = await publish(broker, new("news", key="a"), new("sales", key="a"))

    assert [answer.duplicate for answer in answers] == [False, False]


async def test_a_key_is_forgotten_after_the_deduplication_window(backend: Backend) -> None:
    async with backend.broker(deduplication_seconds=1) as broker, asyncio.timeout(10):
        await publish(broker, new("news", key="a"))

        [answer] = await publish(broker, new("news", key="a"))
        assert answer.duplicate
        while answer.duplicate:
            [answer] = await publish(broker, new("news", key="a"))
            await asyncio.sleep(0)  # a broker need not suspend, but the deadline has to

        assert answer.position.offset == 2


async def test_a_broker_tells_when_it_took_each_publication(backend: Backend) -> None:
    keys = [f"{number:032x}" for number in range(600)]  # so many that Redis spreads them
    async with backend.broker(history_size=1) as broker, backend.broker() as other:
        await publish(broker, *(new("news", key=key) for key in keys))

        moments = [(await other.published_at(["news"], key))[0] for key in keys[::50]]
        elsewhere = await other.published_at(["never", "news", "never"], keys[0])
        unknown = await other.published_at(["news"], "f" * 32)
        unwritten = await broker.read([Since("never", begins=False)])

    assert moments == [pytest.approx(time.time(), abs=60)] * 12
    assert elsewhere == [None, pytest.approx(moments[0], abs=1), None]
    assert unknown == [None]
    assert unwritten == [History(NOWHERE)]


async def test_of_two_brokers_that_publish_the_same_at_once_one_gets_a_duplicate(
    backend: Backend,
) -> None:
    batch = [new("news", key=f"key-{number}") for number in range(100)]
    async with backend.broker() as one, backend.broker() as other:
        ours, theirs = await asyncio.gather(publish(one, *batch), publish(other, *batch))

    for answer, twin in zip(ours, theirs, strict=True):
        assert {answer.duplicate, twin.duplicate} == {True, False}
    taken = [answer.position.offset for answer in (*ours, *theirs) if not answer.duplicate]
    assert sorted(taken) == list(range(1, 101))


async def test_many_publishers_on_two_brokers_leave_no_holes(backend: Backend) -> None:
    async with backend.broker() as one, backend.broker() as other:
        answers = await asyncio.gather(
            *(
                publish(broker, new("news"), new("news"))
                for _ in range(25)
                for broker in (one, other)
            )
        )

    assert sorted(offset for pair in answers for offset in offsets(pair)) == list(range(1, 101))
    for pair in answers:
        assert offsets(pair) == sorted(offsets(pair))


async def test_a_follower_gets_all_publications_after_follow_returned(
    backend: Backend,
) -> None:
    topics = [f"topic-{number}" for number in range(40)]
    async with backend.broker() as broker, backend.broker() as publisher:
        listening = await follow(broker)
        for topic in topics:
            await broker.subscribe([topic])

            await publish(publisher, new(topic, topic))

            assert (await listening.next()).topic == topic


async def test_a_follower_gets_the_publication_as_it_was_published(backend: Backend) -> None:
    text = '1700000000123:1700000060000:price:eur\n{"id":"a:b","data":"é\\n"}'.encode()
    async with backend.broker() as broker:
        listening = await follow(broker, "user:ann@example.org")

        [answer] = await publish(broker, NewPublication("user:ann@example.org", "k", text))

        heard = await listening.next()
        [kept] = (await history(broker, "user:ann@example.org", 0)).publications
        for publication in (heard, kept):
            assert publication.topic == "user:ann@example.org"
            assert publication.position == answer.position
            assert publication.accepted == 1_700_000_000_123
            assert publication.expires == 1_700_000_060_000
            assert publication.collapse_key == b"price:eur"
            assert publication.event == '{"id":"a:b","data":"é\\n"}'.encode()


async def test_followers_on_all_brokers_hear_a_publication(backend: Backend) -> None:
    async with backend.broker() as one, backend.broker() as other, backend.broker() as publisher:
        ears = await follow(one, "news"), await follow(other, "news")

        await publish(publisher, new("news", "a"), new("news", "b"))

        for listening in ears:
            assert await listening.next_events(2) == [b'{"id":"a"}', b'{"id":"b"}']


async def test_a_topic_that_is_not_followed_is_silent(backend: Backend) -> None:
    async with backend.broker() as broker:
        listening = await follow(broker, "sales")

        await publish(broker, new("news", "a"), new("sales", "b"))

        assert await listening.next_events(1) == [b'{"id":"b"}']


async def test_following_twice_delivers_no_duplicate(backend: Backend) -> None:
    async with backend.broker() as broker:
        listening = await follow(broker, "news", "news")
        await broker.subscribe(["news"])

        await publish(broker, new("news", "a"), new("news", "b"))

        assert await listening.next_events(2) == [b'{"id":"a"}', b'{"id":"b"}']


async def test_an_unfollowed_topic_is_in_the_end_silent(backend: Backend) -> None:
    async with backend.broker() as broker, asyncio.timeout(10):
        listening = await follow(broker, "news", "sales")

        await broker.unsubscribe(["news", "unknown"])

        heard = {"news"}
        while "news" in heard:
            await publish(broker, new("news"), new("sales"))
            heard = set()
            while "sales" not in heard:
                heard.add((await listening.next()).topic)
            await asyncio.sleep(0)  # a broker need not suspend, but the deadline has to


async def test_a_topic_unfollowed_and_followed_again_is_delivered(backend: Backend) -> None:
    async with backend.broker() as broker:
        listening = await follow(broker, "news")
        for number in range(20):
            await broker.unsubscribe(["news"])
            await broker.subscribe([f"topic-{each}" for each in range(number // 2 * 5)])
            await broker.subscribe(["news"])

            await publish(broker, new("news", str(number)))

            assert await listening.next_events(1) == [b'{"id":"%d"}' % number]


async def test_history_is_read_behind_an_offset(backend: Backend) -> None:
    async with backend.broker() as broker:
        answers = await publish(broker, *(new("news", str(number)) for number in range(5)))

        told = await history(broker, "news", 2)

    assert told.head == answers[-1].position
    assert [p.position for p in told.publications] == [a.position for a in answers[2:]]
    assert [p.event for p in told.publications] == [b'{"id":"2"}', b'{"id":"3"}', b'{"id":"4"}']


async def test_history_behind_the_head_is_empty(backend: Backend) -> None:
    async with backend.broker() as broker:
        [answer] = await publish(broker, new("news"))

        at_the_head = await history(broker, "news", 1)
        far_ahead = await history(broker, "news", 10**15)
        only_the_head = await history(broker, "news")

    for told in (at_the_head, far_ahead, only_the_head):
        assert (told.head, list(told.publications)) == (answer.position, [])


async def test_history_comes_in_pages(backend: Backend) -> None:
    async with backend.broker(history_size=2 * PAGE) as broker:
        await publish(broker, *(new("news") for _ in range(PAGE + 10)))

        first = await history(broker, "news", 0)
        second = await history(broker, "news", PAGE)

    assert [p.position.offset for p in first.publications] == list(range(1, PAGE + 1))
    assert [p.position.offset for p in second.publications] == list(range(PAGE + 1, PAGE + 11))


async def test_trimmed_history_starts_later_than_asked(backend: Backend) -> None:
    async with backend.broker(history_size=3) as broker:
        await publish(broker, *(new("news") for _ in range(5)))

        told = await history(broker, "news", 0)

    assert [p.position.offset for p in told.publications] == [3, 4, 5]


async def test_history_knows_the_newest_of_each_collapse_key_beyond_the_page(
    backend: Backend,
) -> None:
    async with backend.broker(history_size=2 * PAGE) as broker:
        await publish(
            broker,
            new("news", collapse_key="a"),
            new("news", collapse_key="b"),
            *(new("news") for _ in range(PAGE)),
            new("news", collapse_key="a"),
        )

        told = await history(broker, "news", 0)

    assert {key: told.newest[key] for key in (b"a", b"b")} == {b"a": PAGE + 3, b"b": 2}


async def before(broker: Broker, topic: str, *of: int | None) -> list[int]:
    [answer] = await broker.read([Before(topic, *of)])  # type: ignore[arg-type]  # as they come
    return [p.position.offset for p in answer.publications]


async def test_history_is_read_backwards_the_oldest_first_in_each_answer(backend: Backend) -> None:
    async with backend.broker(history_size=2 * PAGE) as broker:
        await publish(broker, *(new("news") for _ in range(PAGE + 10)))

        assert await before(broker, "news") == list(range(11, PAGE + 11))
        assert await before(broker, "news", 11) == list(range(1, 11))
        assert await before(broker, "news", 11, 0, 3) == [8, 9, 10]
        assert await before(broker, "news", 11, 8, 20) == [9, 10]
        assert await before(broker, "news", None, PAGE + 8) == [PAGE + 9, PAGE + 10]
        assert await before(broker, "news", 1) == []
        assert await before(broker, "news", 0) == []
        assert await before(broker, "news", 10**16 - 1) == list(range(11, PAGE + 11))
        assert await before(broker, "news", None, 10**16 - 1) == []
        assert (await history(broker, "news", 10**16 - 1)).publications == []
        assert broker.trouble is None


async def test_reading_backwards_knows_the_head_and_the_newest_of_each_collapse_key(
    backend: Backend,
) -> None:
    async with backend.broker() as broker:
        *_, last = await publish(broker, *(new("news", collapse_key="a") for _ in range(3)))

        [told] = await broker.read([Before("news", 2)])

    assert (told.head, told.newest) == (last.position, {b"a": 3})


async def test_reading_backwards_begins_no_stream(backend: Backend) -> None:
    async with backend.broker() as broker:
        assert await broker.read([Before("never"), Before("user:42")]) == [History(NOWHERE)] * 2


async def test_the_beginnings_of_events_say_whether_they_count(backend: Backend) -> None:
    loud, silent = b'{"specversion":"1.0","data":', SILENT + b'"data":'
    records = [b"7:9:a:b\n" + each + b'"%s"}' % (1_000 * b"x") for each in (loud, silent)]
    async with backend.broker() as broker:
        await publish(broker, *(NewPublication("news", uuid4().hex, r, "a:b") for r in records))

        [told] = await broker.read([Before("news", beginning=len(SILENT))])

    assert [
        (p.position.offset, p.expires, p.collapse_key, p.silent) for p in told.publications
    ] == [
        (1, 9, b"a:b", False),
        (2, 9, b"a:b", True),
    ]
    assert told.newest == {b"a:b": 2}


async def test_a_personal_topic_keeps_as_much_as_an_inbox(backend: Backend) -> None:
    async with backend.broker(history_size=2, inbox_size=4) as broker:
        await publish(broker, *(new(t) for t in ("user:42", "news") for _ in range(9)))

        assert await before(broker, "user:42") == [6, 7, 8, 9]
        assert await before(broker, "news") == [8, 9]


async def test_an_epoch_ends_when_the_stream_has_less_than_was_seen(backend: Backend) -> None:
    async with backend.broker() as broker:
        [published] = await publish(broker, new("news"))
        beyond = published.position._replace(offset=2)

        [told] = await broker.read([Since("news", 1, seen=beyond)])
        [again] = await broker.read([Since("news", 1)])

    assert told.head.epoch != published.position.epoch
    assert (told.lineage, told.head) == ({}, again.head)


async def test_many_questions_are_answered_in_their_order(backend: Backend) -> None:
    topics = [f"topic-{number}" for number in range(700)]
    async with backend.broker() as broker:
        published = await publish(broker, *(new(topic) for topic in topics))

        answers = await broker.read([Since(topic, 0) for topic in topics])

    assert [each.head for each in answers] == [each.position for each in published]
    assert [each.publications[0].topic for each in answers] == topics


async def test_reading_begins_the_stream_of_an_unknown_topic(backend: Backend) -> None:
    async with backend.broker() as broker, backend.broker() as other:
        begun = await history(broker, "news", 0)

        again = await history(other, "news")
        [published] = await publish(other, new("news"))

    assert begun == History(Position(begun.head.epoch, 0), [])
    assert again.head == begun.head
    assert published.position == Position(begun.head.epoch, 1)


async def test_epochs_can_be_written_as_positions(backend: Backend) -> None:
    async with backend.broker() as broker:
        head = (await history(broker, "news")).head

    assert Position.parse(str(head)) == head


async def test_a_lost_stream_begins_anew_under_another_epoch(backend: Backend) -> None:
    async with backend.broker() as broker:
        listening = await follow(broker, "news")
        before, _ = await publish(broker, new("news", key="a"), new("news"))

        backend.lose()
        [after] = await publish(broker, new("news", key="a"))

        assert after.position.epoch != before.position.epoch
        assert (after.position.offset, after.duplicate) == (1, False)
        told = await history(broker, "news", 0)
        assert [p.position for p in told.publications] == [after.position]
        heard = [await listening.next() for _ in range(3)]
        assert heard[-1].position == after.position


async def test_a_broker_at_work_has_no_trouble(backend: Backend) -> None:
    async with backend.broker() as broker:
        await follow(broker, "news")
        await publish(broker, new("news"))

        assert broker.trouble is None
