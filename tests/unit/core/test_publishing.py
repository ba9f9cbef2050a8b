import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw

from notifier.core import publishing
from notifier.core.access import Identity, WiderIdentity
from notifier.core.errors import Failed, Forbidden, Invalid, NotifierError, TooLarge, Unavailable
from notifier.core.frames import Publish
from notifier.core.positions import Position
from notifier.core.publications import NewPublication
from notifier.core.publishing import ClientEvent, Outcome, Publishing, client_event_of, source_of
from notifier.core.signals import Signal
from tests.support.brokers import SteeredBroker
from tests.support.clock import quiet

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
ANN = WiderIdentity("42", NOW + 3600, publish=("room:*", "user:*", "everyone", "*"))


def frame(
    event: object = None,
    topic: str = "room:7",
    *,
    ephemeral: bool = False,
    **members: Any,  # noqa: ANN401  # of the event
) -> Publish:
    given = {"type": "chat.message", "id": "m1", **members} if event is None else event
    return Publish(topic, Raw(json.dumps(given).encode()), ephemeral)


def event_of(
    name: str, *, ephemeral: bool = False, data: object = None, silent: bool = False
) -> ClientEvent:
    return client_event_of(ANN, frame(id=name, ephemeral=ephemeral, data=data, silent=silent), NOW)


class Desk:
    """The worker, and what became of each event by its name."""

    def __init__(self) -> None:
        self.broker = SteeredBroker()
        self.counted: Counter[str] = Counter()
        self.worker = Publishing(self.broker, self)
        self.outcomes: list[tuple[str, Outcome]] = []

    def client_published(self, outcome: str) -> None:
        self.counted[outcome] += 1

    def publish(
        self, name: str, *, ephemeral: bool = False, data: object = None, silent: bool = False
    ) -> None:
        event = event_of(name, ephemeral=ephemeral, data=data, silent=silent)
        self.worker.publish(event, lambda outcome: self.outcomes.append((name, outcome)))

    def stream(self) -> list[str]:
        return [json.loads(each.record.partition(b"\n")[2])["id"] for each in self.broker.published]


@asynccontextmanager
async def at_work() -> AsyncIterator[Desk]:
    desk = Desk()
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(desk.worker.run(), name="publishing")
        yield desk
        work.cancel()


def delivered(event: ClientEvent) -> dict[str, Any]:
    assert isinstance(event.item, NewPublication)
    told: dict[str, Any] = json.loads(event.item.record.partition(b"\n")[2])
    return told


def test_a_publication_has_the_source_and_time_that_the_gateway_sets() -> None:
    event = client_event_of(ANN, frame(data={"text": "hi"}), NOW)

    assert event.item.topic == "room:7"
    assert delivered(event) == {
        "specversion": "1.0",
        "id": "m1",
        "source": "user:42",
        "type": "chat.message",
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "application/json",
        "data": {"text": "hi"},
    }


def test_an_ephemeral_event_is_a_signal_without_position() -> None:
    event = client_event_of(ANN, frame({"type": "typing"}, ephemeral=True), NOW)

    assert isinstance(event.item, Signal)
    told = json.loads(event.item.body)
    assert (told["type"], told["topic"], "position" in told) == ("ephemeral", "room:7", False)
    assert told["event"]["source"] == "user:42"


@pytest.mark.parametrize(
    ("user", "source"),
    [
        ("42", "user:42"),
        ("a:b@c", "user:a:b@c"),
        ("auth0|5f", "user:auth0%7C5f"),
        ("//a:b", "user:%2F%2Fa%3Ab"),
    ],
)
def test_a_source_is_a_uri_reference_for_each_user(user: str, source: str) -> None:
    assert source_of(user) == source


@pytest.mark.parametrize(
    ("topic", "identity"),
    [
        ("room:7", Identity("42", NOW, ("*",))),  # following is not publishing
        ("room:7", WiderIdentity("42", NOW, publish=("room:8", "team:*"))),
        ("user:43", ANN),
        ("user:42", ANN),
        ("everyone", ANN),
    ],
)
@pytest.mark.parametrize("ephemeral", [False, True])
def test_a_topic_is_closed_unless_the_claim_opens_it(
    topic: str, identity: Identity, *, ephemeral: bool
) -> None:
    with pytest.raises(Forbidden, match="publish"):
        client_event_of(identity, frame(topic=topic, ephemeral=ephemeral), NOW)


@pytest.mark.parametrize("ephemeral", [False, True])
@pytest.mark.parametrize(
    "members",
    [
        {"source": "user:43"},
        {"time": "2020-01-01T00:00:00Z"},
        {"topic": "staff"},
        {"users": ["43"]},
        {"everyone": True},
        {"report": True},
        {"undelivered_after": 60},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    ],
    ids=lambda members: next(iter(members)),
)
def test_members_that_the_gateway_decides_on_are_refused(
    members: dict[str, object], *, ephemeral: bool
) -> None:
    [name] = members
    with pytest.raises(Invalid, match=rf"^event\.{name}: is decided on by the gateway: leave it"):
        client_event_of(ANN, frame({"type": "t", "id": "m1", **members}, ephemeral=ephemeral), NOW)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"type": "t"}, "event.id: is missing: give each event one"),
        ({"id": "m1"}, "event.type: is missing"),
        ({"type": "t", "id": 7}, "event.id: must be a string, not a whole number"),
        ({"type": "t", "id": ""}, "event.id: must"),
        (
            {"type": "t", "id": "m1", "colour": 1},
            "event.colour: is not a member of an event; members of your own go into data",
        ),
        ({"type": "t", "id": "m1", "extensions": {"source": "x"}}, "event.extensions.source: must"),
        ({"type": "t", "id": "m1", "ttl": -1}, "event.ttl: must"),
        ([], "event: must be an object, not a list"),
    ],
)
def test_an_event_that_is_none_is_refused_by_its_member(event: object, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        client_event_of(ANN, frame(event), NOW)

    assert str(refused.value).startswith(message)


def test_an_event_that_is_too_large_is_refused_as_such() -> None:
    with pytest.raises(TooLarge, match="event"):
        client_event_of(ANN, frame(data="x" * 70_000), NOW)


async def test_events_are_published_in_their_order_each_answered_by_its_position() -> None:
    async with at_work() as desk:
        for name in "abc":
            desk.publish(name)
        await quiet()

    epoch = desk.broker.stream("room:7").epoch
    assert desk.outcomes == [(n, Position(epoch, i)) for i, n in enumerate("abc", 1)]
    assert desk.counted == {"published": 3}


async def test_a_repeated_event_is_published_once_and_has_the_same_position() -> None:
    async with at_work() as desk:
        desk.publish("a", silent=True)
        desk.publish("b")
        await quiet()
        desk.publish("c")
        desk.publish("a")
        desk.publish("b", silent=True)
        await quiet()

    assert desk.broker.stream("room:7").offset == 3
    positions = [(name, p.offset) for name, p in desk.outcomes if isinstance(p, Position)]
    assert positions == [("a", 1), ("b", 2), ("c", 3), ("a", 1), ("b", 2)]
    assert desk.counted == {"published": 3, "duplicate": 2}


async def test_the_same_id_of_another_user_is_another_event() -> None:
    bob = WiderIdentity("43", NOW + 3600, publish=("room:*",))
    async with at_work() as desk:
        bobs = client_event_of(bob, frame(id="a"), NOW)
        events = (event_of("a"), bobs, event_of("a"), bobs)
        positions = [await desk.worker.published(event) for event in events]

    assert [position and position.offset for position in positions] == [1, 2, 1, 2]


async def test_a_repeated_event_that_history_no_longer_holds_has_no_position() -> None:
    async with at_work() as desk:
        await desk.worker.published(event_of("a"))
        desk.broker.trim("room:7", 0)

        assert await desk.worker.published(event_of("a")) is None


async def test_an_ephemeral_event_keeps_its_place_among_the_others() -> None:
    async with at_work() as desk:
        desk.broker.held = True
        desk.publish("a")
        desk.publish("typing", ephemeral=True)
        desk.publish("b")
        for expected in (["a"], ["a"], ["a", "b"]):
            (await desk.broker.asked()).answer()
            await quiet()
            assert desk.stream() == expected

    assert [name for name, _ in desk.outcomes] == ["a", "typing", "b"]
    assert desk.outcomes[1] == ("typing", None)
    assert desk.counted == {"published": 2, "ephemeral": 1}


async def test_events_that_come_meanwhile_wait_for_the_round_under_way() -> None:
    async with at_work() as desk:
        desk.broker.held = True
        desk.publish("a")
        call = await desk.broker.asked()
        desk.publish("b")
        await quiet()
        assert not desk.broker.calls
        call.answer()
        (await desk.broker.asked()).answer()
        await quiet()

    assert desk.stream() == ["a", "b"]


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_without_redis_each_event_is_answered_and_a_repeat_is_published_once(
    *, ephemeral: bool
) -> None:
    async with at_work() as desk:
        desk.broker.away = True
        desk.publish("a", ephemeral=ephemeral)
        desk.publish("b", ephemeral=ephemeral)
        await quiet()
        assert [type(outcome) for _, outcome in desk.outcomes] == [Unavailable, Unavailable]
        assert desk.counted == {"unavailable": 2}
        assert desk.stream() == []

        desk.broker.away = False
        await desk.worker.published(event_of("a"))
        assert desk.stream() == ["a"]


async def test_an_answer_that_was_lost_is_made_good_by_a_repeat() -> None:
    async with at_work() as desk:
        desk.broker.held = True
        desk.publish("a")
        call = await desk.broker.asked()
        call.serve()
        call.fail()
        await quiet()
        desk.broker.held = False
        again = await desk.worker.published(event_of("a"))

    assert isinstance(desk.outcomes[0][1], Unavailable)
    assert again is not None
    assert again.offset == desk.broker.stream("room:7").offset == 1


async def test_a_lookup_that_fails_does_not_fail_the_others_of_its_round() -> None:
    async with at_work() as desk:
        await desk.worker.published(event_of("a"))
        desk.broker.held = True
        desk.publish("a")
        desk.publish("b")
        (await desk.broker.asked()).answer()
        (await desk.broker.asked()).fail()
        await quiet()

    outcomes = dict(desk.outcomes)
    assert isinstance(outcomes["a"], Unavailable)
    assert isinstance(outcomes["b"], Position)


async def test_a_topic_that_redis_refuses_fails_its_own_events_alone() -> None:
    async with at_work() as desk:
        desk.broker.refused_topics.add("broken")
        broken = client_event_of(ANN, frame(topic="broken"), NOW)
        fates: list[Outcome] = []
        desk.worker.publish(broken, fates.append)
        desk.publish("b")
        await quiet()

    assert isinstance(fates[0], NotifierError)
    assert isinstance(desk.outcomes[0][1], Position)
    assert desk.counted == {"refused": 1, "published": 1}


async def test_an_ephemeral_event_that_fails_fails_alone() -> None:
    async with at_work() as desk:
        desk.broker.failing_topics.add("broken")
        fates: list[Outcome] = []
        for topic in ("room:7", "broken", "room:7"):
            event = client_event_of(ANN, frame(topic=topic, ephemeral=True), NOW)
            desk.worker.publish(event, fates.append)
        await quiet()

    assert [type(fate) for fate in fates] == [type(None), Failed, type(None)]
    assert desk.counted == {"ephemeral": 2, "unavailable": 1}


async def test_a_round_is_bounded_in_events_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_ROUND", 2)
    monkeypatch.setattr(publishing, "_ROUND_BYTES", 4_000)
    async with at_work() as desk:
        for name in "abc":
            desk.publish(name)
        for name in "de":
            desk.publish(name, data="x" * 3_000)
        while len(desk.outcomes) < 5:
            await quiet()

        assert desk.broker.attempts == 4  # ab, c, d, e
    assert desk.stream() == [*"abcde"]


async def test_events_that_wait_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_MOST_BYTES", 10_000)
    async with at_work() as desk:
        desk.broker.held = True
        desk.publish("a", data="x" * 5_000)
        with pytest.raises(Unavailable, match="too many events of clients wait"):
            desk.publish("b", data="x" * 5_000)
        (await desk.broker.asked()).answer()
        await quiet()
        desk.publish("b", data="x" * 5_000)
        (await desk.broker.asked()).answer()
        await quiet()

    assert desk.stream() == ["a", "b"]
