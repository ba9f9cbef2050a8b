import asyncio
import json
import time
from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.history import Since
from notifier.core.ports import Bad
from notifier.core.undelivered import WAITED
from notifier.router import publisher
from tests.support.batches import BAD, House, Settled, event
from tests.support.clock import in_virtual_time, pass_time, quiet


@pytest.fixture(autouse=True)
def _turns_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make turns of the loop the same on any machine: they are measured in real time."""
    monkeypatch.setattr(publisher, "_TURN", 60.0)


@in_virtual_time
async def test_events_are_published_in_the_order_of_the_queue() -> None:
    batch = Settled(event("1"), event("2", "42", "43"), event("3"))
    it = House()

    await it.router.route(batch)

    expected = [("user:42", "1"), ("user:42", "2"), ("user:43", "2"), ("user:42", "3")]
    assert it.published == expected
    assert it.count("publications", outcome="published") == 4
    assert it.count("events", stage="routed") == 3


@in_virtual_time
async def test_each_event_of_an_array_counts_unless_its_delivery_became_a_dead_letter() -> None:
    arrays = [[("1", "42"), ("2", "42"), ("3", "43")], [("4", "a b")], [("5", "42"), ("6", "41")]]
    entries = [
        Entry(
            json.dumps(
                [{"type": "t", "id": name, "users": [user]} for name, user in array]
            ).encode()
        )
        for array in arrays
    ]
    batch = Settled(*entries, event("7"))
    it = House()
    it.broker.refused_topics = {"user:41"}

    await it.router.route(batch)

    assert sorted(code for _, code, _ in batch.dead) == ["invalid", "refused"]
    assert it.count("events", stage="routed") == 4


@in_virtual_time
async def test_the_age_of_an_event_is_told_when_it_is_taken_and_again_when_it_is_published() -> (
    None
):
    batch = Settled(replace(event("1"), accepted=time.time() - 2), event("2"), BAD)
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    publishing = await it.broker.asked()
    before = (it.age("taken"), it.age("published"))

    publishing.answer()
    await routing

    assert before == ((1, 1), (0, 0))
    assert it.age("published") == (1, 1)


@in_virtual_time
async def test_a_ttl_counts_by_the_brokers_clock_and_not_by_the_routers() -> None:
    body = b'{"id":"1","type":"t","users":["42"],"ttl":60}'
    it = House()
    it.broker.ahead = 3_600

    await it.router.route(Settled(Entry(body)))

    [publication] = (await it.broker.read([Since("user:42", 0)]))[0].publications
    assert publication.accepted / 1000 == pytest.approx(time.time() + 3_600, abs=30)
    assert publication.expires / 1000 == pytest.approx(time.time() + 3_660, abs=30)


@in_virtual_time
async def test_all_events_of_an_entry_are_accepted_at_one_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = ",".join(f'{{"id":"{n}","type":"t","topic":"n","ttl":60}}' for n in range(300))
    moments = iter(range(1_800_000_000, 2_000_000_000, 100))
    it = House()
    monkeypatch.setattr(it.broker, "now", lambda: float(next(moments)))

    await it.router.route(Settled(Entry(f"[{events}]".encode())))

    kept = (await it.broker.read([Since("n", 0)]))[0].publications
    assert len({(each.accepted, each.expires) for each in kept}) == 1
    assert {each.expires - each.accepted for each in kept} == {60_000}


@in_virtual_time
async def test_a_batch_is_acked_only_after_all_is_published() -> None:
    batch = Settled(event("1"), event("2"))
    it = House(batch)
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    publishing = await it.broker.asked()
    await quiet()
    before = batch.acks

    publishing.answer()
    await routing

    assert (before, batch.acks) == (0, 1)


@in_virtual_time
async def test_an_event_that_comes_again_is_recognised_and_acked() -> None:
    it = House()
    await it.router.route(Settled(event("1")))
    again = Settled(event("1"))

    await it.router.route(again)

    assert again.acks == 1
    assert it.broker.head("user:42").endswith(".1")
    assert it.count("publications", outcome="duplicate") == 1


class Strange:
    """A delivery that something unforeseen happens at."""

    def __init__(self, happens: BaseException) -> None:
        self._happens = happens

    @property
    def entry(self) -> Entry:
        raise self._happens


class Kept(Settled):
    """A batch that keeps dead letters by the place of their deliveries."""

    async def dead_letter(self, bad: Sequence[Bad]) -> list[Unavailable | None]:
        self.dead += [
            (b"%d" % self.deliveries.index(each.delivery), each.code, each.reason) for each in bad
        ]
        return [None] * len(bad)


@in_virtual_time
@pytest.mark.parametrize("happens", [KeyError("x"), RecursionError("deep"), UnicodeError("odd")])
async def test_an_unforeseen_failure_at_one_delivery_makes_a_dead_letter_of_that_one_alone(
    happens: Exception,
) -> None:
    batch = Kept(event("1"), event("2"), event("3"))
    batch.deliveries = [batch.deliveries[0], Strange(happens), batch.deliveries[2]]  # type: ignore[list-item]
    it = House()

    with capture_logs() as logs:
        await it.router.route(batch)

    assert [name for _, name in it.published] == ["1", "3"]
    assert batch.dead == [(b"1", "internal", f"notifier failed at it: {happens!r}")]
    assert batch.acks == 1
    assert it.count("dead_letters", reason="internal") == 1
    assert "delivery_not_understood" in [line["event"] for line in logs]


@in_virtual_time
async def test_a_lack_of_memory_is_no_deliverys_fault() -> None:
    batch = Kept(event("1"))
    batch.deliveries = [Strange(MemoryError())]  # type: ignore[list-item]

    with pytest.raises(ExceptionGroup):
        await House().router.route(batch)

    assert (batch.dead, batch.acks) == ([], 0)


# A broker that is away.


@in_virtual_time
async def test_while_the_broker_is_away_the_batch_is_held_and_published_afterwards() -> None:
    batch = Settled(event("1"))
    it = House()
    it.broker.away = True
    routing = asyncio.create_task(it.router.route(batch))
    await pass_time(60)
    before = (batch.acks, batch.dead, it.router.trouble()["holding"])

    it.broker.away = False
    await routing

    assert before == (0, [], "1 batches wait for the broker")
    assert it.published == [("user:42", "1")]
    assert batch.acks == 1
    assert it.router.trouble()["holding"] is None


@in_virtual_time
async def test_an_unavailable_broker_is_not_hammered() -> None:
    it = House()
    it.broker.away = True
    routing = asyncio.create_task(it.router.route(Settled(event("1"))))

    await pass_time(60)

    assert 10 < it.broker.attempts < 60
    assert it.count("held_batches") == 1
    it.broker.away = False
    await routing


@in_virtual_time
async def test_a_retry_publishes_no_duplicate_of_events_from_before_the_outage() -> None:
    batch = Settled(event("1"))
    it = House()
    it.broker.held = True
    routing = asyncio.create_task(it.router.route(batch))
    publishing = await it.broker.asked()
    publishing.serve()
    publishing.fail()

    it.broker.held = False
    await routing

    assert it.broker.head("user:42").endswith(".1")
    assert batch.acks == 1


@in_virtual_time
async def test_a_batch_that_cannot_be_acked_is_left_to_come_again() -> None:
    batch = Settled(event("1"))
    batch.cannot_ack = True
    it = House()

    with capture_logs() as logs:
        await it.router.route(batch)

    assert logs[-1]["event"] == "batch_not_acked"
    assert it.count("events", stage="routed") == 0


# Deliveries that cannot be understood.


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b'{"type":"t","users":["a b"]}', "invalid", "users[0]: must be 1 to 128"),
        (b'{"type":"t"}', "invalid", "users: no audience"),
        (b"{", "unreadable", "not JSON"),
        (b'{"type":"t","data":"' + b"x" * 65_536 + b'"}', "too_large", "at most 65536 bytes"),
    ],
)
def test_a_delivery_that_cannot_be_understood_becomes_a_dead_letter_and_the_rest_flows(
    body: bytes, code: str, reason: str
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        batch = Settled(event("1"), Entry(body), event("2"))
        it = House()

        await it.router.route(batch)

        [(dead, found, why)] = batch.dead
        assert (dead, found) == (body, code)
        assert reason in why
        assert it.published == [("user:42", "1"), ("user:42", "2")]
        assert batch.acks == 1
        assert it.count("dead_letters", reason=code) == 1

    scenario()


@in_virtual_time
async def test_the_log_says_whose_a_dead_letter_is() -> None:
    named = Entry(b'{"type":"t","id":"e1","users":["a b"]}', app_id="shop")
    unreadable = Entry(b"{", "user.42", message_id="m1", app_id="crm")

    with capture_logs() as logs:
        await House().router.route(Settled(named, unreadable))

    lines = [line for line in logs if line["event"] == "dead_letter"]
    assert [(each["producer"], each["event_id"]) for each in lines] == [
        ("shop", "e1"),
        ("crm", "m1"),
    ]


@in_virtual_time
async def test_a_batch_is_not_acked_before_its_dead_letters_are_kept() -> None:
    batch = Settled(BAD, event("1"))
    batch.away = True
    it = House()
    routing = asyncio.create_task(it.router.route(batch))
    await pass_time(30)
    before = batch.acks

    batch.away = False
    await routing

    assert (before, batch.acks, len(batch.dead)) == (0, 1, 1)


@in_virtual_time
async def test_the_dead_letters_of_a_batch_are_kept_together() -> None:
    batch = Settled(*([BAD] * 50), event("1"))
    it = House()

    await it.router.route(batch)

    assert (batch.tries, len(batch.dead), batch.acks) == (1, 50, 1)
    assert sum(it.count("dead_letters", reason=code) for _, code, _ in batch.dead[:1]) == 50


@in_virtual_time
async def test_only_dead_letters_that_may_not_be_kept_are_tried_again() -> None:
    batch = Settled(Entry(b"one", "user.42"), Entry(b"two", "user.42"), Entry(b"six", "user.42"))
    batch.refused = {b"two"}
    it = House()
    with capture_logs() as logs:
        routing = asyncio.create_task(it.router.route(batch))
        await pass_time(30)
        before = batch.acks
        batch.refused = set()
        await routing

    assert (before, batch.acks) == (0, 1)
    assert [body for body, *_ in batch.dead] == [b"one", b"six", b"two"]
    assert len([line for line in logs if line["event"] == "dead_letter"]) == 3


@in_virtual_time
async def test_an_event_that_the_broker_refuses_becomes_a_dead_letter_and_the_rest_flows() -> None:
    batch = Settled(event("1", "41"), event("2"))
    it = House()
    it.broker.refused_topics = {"user:41"}

    await it.router.route(batch)

    assert [(code, reason) for _, code, reason in batch.dead] == [
        ("refused", "the key holds something else")
    ]
    assert it.published == [("user:42", "2")]
    assert batch.acks == 1


@in_virtual_time
async def test_a_delivery_with_several_refused_publications_becomes_one_dead_letter() -> None:
    batch = Settled(event("1", "40", "41", "42"))
    it = House()
    it.broker.refused_topics = {"user:40", "user:41"}

    await it.router.route(batch)

    assert len(batch.dead) == 1
    assert it.published == [("user:42", "1")]


@in_virtual_time
async def test_payloads_are_not_logged() -> None:
    it = House()

    with capture_logs() as logs:
        await it.router.route(Settled(Entry(b'{"type":"t","data":"s3cret"}')))

    assert "s3cret" not in str(logs)


# Running.


@in_virtual_time
async def test_a_batch_that_is_held_does_not_hold_up_those_of_other_partitions() -> None:
    first, second = Settled(event("1", "41")), Settled(event("2"))
    it = House(first, second)
    it.broker.held = True
    running = asyncio.create_task(it.router.run())
    held = await it.broker.asked()

    (await it.broker.asked()).answer()
    await quiet()
    between = (first.acks, second.acks)
    held.answer()
    it.source.stop()
    await running

    assert between == (0, 1)
    assert first.acks == 1


@in_virtual_time
async def test_a_router_that_shuts_down_finishes_its_batches() -> None:
    batch = Settled(event("1"))
    it = House(batch)
    it.broker.held = True
    running = asyncio.create_task(it.router.run())
    publishing = await it.broker.asked()

    it.source.stop()
    await quiet()
    still = not running.done()
    publishing.answer()
    await running

    assert still
    assert batch.acks == 1


@in_virtual_time
async def test_a_router_that_is_cancelled_leaves_its_batch_unacked() -> None:
    batch = Settled(event("1"))
    it = House(batch)
    it.broker.held = True
    running = asyncio.create_task(it.router.run())
    await it.broker.asked()

    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    assert (batch.acks, batch.dead) == (0, [])


@in_virtual_time
async def test_an_error_of_our_own_ends_the_router_and_acks_nothing() -> None:
    batch = Settled(event("1"))
    it = House(batch)
    it.broker.held = True
    running = asyncio.create_task(it.router.run())
    (await it.broker.asked()).done.set_exception(ZeroDivisionError())

    await asyncio.wait([running])

    assert isinstance(running.exception(), ExceptionGroup)
    assert batch.acks == 0


@in_virtual_time
async def test_trouble_tells_which_part_is_in_trouble() -> None:
    it = House()
    healthy = it.router.trouble()
    it.source.trouble = "no queue"
    it.broker.trouble = "away"

    troubled = it.router.trouble()

    assert healthy == {"queue": None, "broker": None, "holding": None}
    assert troubled == {"queue": "no queue", "broker": "away", "holding": None}


# Batches that have become somebody else's.


@in_virtual_time
async def test_of_a_batch_that_was_lost_nothing_more_is_published_or_made_a_dead_letter() -> None:
    batch = Settled(event("1"), BAD)
    it = House()
    it.broker.away = True
    routing = asyncio.create_task(it.router.route(batch))
    await quiet()

    batch.lost = batch.cannot_ack = True
    it.broker.away = False
    await routing

    assert (it.published, batch.dead) == ([], [])
    assert it.count("publications", outcome="published") == 0
    assert it.count("events", stage="routed") == 0


# Events that are to be received in time.


def awaited(name: str, *users: str) -> Entry:
    body = {"type": "t", "id": name, "source": "a", "users": users or ["42"]}
    return Entry(json.dumps({**body, "undelivered_after": 60}).encode())


@in_virtual_time
async def test_an_event_waits_before_its_entry_is_acked_unless_it_was_refused() -> None:
    batch = Settled(awaited("1"), awaited("2", "41"), event("3"))
    it = House()
    it.broker.refused_topics = {"user:41"}

    await it.router.route(batch)

    assert [(json.loads(each.body)["id"], delay) for each, delay in it.source.waiting] == [
        ("1", 60)
    ]
    assert (batch.acks, len(batch.dead), batch.allows_next) == (1, 1, True)


@pytest.mark.parametrize("age", [86_400, 0], ids=["is over", "is not over"])
@in_virtual_time
async def test_another_routers_batch_neither_waits_nor_is_handed_back(age: int) -> None:
    waited = replace(awaited("1"), content_type=WAITED, accepted=time.time() - age)
    batch = Settled(awaited("2"), waited)
    batch.lost = True
    it = House()

    await it.router.route(batch)

    assert (it.source.waiting, it.source.handed_back) == ([], [])
