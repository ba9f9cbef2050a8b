import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.adapters.memory.broker import MemoryBroker, MemoryStreams
from notifier.adapters.memory.members import MemberTable, MemoryMembers
from notifier.core.access import WiderIdentity
from notifier.core.attendance import LAPSE, LINGER, MOST_LISTED, Attendance
from notifier.core.errors import Unavailable
from notifier.core.frames import Start
from notifier.core.hub import Hub
from notifier.core.presence import Exchanged
from tests.support.clock import in_virtual_time, pass_time, quiet
from tests.support.connections import RecordingConnection
from tests.support.observers import RecordingObserver

ROOM = "room:7"


class Member:
    """Fulfils Subscriber: a session that follows its topics."""

    def __init__(self, user: str, *topics: str) -> None:
        self.connection = RecordingConnection()
        self.identity = WiderIdentity(user, 4e9, ("*",), presence=("room:*",))
        self.topics: tuple[str, ...] = (f"user:{user}", "everyone", *topics)

    @property
    def told(self) -> list[dict[str, Any]]:
        """The frames that it got, without their type."""
        frames = self.connection.of_type("presence")
        return [{k: v for k, v in each.items() if k != "type"} for each in frames]

    @property
    def knows(self) -> set[str]:
        """The members by the frames that it got, applied as a client does."""
        known: set[str] = set()
        for frame in self.told:
            known = set(frame["members"]) if "members" in frame else known
            known = (known - set(frame.get("left", ()))) | set(frame.get("joined", ()))
            assert len(known) == frame["count"]
        return known


class SteeredMembers(MemoryMembers):
    """Fulfils Members.

    An `away` one fails, a `slow` one answers late. Each life of the backend has a name.
    """

    away = False
    life = "first"
    slow = 0.0  # seconds

    async def exchange(self, own: Mapping[str, Collection[str]]) -> Exchanged:
        if self.away:
            raise Unavailable("redis", "no answer")
        exchanged = await super().exchange(own)
        await asyncio.sleep(self.slow)
        return exchanged._replace(backend=self.life)


class House:
    """A gateway's attendance, beside others on the same streams."""

    def __init__(self, streams: MemoryStreams, table: MemberTable) -> None:
        broker = MemoryBroker(streams)
        self.observer = RecordingObserver()
        self.hub = Hub(broker, self.observer)
        self.members = SteeredMembers(broker, table)
        self.attendance = Attendance(self.hub, self.members, self.observer)
        self.tasks: list[asyncio.Task[None]] = []

    async def member(self, user: str, *topics: str) -> Member:
        member = Member(user, *(topics or (ROOM,)))
        await self.follow(member, *member.topics)
        self.attendance.attend(member)
        await quiet()
        return member

    async def follow(self, member: Member, *topics: str) -> None:
        def answered(starts: dict[str, Start] | None) -> None:
            assert starts is not None

        self.hub.subscribe(member.connection, dict.fromkeys(topics), answered)
        await quiet()

    def leave(self, member: Member) -> None:
        self.hub.unsubscribe(member.connection, member.topics)
        self.attendance.leave(member)

    def die(self) -> None:
        for task in self.tasks:
            task.cancel()

    async def live(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.hub.tick()
            self.attendance.tick()


@asynccontextmanager
async def gateways(number: int = 1) -> AsyncIterator[list[House]]:
    streams, table = MemoryStreams(), MemberTable()
    made = [House(streams, table) for _ in range(number)]
    async with asyncio.TaskGroup() as tasks:
        for each in made:
            works = (each.hub.run(), each.attendance.run(), each.live())
            each.tasks = [tasks.create_task(work) for work in works]
        yield made
        for each in made:
            each.die()


@in_virtual_time
async def test_the_first_member_gets_the_list_at_once() -> None:
    async with gateways() as [it]:
        ann = await it.member("ann")

        assert ann.told == [{"topic": ROOM, "members": ["ann"], "count": 1}]


@in_virtual_time
async def test_a_member_gets_the_list_and_the_others_the_change_within_a_second() -> None:
    async with gateways() as [it]:
        ann = await it.member("ann")

        bob = await it.member("bob")
        await pass_time(1.5)

        assert bob.told == [{"topic": ROOM, "members": ["ann", "bob"], "count": 2}]
        assert ann.told[1:] == [{"topic": ROOM, "joined": ["bob"], "left": [], "count": 2}]


@in_virtual_time
async def test_changes_of_one_second_come_as_one_frame() -> None:
    async with gateways() as [it]:
        ann = await it.member("ann")

        for name in ("bob", "cid", "dan"):
            await it.member(name)
        await pass_time(1.5)

        [change] = ann.told[1:]
        assert change["joined"] == ["bob", "cid", "dan"]


@in_virtual_time
async def test_a_user_with_several_connections_on_several_gateways_counts_once() -> None:
    async with gateways(2) as [one, other]:
        ann = await one.member("ann")
        second, third = await one.member("ann"), await other.member("ann")
        await pass_time(3)

        one.leave(second)
        other.leave(third)
        await pass_time(2 * LINGER)

        assert [frame["count"] for frame in ann.told] == [1]
        assert third.knows == {"ann"}


@in_virtual_time
async def test_a_member_on_another_gateway_is_told_of() -> None:
    async with gateways(2) as [one, other]:
        ann = await one.member("ann")
        bob = await other.member("bob")
        await pass_time(3)

        assert ann.knows == bob.knows == {"ann", "bob"}


@in_virtual_time
async def test_a_member_that_reconnects_in_time_has_never_left() -> None:
    async with gateways(2) as [one, other]:
        ann, bob = await one.member("ann"), await one.member("bob")
        await pass_time(2)

        one.leave(bob)
        await pass_time(LINGER - 2)
        again = await other.member("bob")
        await pass_time(3 * LINGER)

        assert not [frame for frame in ann.told if frame.get("left")]
        assert again.knows == ann.knows == {"ann", "bob"}


@in_virtual_time
async def test_a_member_whose_connection_is_gone_has_left_some_seconds_later() -> None:
    async with gateways() as [it]:
        ann, bob = await it.member("ann"), await it.member("bob")
        await pass_time(2)

        it.leave(bob)
        await pass_time(LINGER + 2)

        assert ann.told[-1] == {"topic": ROOM, "joined": [], "left": ["bob"], "count": 1}


@in_virtual_time
async def test_a_member_that_unsubscribes_has_left_at_once_and_is_told_nothing_more() -> None:
    async with gateways() as [it]:
        ann, bob = await it.member("ann"), await it.member("bob")
        await pass_time(2)
        told = len(bob.told)

        bob.topics = bob.topics[:2]
        it.attendance.refresh(bob)
        await pass_time(1.5)

        assert ann.knows == {"ann"}
        assert len(bob.told) == told


@in_virtual_time
async def test_a_topic_that_is_followed_later_has_its_members_told_too() -> None:
    async with gateways() as [it]:
        ann = await it.member("ann")

        ann.topics = (*ann.topics, "room:8", "hall:1")
        it.attendance.refresh(ann)
        await pass_time(1.5)

        assert {frame["topic"] for frame in ann.told} == {ROOM, "room:8"}


@in_virtual_time
async def test_a_session_that_did_not_ask_for_presence_is_no_member() -> None:
    async with gateways() as [it]:
        ann, shy = await it.member("ann"), Member("shy", ROOM)

        it.attendance.refresh(shy)
        it.attendance.leave(shy)
        await pass_time(2)

        assert (ann.knows, shy.told) == ({"ann"}, [])


@in_virtual_time
async def test_the_members_of_a_gateway_that_died_are_gone_within_ten_seconds() -> None:
    async with gateways(2) as [one, other]:
        ann = await one.member("ann")
        await other.member("bob")
        await pass_time(3)
        assert ann.knows == {"ann", "bob"}

        other.die()
        await pass_time(LAPSE + 3)

        assert ann.told[-1] == {"topic": ROOM, "joined": [], "left": ["bob"], "count": 1}


@in_virtual_time
async def test_of_many_topics_all_have_the_members_of_a_dead_gateway_removed_in_time() -> None:
    rooms = [f"room:{number}" for number in range(200)]
    async with gateways(2) as [one, other]:
        ann = await one.member("ann", *rooms)
        await other.member("bob", *rooms)
        await pass_time(5)

        other.die()
        await pass_time(LAPSE + 4)

        assert {frame["topic"] for frame in ann.told if frame.get("left") == ["bob"]} == {*rooms}


@in_virtual_time
async def test_a_member_that_leaves_during_an_exchange_has_left_on_other_gateways_too() -> None:
    async with gateways(2) as [one, other]:
        ann = await one.member("ann")
        bob = await other.member("bob")
        await pass_time(3)

        other.members.slow = 0.5
        await pass_time(1.1)  # one is under way now
        bob.topics = bob.topics[:2]
        other.attendance.refresh(bob)
        await pass_time(3)  # before the gateway itself would no longer count

        assert ann.knows == {"ann"}


@in_virtual_time
async def test_an_outage_makes_nobody_leave_and_later_all_is_right_again() -> None:
    async with gateways(2) as [one, other]:
        ann, bob = await one.member("ann"), await other.member("bob")
        await pass_time(3)

        one.members.away = other.members.away = True
        cid = await one.member("cid")
        await pass_time(60)
        one.members.away = False
        await pass_time(1.5)  # the other one is heard a little later
        other.members.away = False
        await pass_time(10)

        assert not [frame for each in (ann, bob) for frame in each.told if frame.get("left")]
        assert ann.knows == bob.knows == cid.knows == {"ann", "bob", "cid"}
        assert ("exchanged", "unavailable") in one.observer.told


@in_virtual_time
async def test_a_backend_that_has_forgotten_everything_makes_nobody_leave() -> None:
    async with gateways(2) as [one, other]:
        ann, bob = await one.member("ann"), await other.member("bob")
        await pass_time(3)

        table = one.members._table  # noqa: SLF001  # as a restarted Redis has lost it
        table.told.clear()
        table.heard.clear()
        one.members.life = other.members.life = "second"
        await pass_time(10)

        assert not [frame for each in (ann, bob) for frame in each.told if frame.get("left")]
        assert ann.knows == bob.knows == {"ann", "bob"}
        assert table.told[ROOM].keys() == {"gateway-0", "gateway-1"}


@in_virtual_time
async def test_a_lost_order_is_made_good_within_half_a_minute() -> None:
    async with gateways(2) as [one, other]:
        ann = await one.member("ann")
        await other.member("bob")
        await pass_time(3)

        one.hub._orders.clear()  # noqa: SLF001  # orders get lost
        await other.member("cid")
        await pass_time(35)

        assert ann.knows == {"ann", "bob", "cid"}


@in_virtual_time
async def test_a_client_without_room_gets_the_whole_list_once_it_has() -> None:
    async with gateways() as [it]:
        ann = await it.member("ann")
        await pass_time(2)

        ann.connection.has_room = False
        await it.member("bob")
        await pass_time(3)
        assert len(ann.told) == 1
        ann.connection.has_room = True
        await pass_time(2)

        assert ann.told[-1] == {"topic": ROOM, "members": ["ann", "bob"], "count": 2}


@in_virtual_time
async def test_past_a_thousand_members_a_count_is_told_and_below_it_the_list_again() -> None:
    async with gateways() as [it]:
        ann = await it.member("ann")
        crowd = [Member(f"u{number}", ROOM) for number in range(MOST_LISTED)]
        for each in crowd:
            it.attendance.attend(each)
        await pass_time(2)
        assert ann.told[-1] == {"topic": ROOM, "count": MOST_LISTED + 1}

        late = await it.member("late")
        await pass_time(1.5)
        assert late.told[0] == {"topic": ROOM, "count": MOST_LISTED + 1}
        await pass_time(10)
        assert late.told[1] == {"topic": ROOM, "count": MOST_LISTED + 2}

        for each in crowd:
            it.attendance.leave(each)
        await pass_time(LINGER + 12)
        assert ann.told[-1] == {"topic": ROOM, "members": ["ann", "late"], "count": 2}


@in_virtual_time
async def test_nothing_is_left_of_topics_without_members() -> None:
    async with gateways(2) as [one, other]:
        members = [(house, await house.member("ann", ROOM, "room:8")) for house in (one, other)]
        await pass_time(3)

        for house, member in members:
            house.leave(member)
        await pass_time(LINGER + 5)

        for house in (one, other):
            assert house.attendance._topics == {}  # noqa: SLF001  # leaks cannot be seen otherwise
            assert house.attendance._topics_of == {}  # noqa: SLF001
        assert one.members._table.told == {}  # noqa: SLF001


@in_virtual_time
async def test_a_gateway_without_members_asks_the_backend_nothing() -> None:
    async with gateways() as [it]:
        it.members.away = True

        await pass_time(60)

        assert it.observer.told == []


USERS = ("ann", "bob", "cid")
HOUSES = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("join"), HOUSES, st.sampled_from(USERS)),
    st.tuples(st.just("leave"), HOUSES, st.integers(0, 5)),
    st.tuples(st.sampled_from(["die", "away", "back"]), HOUSES, st.none()),
    st.tuples(st.just("pass"), HOUSES, st.sampled_from([0.3, 1.0, 4.0, 12.0])),
)


@given(st.lists(STEPS, max_size=25))
@settings(max_examples=settings().max_examples // 2)
def test_any_order_of_joins_leaves_outages_and_deaths_ends_with_the_same_members(
    steps: list[tuple[str, int, Any]],
) -> None:
    in_virtual_time(live_through)(steps)


async def live_through(steps: list[tuple[str, int, Any]]) -> None:
    async with gateways(3) as houses:
        present: list[list[Member]] = [[], [], []]
        dead: set[int] = set()
        for verb, at, more in steps:
            house = houses[at]
            if verb == "pass":
                await pass_time(more)
            elif at in dead:
                continue
            elif verb == "join":
                present[at].append(await house.member(more))
            elif verb == "leave" and present[at]:
                house.leave(present[at].pop(more % len(present[at])))
            elif verb == "die":
                house.die()
                dead.add(at)
            elif verb in ("away", "back"):
                house.members.away = verb == "away"
        for house in houses:
            house.members.away = False
        await pass_time(40)

        left = [member for at, each in enumerate(present) if at not in dead for member in each]
        expected = {member.identity.user for member in left}
        assert all(member.knows == expected for member in left)
