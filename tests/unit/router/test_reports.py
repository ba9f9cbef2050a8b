"""Delivery reports, through a router on memory, in virtual time."""

import asyncio
import json
from typing import Any

import pytest

from notifier.core.marks import Move
from notifier.core.names import personal_topic
from notifier.core.reports import Report
from notifier.core.undelivered import Reason
from notifier.core.watched import SECONDS
from tests.support.clock import in_virtual_time
from tests.support.following import House, routing


async def post(house: House, *users: str, **more: Any) -> None:  # noqa: ANN401 - members of an event
    await house.post(*users, after=None, report=True, **more)


@in_virtual_time
async def test_each_step_of_an_event_is_reported_once_for_each_user() -> None:
    async with routing(House()) as house:
        await post(house, "1", "2")
        published = house.reports
        await house.mark("1", "received")
        await asyncio.sleep(3)
        received = house.reports
        await house.mark("1", "read")
        await house.mark("2", "read")
        await asyncio.sleep(3)
        waits = len(house.queue.waits)
        await asyncio.sleep(2 * SECONDS)

    assert published == [("1", "published"), ("2", "published")]
    assert received == [*published, ("1", "received")]
    assert house.reports == [*received, ("1", "read"), ("2", "received"), ("2", "read")]
    assert len(house.queue.waits) == waits
    assert [house.count("reports", report=each) for each in Report] == [2, 2, 2, 0, 0, 0]


@in_virtual_time
async def test_a_report_comes_before_its_event_is_twice_as_old() -> None:
    async with routing(House()) as house:
        await post(house, "42")
        await asyncio.sleep(3_000)
        await house.mark("42", "received")
        await asyncio.sleep(600)

    assert house.reports == [("42", "published"), ("42", "received")]
    waits = house.queue.waits
    assert waits == sorted(waits)
    assert set(waits) == {1, 10, 60, 600}
    age = 0.0
    for wait in waits:
        assert wait <= max(1, age + 1)
        age += wait


@in_virtual_time
async def test_an_event_that_nobody_received_in_its_time_is_reported_as_expired() -> None:
    async with routing(House()) as house:
        await post(house, "receiver", "absent", ttl=5)
        await house.mark("receiver", "received")
        await asyncio.sleep(7)
        early = house.reports
        await house.mark("absent", "read")  # too late
        await house.mark("receiver", "read")
        await asyncio.sleep(20)

    assert early[2:] == [("receiver", "received"), ("absent", "expired")]
    assert house.reports == [*early, ("receiver", "read")]


@in_virtual_time
async def test_a_superseded_event_is_reported_so_at_the_next_look_and_never_as_expired() -> None:
    async with routing(House()) as house:
        await post(house, "receiver", "absent", ttl=60, collapse_key="price")
        await house.mark("receiver", "received")
        await house.post("receiver", "absent", after=None, id="newer", collapse_key="price")
        await asyncio.sleep(2)
        early = house.reports
        await house.mark("absent", "read")  # the newer one
        await house.mark("receiver", "read")
        await asyncio.sleep(100)

    assert early[2:] == [("receiver", "received"), ("absent", "superseded")]
    assert house.reports == [*early, ("receiver", "read")]


@in_virtual_time
async def test_an_event_is_watched_for_a_day_or_as_long_as_it_lives() -> None:
    async with routing(House()) as house:
        await post(house, "day")
        await post(house, "week", id="long", ttl=7 * SECONDS)
        await asyncio.sleep(SECONDS + 700)
        waiting = {json.loads(e.body)["event"]["id"] for e in house.queue.waiting[-3:]}
        await asyncio.sleep(6 * SECONDS)

    assert waiting == {"long"}
    assert house.reports[2:] == [("week", "expired")]


@in_virtual_time
async def test_an_event_whose_stream_was_lost_is_reported_so_and_watched_no_longer() -> None:
    async with routing(House()) as house:
        await post(house, "here", "away")
        await house.mark("here", "received")
        await asyncio.sleep(2)
        house.lose()
        await asyncio.sleep(2)
        waits = len(house.queue.waits)
        await asyncio.sleep(SECONDS)

    assert len(house.queue.waits) == waits
    lost = [("here", "beyond_history"), ("away", "beyond_history")]
    assert house.reports[2:] == [("here", "received"), *lost]


@in_virtual_time
async def test_an_event_that_newer_ones_pushed_out_of_history_is_reported_so() -> None:
    async with routing(House(inbox_size=3)) as house:
        await post(house, "42")
        for number in range(3):
            await house.post("42", after=None, id=f"newer{number}")
        await asyncio.sleep(2)
        pushed = house.reports
        await house.mark("42", "read")  # of those behind it
        await asyncio.sleep(SECONDS)

    assert pushed == house.reports == [("42", "published"), ("42", "beyond_history")]


@in_virtual_time
async def test_no_report_is_lost_while_redis_and_rabbitmq_fail() -> None:
    async with routing(House()) as house:
        house.queue.failures = 3
        await post(house, "1", "2")
        house.marks.failures = 3
        await house.mark("1", "read")
        await asyncio.sleep(20)
        house.queue.failures = 2
        await house.mark("2", "received")
        await asyncio.sleep(60)

    steps = {("1", "received"), ("1", "read"), ("2", "received")}
    assert set(house.reports) == {("1", "published"), ("2", "published")} | steps
    ids = {(each.user, each.kind): each.id for each in house.queue.reports}
    assert {each.id for each in house.queue.reports} == set(ids.values())


@in_virtual_time
async def test_an_event_may_be_handed_back_and_reported() -> None:
    async with routing(House()) as house:
        await house.post("here", "away", after=10, report=True)
        await house.mark("here", "received")
        await asyncio.sleep(12)

    assert house.back == {"away": Reason.OFFLINE}
    assert house.reports[2:] == [("here", "received")]


@pytest.mark.parametrize("after", [None, 60])
@pytest.mark.parametrize("more", [{}, {"report": False}], ids=str)
@in_virtual_time
async def test_an_event_without_report_is_never_reported(
    after: float | None, more: dict[str, Any]
) -> None:
    async with routing(House()) as house:
        await house.post("42", after=after, **more)
        await house.mark("42", "read")
        await asyncio.sleep(SECONDS)

    assert house.reports == []
    assert house.queue.waits == ([60] if after else [])


@in_virtual_time
async def test_only_a_mark_that_reaches_the_event_is_reported() -> None:
    async with routing(House()) as house:
        await house.post("42", after=None, id="older")
        await house.mark("42", "read")
        await post(house, "42")
        topic = personal_topic("42")
        await house.post("42", after=None, id="newer")
        head = await house.head("42")
        await house.marks.move([Move("42", topic, read_only=(head,))])
        await asyncio.sleep(100)

    assert house.reports == [("42", "published")]


@in_virtual_time
async def test_a_thousand_users_are_reported_each_for_itself() -> None:
    users = [f"u{number}" for number in range(1_000)]
    async with routing(House()) as house:
        await post(house, *users)
        house.queue.reports.clear()
        for user in users[::2]:
            await house.mark(user, "received")
        await asyncio.sleep(30)

    assert house.reports == [(user, "received") for user in users[::2]]


@in_virtual_time
async def test_the_events_of_a_batch_are_reported_in_one_trip_and_wait_in_one() -> None:
    async with routing(House()) as house:
        await asyncio.gather(*(post(house, f"u{n}", id=f"e{n}") for n in range(50)))
        begun = house.queue.rounds
        for number in range(50):
            await house.mark(f"u{number}", "received")
        await asyncio.sleep(1.5)

    assert [kind for _, kind in house.reports] == ["published"] * 50 + ["received"] * 50
    assert (begun, house.queue.rounds) == (2, 4)


@in_virtual_time
async def test_a_failure_repeats_the_reports_of_few_events_not_of_the_batch() -> None:
    async with routing(House()) as house:
        house.queue.failing_rounds = {6}  # the third event's wait: its reports are there
        users = [[f"{event}-{n}" for n in range(500)] for event in range(3)]
        await asyncio.gather(*(post(house, *some, id=some[0]) for some in users))
        await asyncio.sleep(0.5)

    assert house.queue.rounds == 8
    assert house.count("reports", report="published") == 1_500 + 500
