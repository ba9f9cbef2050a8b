import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import UNSET

from notifier.adapters.memory.marks import MemoryMarks
from notifier.core.access import Identity
from notifier.core.badges import Badges, Outcome
from notifier.core.errors import Failed, Unavailable
from notifier.core.frames import Start
from notifier.core.hub import Hub
from notifier.core.marks import Mark, Move
from notifier.core.positions import Position
from notifier.core.signals import Kind, Signal
from tests.support.brokers import SteeredBroker
from tests.support.clock import in_virtual_time, pass_time, quiet
from tests.support.connections import RecordingConnection
from tests.support.observers import RecordingObserver


class Reader:
    """Fulfils Subscriber: a session that follows its topics."""

    def __init__(self, user: str, *topics: str) -> None:
        self.connection = RecordingConnection()
        self.identity = Identity(user, 4e9, ("*",))
        self.topics: tuple[str, ...] = (f"user:{user}", "everyone", *topics)

    def told(self, topic: str = "user:42") -> list[int]:
        """The counts of unread events that it was told, in order."""
        frames = self.connection.of_type("marks")
        return [frame["unread"] for frame in frames if frame["topic"] == topic]


class House:
    """Badges at work, beside a hub."""

    def __init__(self, marks: type[MemoryMarks]) -> None:
        self.broker = SteeredBroker()
        self.observer = RecordingObserver()
        self.kept: dict[str, dict[str, Mark]] = {}
        self.hub = Hub(self.broker, self.observer)
        self.badges = Badges(self.hub, self.broker, marks(self.broker, self.kept), self.observer)

    async def reader(self, user: str = "42", *topics: str) -> Reader:
        reader = Reader(user, *topics)
        await self.follow(reader, *reader.topics)
        self.badges.tell(reader)
        await quiet()
        return reader

    async def follow(self, reader: Reader, *topics: str) -> None:
        def answered(starts: dict[str, Start] | None) -> None:
            assert starts is not None
            assert all(start.resumed is UNSET for start in starts.values())

        self.hub.subscribe(reader.connection, dict.fromkeys(topics), answered)
        await quiet()

    def mark(self, position: str, topic: str = "user:42", user: str = "42") -> None:
        """Move a mark as another gateway does, whose order is yet to come."""
        at = Position.parse(position)
        self.kept[user] = {**self.kept.get(user, {}), topic: Mark(at.epoch, at.offset)}

    def order(self, user: str = "42") -> None:
        self.hub.on_signal(Signal(f"user:{user}", Kind.ORDER, "marks", b"user:42"))

    async def ticks(self, number: int) -> None:
        for _ in range(number):
            self.hub.tick()
            self.badges.tick()
            await quiet()


@asynccontextmanager
async def house(marks: type[MemoryMarks] = MemoryMarks) -> AsyncIterator[House]:
    made = House(marks)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(made.hub.run()), tasks.create_task(made.badges.run())]
        yield made
        for each in running:
            each.cancel()


@in_virtual_time
async def test_each_event_for_a_user_is_told_at_once_and_those_for_many_within_a_second() -> None:
    async with house() as it:
        reader = await it.reader()

        it.broker.post("user:42")
        await quiet()
        it.broker.post_many("everyone", 3)
        await quiet()
        at_once = reader.told(), reader.told("everyone")
        it.badges.tick()
        await quiet()

    assert at_once == ([0, 1], [0])
    assert reader.told("everyone") == [0, 3]


@in_virtual_time
async def test_a_mark_on_another_gateway_is_told_when_its_order_comes() -> None:
    async with house() as it:
        reader, other = await it.reader(), await it.reader("43")
        positions = it.broker.post_many("user:42", 3)
        await quiet()

        it.mark(positions[1])
        it.order()
        await quiet()

    assert reader.told()[-1] == 1
    assert other.told("user:43") == [0]


@in_virtual_time
async def test_a_mark_that_moves_while_it_is_being_read_is_told_in_the_end() -> None:
    async with house() as it:
        reader = await it.reader()
        positions = it.broker.post_many("user:42", 3)
        await quiet()
        it.broker.held = True
        it.broker.post("user:42")
        await quiet()

        it.mark(positions[2])
        it.order()
        it.broker.release()
        await quiet()

    assert reader.told()[-1] == 1


@in_virtual_time
async def test_a_topic_that_cannot_be_read_is_told_nothing_of_and_keeps_no_other_waiting() -> None:
    async with house() as it:
        reader = await it.reader()
        it.broker.post("user:42")
        await quiet()

        it.broker.failing_topics = {"user:42"}
        it.broker.post("user:42")
        it.broker.post("everyone")
        await quiet()
        await it.ticks(1)
        failing = reader.told(), reader.told("everyone")
        it.broker.failing_topics = set()
        it.broker.post("user:42")
        await quiet()

    assert failing == ([0, 1], [0, 1])
    assert reader.told() == [0, 1, 3]


class _FailingMarks(MemoryMarks):
    """Fails at one user, and no other."""

    async def of(self, users: Sequence[str]) -> list[dict[str, Mark] | Failed]:
        found = await super().of(users)
        pairs = zip(users, found, strict=True)
        return [Failed("redis") if user == "odd" else marks for user, marks in pairs]


@in_virtual_time
async def test_marks_that_cannot_be_read_keep_no_other_user_waiting() -> None:
    async with house(_FailingMarks) as it:
        odd, reader = await it.reader("odd"), await it.reader("42")

        it.broker.post_many("user:42", 2)
        await quiet()

    assert odd.told("user:odd") == []
    assert reader.told()[-1] == 2


class _SlowMarks(MemoryMarks):
    """Answers what it found before, once the test says so."""

    def __init__(self, broker: SteeredBroker, kept: dict[str, dict[str, Mark]]) -> None:
        super().__init__(broker, kept)
        self.open = asyncio.Event()

    async def of(self, users: object) -> list[dict[str, Mark] | Failed]:
        found = await super().of(users)  # type: ignore[arg-type]  # passed on
        await self.open.wait()
        return found


@in_virtual_time
async def test_an_order_that_overtakes_the_answer_of_a_read_has_it_read_again() -> None:
    async with house() as it:
        slow = _SlowMarks(it.broker, it.kept)
        it.badges._marks = slow  # noqa: SLF001  # in place of quick ones
        positions = it.broker.post_many("user:42", 3)
        reader = await it.reader()

        it.mark(positions[2])
        it.order()
        slow.open.set()
        await quiet()

    assert reader.told() == [3, 0]


@in_virtual_time
async def test_an_order_that_was_lost_is_made_good_by_the_next_comparison() -> None:
    async with house() as it:
        reader = await it.reader()
        positions = it.broker.post_many("user:42", 3)
        await quiet()

        it.mark(positions[2])
        await it.ticks(40)

    assert reader.told()[-1] == 0


@in_virtual_time
async def test_events_for_many_that_an_interruption_hid_are_counted_when_they_are_found() -> None:
    async with house() as it:
        reader = await it.reader()
        it.broker.post_unheard("everyone")

        it.broker.interrupt(["everyone"])
        await quiet()
        it.badges.tick()
        await quiet()

    assert reader.told("everyone") == [0, 1]


@in_virtual_time
async def test_an_event_that_expires_leaves_the_badge_by_itself() -> None:
    async with house() as it:
        reader = await it.reader()
        soon = int((it.broker.now() + 60) * 1000)
        it.broker.post("user:42", expires=soon)
        it.broker.post("everyone", expires=soon)
        await it.ticks(1)
        before = reader.told()[-1], reader.told("everyone")[-1]

        it.broker.ahead = 61.0
        await it.ticks(40)

    assert before == (1, 1)
    assert (reader.told()[-1], reader.told("everyone")[-1]) == (0, 0)


@in_virtual_time
async def test_a_badge_without_a_change_goes_to_a_new_reader_alone() -> None:
    async with house() as it:
        first = await it.reader()
        second = await it.reader()
        await it.ticks(40)

    assert (first.told(), second.told()) == ([0], [0])


@in_virtual_time
async def test_a_topic_followed_while_marks_are_read_is_told_too() -> None:
    async with house() as it:
        it.broker.post("news")
        reader = Reader("42")
        await it.follow(reader, *reader.topics, "news")
        it.broker.held = True
        it.badges.tell(reader)
        await quiet()

        reader.topics = (*reader.topics, "news")
        it.badges.tell_more(reader)
        it.broker.release()
        await quiet()

    assert reader.told("news") == [1]


@in_virtual_time
async def test_while_redis_is_away_moves_are_answered_and_badges_come_later() -> None:
    async with house() as it:
        [position] = it.broker.post_many("user:42", 1)
        it.broker.away = True
        outcomes: list[Outcome] = []
        reader = Reader("42")
        it.badges.tell(reader)
        move = Move("42", "user:42", read=Position.parse(position))
        it.badges.move(move, outcomes.append)
        await quiet()
        away = list(outcomes), reader.told()

        it.broker.away = False
        await pass_time(2)
        it.badges.move(move, outcomes.append)
        await quiet()

    assert [isinstance(outcome, Unavailable) for outcome in away[0]] == [True]
    assert away[1] == []
    assert isinstance(outcomes[-1], Mark)
    assert reader.told()[0] == 1
    assert ("marked", "unavailable", 1) in it.observer.told
    assert ("marked", "moved", 1) in it.observer.told


@in_virtual_time
async def test_a_reader_that_left_is_told_nothing_and_leaves_nothing_behind() -> None:
    async with house() as it:
        one, other = await it.reader(), await it.reader()
        it.badges.leave(one)
        it.broker.post("user:42")
        await quiet()
        it.badges.leave(other)
        it.badges.leave(other)
        await quiet()
        recounts = it.observer.told.count(("recounted", 1))
        it.broker.post("user:42")
        await it.ticks(40)

    assert (one.told(), other.told()) == ([0], [0, 1])
    assert it.observer.told.count(("recounted", 1)) == recounts


@in_virtual_time
async def test_a_user_who_arrives_has_nobody_else_counted() -> None:
    async with house() as it:
        await it.reader()
        recounts = it.observer.told.count(("recounted", 1))

        await it.follow(Reader("43"), "everyone")
        it.badges.tick()
        await quiet()

    assert it.observer.told.count(("recounted", 1)) == recounts
