"""Events that are to be received in time, through a router on memory, in virtual time."""

import asyncio
import json
from typing import Any

import pytest

from notifier.core.undelivered import Reason
from tests.support.clock import in_virtual_time
from tests.support.following import House, routing


@in_virtual_time
async def test_an_event_comes_back_for_the_users_whom_no_mark_says_it_reached() -> None:
    async with routing(House()) as house:
        await house.post("reader", "receiver", "absent", "deaf")
        house.present.connected = {"deaf", "receiver"}
        await house.mark("reader", "read")
        await house.mark("receiver", "received")

        await asyncio.sleep(59)
        early = house.back
        await asyncio.sleep(2)

    assert early == {}
    assert house.back == {"absent": Reason.OFFLINE, "deaf": Reason.UNCONFIRMED}
    for reason in (Reason.OFFLINE, Reason.UNCONFIRMED):
        assert house.count("undelivered", reason=reason) == 1


@in_virtual_time
async def test_an_event_that_everybody_received_waits_no_longer() -> None:
    async with routing(House()) as house:
        await house.post("42", after=86_400)
        await house.mark("42", "received")

        await asyncio.sleep(86_500)

    assert house.queue.waits == [600]
    assert house.back == {}


@in_virtual_time
async def test_users_who_received_it_are_dropped_while_the_others_wait() -> None:
    async with routing(House()) as house:
        await house.post("1", "2", after=70)
        await asyncio.sleep(59)
        await house.mark("1", "received")
        await asyncio.sleep(12)

    assert house.queue.waits == [60, 10]
    waiting = [json.loads(entry.body)["users"] for entry in house.queue.waiting]
    assert waiting == [["1", "2"], ["2"]]
    assert house.back == {"2": Reason.OFFLINE}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"ttl": 5}, Reason.EXPIRED),
        ({"collapse_key": "price"}, Reason.SUPERSEDED),
        ({}, Reason.BEYOND_HISTORY),
    ],
    ids=str,
)
@in_virtual_time
async def test_the_reason_says_why_nobody_has_it(more: dict[str, Any], reason: Reason) -> None:
    async with routing(House(inbox_size=10 if more else 1)) as house:
        await house.post("42", **more)
        if "ttl" not in more:
            await house.post("42", after=None, **{**more, "id": "newer"})
        await asyncio.sleep(61)

    assert house.back == {"42": reason}


@in_virtual_time
async def test_an_event_whose_stream_was_lost_comes_back() -> None:
    async with routing(House()) as house:
        await house.post("42")
        await house.mark("42", "received")
        house.lose()
        await asyncio.sleep(61)

    assert house.back == {"42": Reason.LOST}


@in_virtual_time
async def test_nothing_is_lost_while_redis_and_rabbitmq_fail() -> None:
    async with routing(House()) as house:
        house.queue.failures = 3
        await house.post("1", "2")
        house.marks.failures = 3
        await asyncio.sleep(61)
        house.queue.failures = 2
        await asyncio.sleep(60)

    assert house.back == {"1": Reason.OFFLINE, "2": Reason.OFFLINE}


@in_virtual_time
async def test_an_event_that_was_published_too_late_comes_back_at_once() -> None:
    async with routing(House()) as house:
        await house.post("42", accepted_ago=3_600)
        await asyncio.sleep(2)

    assert house.back == {"42": Reason.OFFLINE}


@in_virtual_time
async def test_an_event_that_asks_for_nothing_never_waits() -> None:
    async with routing(House()) as house:
        await house.post("42", after=None)
        await asyncio.sleep(86_500)

    assert (house.queue.waits, house.back) == ([], {})


@in_virtual_time
async def test_a_thousand_users_are_judged_each_for_itself() -> None:
    users = [f"u{number}" for number in range(1_000)]
    async with routing(House()) as house:
        await house.post(*users)
        for user in users[::2]:
            await house.mark(user, "received")
        await asyncio.sleep(61)

    assert list(house.back) == users[1::2]


@in_virtual_time
async def test_the_events_of_a_batch_come_back_in_one_trip_and_presence_is_asked_once() -> None:
    async with routing(House()) as house:
        await asyncio.gather(*(house.post(f"u{n}", id=f"e{n}", after=10) for n in range(50)))
        waited = house.queue.rounds
        await asyncio.sleep(11)

    assert {*house.back} == {f"u{n}" for n in range(50)}
    assert (waited, house.queue.rounds - waited, house.present.asked) == (1, 1, 1)


@in_virtual_time
async def test_a_failure_lets_no_event_wait_twice() -> None:
    async with routing(House()) as house:
        await asyncio.gather(
            house.post("early", after=10, id="early"), house.post("late", after=20, id="late")
        )
        house.queue.failing_rounds = {house.queue.rounds + 2}  # of those after ten seconds
        await asyncio.sleep(30)

    assert house.back == {"early": Reason.OFFLINE, "late": Reason.OFFLINE}
    assert [each.user for each in house.queue.handed_back].count("late") == 1
