import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from notifier.core.entries import Entry
from notifier.core.errors import Unavailable
from notifier.core.history import Since
from notifier.core.ports import Batch, Delivery
from notifier.core.undelivered import WAITED, HandedBack
from notifier.router import publisher
from notifier.router.order import CHUNK, LARGE, MOST_AUDIENCES
from notifier.router.router import Router
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import SteeredBroker, undelivered_ports_of
from tests.support.clock import in_virtual_time, pass_time, quiet


@pytest.fixture(autouse=True)
def _turns_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make turns of the loop the same on any machine: they are measured in real time."""
    monkeypatch.setattr(publisher, "_TURN", 60.0)


class Taken:
    """Fulfils Delivery."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry


class Settled:
    """Fulfils Batch, and remembers how it was settled."""

    def __init__(self, *entries: Entry) -> None:
        self.deliveries: Sequence[Taken] = [Taken(entry) for entry in entries]
        self.acks = 0
        self.allows_next = False
        self.dead: list[tuple[bytes, str, str]] = []
        self.away = False
        self.cannot_ack = False
        self.lost = False

    async def is_ours(self) -> bool:
        return not self.lost

    async def dead_letter(self, delivery: Delivery, code: str, reason: str) -> None:
        if self.away:
            raise Unavailable("rabbitmq", "away")
        self.dead.append((delivery.entry.body, code, reason))

    def allow_next(self) -> None:
        self.allows_next = True

    async def ack(self) -> None:
        if self.cannot_ack:
            raise Unavailable("rabbitmq", "the channel is gone")
        self.acks += 1


class Source:
    """Fulfils EventSource: gives its batches, then waits to be stopped."""

    partitions = ("all",)

    def __init__(self, *batches: Settled) -> None:
        self.trouble: str | None = None
        self.waiting: list[tuple[Entry, int]] = []
        self.handed_back: list[HandedBack] = []
        self._batches = batches
        self._stopped = asyncio.Event()

    async def batches(self) -> AsyncIterator[Batch]:
        for batch in self._batches:
            yield batch
        await self._stopped.wait()

    def stop(self) -> None:
        self._stopped.set()

    async def wait(self, entries: Sequence[tuple[Entry, int]]) -> None:
        self.waiting.extend(entries)

    async def hand_back(self, events: Sequence[HandedBack]) -> None:
        self.handed_back.extend(events)


class House:
    """A router, and what it works with."""

    def __init__(self, *batches: Settled) -> None:
        self.broker = SteeredBroker()
        self.source = Source(*batches)
        self.metrics = Metrics()
        self.router = Router(self.source, undelivered_ports_of(self.broker), self.metrics)

    @property
    def published(self) -> list[tuple[str, str]]:
        return [
            (new.topic, json.loads(new.record.split(b"\n", 1)[1])["id"])
            for new in self.broker.published
        ]

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"notifier_{name}_total", labels) or 0.0

    def age(self, stage: str) -> tuple[float, float]:
        """How many ages were told, and how many of them lie between one and five seconds."""
        name = "notifier_event_age_seconds_bucket"
        most, some, few = (
            self.metrics.registry.get_sample_value(name, {"stage": stage, "le": le}) or 0.0
            for le in ("+Inf", "5.0", "1.0")
        )
        return most, some - few


def event(name: str, *users: str) -> Entry:
    body = {"type": "t", "id": name, "source": "a", "users": users or ["42"]}
    return Entry(json.dumps(body).encode())


MANY = [str(number) for number in range(LARGE + 2 * CHUNK)]
BAD = Entry(b'{"type":"t","users":["a b"]}')


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
async def test_each_event_of_an_array_counts_unless_its_delivery_was_put_aside() -> None:
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


class Strange:
    """A delivery that something unforeseen happens at."""

    def __init__(self, happens: BaseException) -> None:
        self._happens = happens

    @property
    def entry(self) -> Entry:
        raise self._happens


class Kept(Settled):
    """A batch that keeps dead letters by the place of their deliveries."""

    async def dead_letter(self, delivery: Delivery, code: str, reason: str) -> None:
        self.dead.append((b"%d" % self.deliveries.index(delivery), code, reason))


@in_virtual_time
@pytest.mark.parametrize("happens", [KeyError("x"), RecursionError("deep"), UnicodeError("odd")])
async def test_an_unforeseen_failure_at_one_delivery_puts_that_one_aside_alone(
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


# Large audiences, and what comes behind them.


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

    assert 10 < it.broker.attempts < 40
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


# What cannot be understood.


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
async def test_a_delivery_is_put_aside_once_however_many_of_its_publications_are_refused() -> None:
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
async def test_of_a_batch_that_was_lost_nothing_more_is_published_or_put_aside() -> None:
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


@pytest.mark.parametrize("accepted", [0.0, time.time()], ids=["is over", "is not over"])
@in_virtual_time
async def test_another_routers_batch_neither_waits_nor_is_handed_back(accepted: float) -> None:
    waited = replace(awaited("1"), content_type=WAITED, accepted=accepted)
    batch = Settled(awaited("2"), waited)
    batch.lost = True
    it = House()

    await it.router.route(batch)

    assert (it.source.waiting, it.source.handed_back) == ([], [])
