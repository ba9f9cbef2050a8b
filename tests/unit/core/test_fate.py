"""The fate of an event, on a broker in memory."""

import time
from datetime import UTC, datetime

import pytest
from msgspec import UNSET

from notifier.adapters.memory.broker import MemoryBroker
from notifier.core import events
from notifier.core.events import Event
from notifier.core.fate import Fate, Found, Place, Sought, fates
from notifier.core.history import Before, History
from notifier.core.marks import UNMARKED, Mark
from notifier.core.positions import Position
from notifier.core.publications import publications_of

PAID = Sought("paid", "shop")


async def publish(broker: MemoryBroker, name: str = "paid", **more: object) -> None:
    event = Event(type="t", users=["42"], id=name, source="shop")
    event = events.completed(_with(event, more), source="shop", now=time.time())
    await broker.publish(publications_of(event, time.time()))


def _with(event: Event, more: dict[str, object]) -> Event:
    members = {name: getattr(event, name) for name in Event.__struct_fields__}
    return Event(**{name: value for name, value in (members | more).items() if value is not UNSET})


async def mark(broker: MemoryBroker, **offsets: object) -> Mark:
    [history] = await broker.read([Before("user:42")])
    return Mark(history.head.epoch, **offsets)  # type: ignore[arg-type]  # as the test says


async def fate(broker: MemoryBroker, sought: Sought = PAID, at: Mark = UNMARKED) -> Found:
    [found] = await fates(broker, sought, [Place("user:42", at)])
    return found


@pytest.mark.parametrize("silent", [False, True], ids=["loud", "silent"])
async def test_a_published_event_is_found_with_its_position(silent: bool) -> None:  # noqa: FBT001
    broker = MemoryBroker()
    await publish(broker, "before")
    await publish(broker, silent=silent)
    await publish(broker, "behind")

    found = await fate(broker)

    assert found.publication is not None
    assert (found.fate, found.publication.position.offset) == (Fate.PUBLISHED, 2)


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ({"read": 1}, Fate.READ),
        ({"singles": (1,)}, Fate.READ),
        ({"received": 1}, Fate.RECEIVED),
        ({"received": 2, "read": 0}, Fate.RECEIVED),
        ({"singles": (2,)}, Fate.PUBLISHED),
    ],
    ids=["read", "read alone", "received", "received further", "another read"],
)
async def test_a_mark_that_reaches_it_decides(offsets: dict[str, object], expected: Fate) -> None:
    broker = MemoryBroker()
    await publish(broker)
    await publish(broker, "behind")

    assert (await fate(broker, at=await mark(broker, **offsets))).fate is expected


async def test_an_event_whose_time_is_over_has_expired_unless_a_mark_reaches_it() -> None:
    broker = MemoryBroker()
    await publish(broker, expires=datetime(2026, 1, 31, tzinfo=UTC))

    assert (await fate(broker)).fate is Fate.EXPIRED
    assert (await fate(broker, at=await mark(broker, received=1))).fate is Fate.RECEIVED


async def test_a_mark_of_a_stream_that_is_gone_says_nothing() -> None:
    broker = MemoryBroker()
    await publish(broker)

    assert (await fate(broker, at=Mark("another", 5, 5))).fate is Fate.PUBLISHED


async def test_a_newer_event_of_its_collapse_key_supersedes_it() -> None:
    broker = MemoryBroker()
    await publish(broker, collapse_key="price")
    await publish(broker, "newer", collapse_key="price")

    assert (await fate(broker)).fate is Fate.SUPERSEDED
    assert (await fate(broker, Sought("newer", "shop"))).fate is Fate.PUBLISHED


async def test_the_memory_of_duplicates_knows_an_event_beyond_history() -> None:
    broker = MemoryBroker(inbox_size=2)
    for name in ("paid", "a", "b", "c"):
        await publish(broker, name)

    gone = await fate(broker)
    received = await fate(broker, at=await mark(broker, received=2))
    not_all = await fate(broker, at=await mark(broker, received=1))

    assert (gone.fate, gone.publication) == (Fate.BEYOND_HISTORY, None)
    assert gone.published == pytest.approx(time.time(), abs=30)
    assert (received.fate, not_all.fate) == (Fate.RECEIVED, Fate.BEYOND_HISTORY)


async def test_no_mark_speaks_of_an_event_whose_stream_is_lost() -> None:
    broker = MemoryBroker()
    await publish(broker)
    place = Place("user:42", await mark(broker, received=1))

    lost = Found.gone(place, History(Position("another", 0)), 0, published=1.0)

    assert lost.fate is Fate.BEYOND_HISTORY


@pytest.mark.parametrize(
    "sought", [Sought("paid", "other"), Sought("pai", "shop"), Sought("pai")], ids=str
)
async def test_another_source_or_id_is_not_this_event(sought: Sought) -> None:
    broker = MemoryBroker()
    await publish(broker)

    assert (await fate(broker, sought)).fate is Fate.NOT_PUBLISHED


async def test_without_a_source_it_is_found_in_history_alone() -> None:
    broker = MemoryBroker(inbox_size=1)
    await publish(broker)

    assert (await fate(broker, Sought("paid"))).fate is Fate.PUBLISHED

    await publish(broker, "behind")
    assert (await fate(broker, Sought("paid"))).fate is Fate.NOT_PUBLISHED


async def test_an_event_many_pages_back_is_found_and_each_place_has_its_own() -> None:
    broker = MemoryBroker(inbox_size=1_000)
    await publish(broker)
    for number in range(600):
        await publish(broker, f"n{number}")
    places = [Place("user:43"), Place("user:42"), Place("never")]

    found = await fates(broker, PAID, places)

    assert [(each.topic, each.fate) for each in found] == [
        ("user:43", Fate.NOT_PUBLISHED),
        ("user:42", Fate.PUBLISHED),
        ("never", Fate.NOT_PUBLISHED),
    ]
    assert await fates(broker, PAID, []) == []
