import asyncio
import json
import time

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from notifier.core.entries import Entry
from notifier.router import publisher
from notifier.router.order import CHUNK, LARGE, MOST_AUDIENCES
from tests.support.batches import BAD, MANY, House, Settled, Taken, event
from tests.support.clock import in_virtual_time, quiet


@pytest.fixture(autouse=True)
def _turns_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make turns of the loop the same on any machine: they are measured in real time."""
    monkeypatch.setattr(publisher, "_TURN", 60.0)


@in_virtual_time
async def test_an_event_for_many_is_published_in_several_goes_and_acked_once() -> None:
    batch = Settled(event("1", *MANY))
    it = House()

    await it.router.route(batch)

    assert [topic for topic, _ in it.published] == [f"user:{user}" for user in MANY]
    assert it.broker.attempts == len(MANY) / CHUNK
    assert batch.acks == 1
    assert it.count("publications", outcome="published") == len(MANY)


@in_virtual_time
async def test_of_a_large_audience_the_next_are_sent_while_the_first_are_being_answered() -> None:
    batch = Settled(event("1", *MANY))
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    first, second = await it.broker.asked(), await it.broker.asked()
    await quiet()
    waiting = len(it.broker.calls)

    second.answer()
    third = await it.broker.asked()
    first.answer()
    third.answer()
    it.broker.release()
    await routing

    assert waiting == 0  # no more than two are under way
    assert len(it.published) == len(MANY)
    assert batch.acks == 1


@in_virtual_time
async def test_a_publication_waits_for_an_earlier_one_of_its_topic() -> None:
    users = [str(number) for number in range(CHUNK)]
    batch = Settled(event("1", *users), event("2", "7"))
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    first = await it.broker.asked()
    await quiet()
    waiting = len(it.broker.calls)

    first.answer()
    (await it.broker.asked()).answer()
    await routing

    assert waiting == 0
    assert [name for topic, name in it.published if topic == "user:7"] == ["1", "2"]


@in_virtual_time
async def test_large_records_go_in_chunks_of_a_megabyte() -> None:
    large = [
        {"type": "t", "id": str(number), "users": ["42"], "data": "x" * 60_000}
        for number in range(40)
    ]
    batch = Settled(*(Entry(json.dumps(each).encode()) for each in large))
    it = House()

    await it.router.route(batch)

    assert [name for _, name in it.published] == [str(number) for number in range(40)]
    assert it.broker.attempts == 3


@in_virtual_time
async def test_a_large_record_for_many_goes_in_chunks_of_a_megabyte() -> None:
    body = {"type": "t", "id": "1", "users": MANY, "data": "x" * 60_000}
    it = House()

    await it.router.route(Settled(Entry(json.dumps(body).encode())))

    assert len(it.published) == len(MANY)
    assert it.broker.attempts == -(-len(MANY) // 18)


@in_virtual_time
async def test_others_get_turns_while_costly_deliveries_are_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher, "_TURN", 0.0)
    batch = Settled(*[BAD] * 64)
    it = House()
    routing = asyncio.create_task(it.router.route(batch))

    turns = 0
    while not batch.dead:
        await asyncio.sleep(0)
        turns += 1

    await routing
    assert turns >= 64


@in_virtual_time
async def test_a_router_that_is_cancelled_among_costly_deliveries_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher, "_TURN", 0.0)
    batch = Settled(*[BAD] * 64)
    routing = asyncio.create_task(House().router.route(batch))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    routing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await routing
    assert (batch.dead, batch.acks) == ([], 0)


# Large audiences, and the events behind them.


@in_virtual_time
async def test_events_behind_a_large_audience_do_not_wait_for_it() -> None:
    batch, next_batch = Settled(event("1", *MANY), event("2", "x")), Settled(event("3", "y"))
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    audience = [await it.broker.asked(), await it.broker.asked()]
    (await it.broker.asked()).answer()
    await quiet()
    allows_next = batch.allows_next

    following = asyncio.create_task(it.router.route(next_batch))
    (await it.broker.asked()).answer()
    await following
    before = (it.published, batch.acks, next_batch.acks)
    for chunk in audience:
        chunk.answer()
    it.broker.release()
    await routing

    assert allows_next
    assert before == ([("user:x", "2"), ("user:y", "3")], 0, 1)
    assert batch.acks == 1
    assert len(it.published) == len(MANY) + 2


@in_virtual_time
async def test_events_before_a_large_audience_are_published_before_it() -> None:
    batch = Settled(event("1", MANY[-1]), event("2", *MANY))
    it = House()

    await it.router.route(batch)

    assert [name for topic, name in it.published if topic == f"user:{MANY[-1]}"] == ["1", "2"]


@in_virtual_time
async def test_an_event_for_one_of_the_audience_takes_that_ones_publication_along() -> None:
    user = MANY[-1]
    batch = Settled(event("1", *MANY), event("2", user))
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    await it.broker.asked()
    await it.broker.asked()

    (await it.broker.asked()).answer()

    assert it.published == [(f"user:{user}", "1"), (f"user:{user}", "2")]
    routing.cancel()


@in_virtual_time
async def test_an_audience_is_acked_only_when_publications_taken_along_are_published_too() -> None:
    batch, next_batch = Settled(event("1", *MANY)), Settled(event("2", MANY[-1]))
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    audience = [await it.broker.asked(), await it.broker.asked()]
    following = asyncio.create_task(it.router.route(next_batch))
    taken_along = await it.broker.asked()

    for chunk in audience:
        chunk.answer()
    it.broker.release()
    await quiet()
    before = (len(it.published), batch.acks)
    taken_along.answer()
    await asyncio.gather(routing, following)

    assert before == (len(MANY) - 1, 0)
    assert (len(it.published), batch.acks, next_batch.acks) == (len(MANY) + 1, 1, 1)


@in_virtual_time
async def test_a_refusal_of_a_publication_taken_along_is_the_audiences() -> None:
    user = MANY[-1]
    batch, next_batch = Settled(event("1", *MANY)), Settled(event("2", user))
    it = House()
    it.broker.refused_topics = {f"user:{user}"}
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    await quiet()
    following = asyncio.create_task(it.router.route(next_batch))
    await quiet()

    it.broker.release()
    await asyncio.gather(routing, following)

    assert [json.loads(body)["id"] for body, _, _ in batch.dead + next_batch.dead] == ["1", "2"]
    assert (len(batch.dead), len(next_batch.dead)) == (1, 1)


@in_virtual_time
async def test_no_more_than_a_few_audiences_wait_at_once() -> None:
    events = [event(str(number), *MANY) for number in range(MOST_AUDIENCES + 2)]
    batch, read = Settled(*events), list[bytes]()

    class Noticed(Taken):
        @property
        def entry(self) -> Entry:
            entry: Entry = self.__dict__["entry"]
            read.append(entry.body)
            return entry

        @entry.setter
        def entry(self, entry: Entry) -> None:
            self.__dict__["entry"] = entry

    batch.deliveries = [Noticed(delivery.entry) for delivery in batch.deliveries]
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    await quiet()
    before = len(read)

    it.broker.release()
    await routing

    assert (before, len(read)) == (MOST_AUDIENCES + 1, len(events))
    assert [name for topic, name in it.published if topic == "user:7"] == [
        str(number) for number in range(len(events))
    ]


@in_virtual_time
async def test_the_age_of_an_event_that_passes_an_audience_is_told_when_it_is_published() -> None:
    accepted = time.time() - 2
    entries = [
        replace(event("1", *MANY), accepted=accepted),
        replace(event("2", "x"), accepted=accepted),
    ]
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(Settled(*entries)))
    for call in [await it.broker.asked(), await it.broker.asked(), await it.broker.asked()][2:]:
        call.answer()
    await quiet()
    before = it.age("published")

    routing.cancel()

    assert before == (1, 1)


# Batches that have become another router's.


@in_virtual_time
async def test_events_that_waited_for_a_lost_batch_go_on() -> None:
    lost, kept = Settled(event("1")), Settled(event("2"))
    it = House()
    it.broker.away = True
    routing = asyncio.gather(it.router.route(lost), it.router.route(kept))
    await quiet()

    lost.lost = lost.cannot_ack = True
    it.broker.away = False
    await routing

    assert it.published == [("user:42", "2")]
    assert kept.acks == 1


@in_virtual_time
async def test_of_an_audience_that_was_lost_nothing_is_taken_along() -> None:
    lost, kept = Settled(event("1", *MANY)), Settled(event("2", MANY[-1]))
    it = House()
    it.broker.away = True
    routing = asyncio.gather(it.router.route(lost), it.router.route(kept))
    await quiet()

    lost.lost = lost.cannot_ack = True
    it.broker.away = False
    await routing

    assert it.published == [(f"user:{MANY[-1]}", "2")]


# Metrics and logs.


@in_virtual_time
async def test_a_duplicate_and_a_refused_publication_count_as_such_and_a_refusal_is_logged() -> (
    None
):
    it = House()
    await it.router.route(Settled(event("1")))
    it.broker.refused_topics = {"user:7"}

    with capture_logs() as logs:
        await it.router.route(Settled(event("1"), event("2", "7"), event("3", "8")))

    assert it.count("publications", outcome="duplicate") == 1
    assert it.count("publications", outcome="published") == 2
    assert [line["topic"] for line in logs if line["event"] == "publication_refused"] == ["user:7"]


@in_virtual_time
async def test_an_event_that_redis_fails_at_is_retried_and_never_given_up() -> None:
    it, batch = House(), Settled(event("1"), event("2", "7"), event("3", "8"))
    it.broker.failing_topics = {"user:7"}
    routing = asyncio.create_task(it.router.route(batch))
    await asyncio.sleep(60)
    held = batch.acks, list(batch.dead)
    repeated = it.broker.attempts
    it.broker.stream("user:8").seen.clear()  # the deduplication window is over

    it.broker.failing_topics = set()
    await routing

    assert held == (0, [])
    assert repeated > 5
    assert (batch.acks, batch.dead) == (1, [])
    assert it.broker.head("user:8").endswith(".1")
    assert it.count("publications", outcome="published") >= 1
    assert it.broker.head("user:7").endswith(".1")


@in_virtual_time
async def test_an_event_that_redis_answered_for_before_it_went_away_is_not_published_again() -> (
    None
):
    it, batch = House(), Settled(event("1"), event("2", "7"), event("3", "8"))
    it.broker.away_at = {"user:7"}
    routing = asyncio.create_task(it.router.route(batch))
    await asyncio.sleep(4_000)
    it.broker.stream("user:42").seen.clear()  # the deduplication window is over

    it.broker.away_at = set()
    await routing

    assert (batch.acks, batch.dead) == (1, [])
    heads = [it.broker.head(f"user:{user}") for user in ("42", "7", "8")]
    assert [head.rpartition(".")[2] for head in heads] == ["1", "1", "1"]


@in_virtual_time
async def test_the_age_of_an_audience_is_told_when_its_last_publication_is_published() -> None:
    it = House()
    it.broker.held = True
    entry = replace(event("1", *MANY), accepted=time.time() - 2)
    routing = asyncio.create_task(it.router.route(Settled(entry)))
    last = await it.broker.asked()
    it.broker.held = False
    (await it.broker.asked()).answer()
    await quiet()
    before = (it.age("taken"), it.age("published"))

    last.answer()
    await routing

    assert before == ((1, 1), (0, 0))
    assert it.age("published") == (1, 1)


@in_virtual_time
async def test_a_batch_without_a_large_audience_keeps_the_next_one_waiting() -> None:
    batch = Settled(event("1", *MANY[:LARGE]))

    await House().router.route(batch)

    assert not batch.allows_next


# Side by side.


@in_virtual_time
async def test_the_next_chunk_is_sent_while_one_is_being_answered_and_no_third() -> None:
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(Settled(event("1", *MANY[: 4 * CHUNK]))))
    await quiet()
    side_by_side = len(it.broker.calls)

    it.broker.release()
    await routing

    assert side_by_side == 2
    assert len(it.published) == 4 * CHUNK


@in_virtual_time
async def test_audiences_of_all_partitions_share_two_chunks_at_once() -> None:
    it = House()
    it.broker.held = True
    others = [f"other:{number}" for number in range(len(MANY))]
    batches = Settled(event("1", *MANY)), Settled(event("2", *others))
    routing = asyncio.gather(*map(it.router.route, batches))
    await quiet()
    side_by_side = len(it.broker.calls)

    it.broker.release()
    await routing

    assert side_by_side == 2
    assert len(it.published) == 2 * len(MANY)


@in_virtual_time
async def test_an_audience_that_is_published_makes_room_for_another_to_be_passed() -> None:
    it = House()
    for number in range(MOST_AUDIENCES):
        await it.router.route(Settled(event(str(number), *MANY)))
    it.broker.held = True
    batch = Settled(event("last", *MANY), event("behind", "x"))
    routing = asyncio.create_task(it.router.route(batch))
    await quiet()
    side_by_side = len(it.broker.calls)

    it.broker.release()
    await routing

    assert side_by_side == 3  # two of the audience, and the one behind it
