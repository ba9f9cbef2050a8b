"""The promise that the project is about, held against any interleaving that hypothesis finds.

Whatever is published, lost on the way, trimmed, restarted or cut, and whoever comes and goes
meanwhile: each follower gets every event once and in order, or is told of a gap.
"""

import asyncio
import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from notifier.core import crowd
from notifier.core.hub import Hub
from notifier.core.positions import Position
from tests.support.brokers import SteeredBroker
from tests.support.clock import VirtualTimeLoop, pass_time, quiet
from tests.support.followers import Follower, Posted
from tests.support.observers import RecordingObserver

TOPICS = ["news", "sales"]
KEYS = ["", "", "a", "b"]
_TURN = crowd.TURN


class Interleavings(RuleBasedStateMachine):
    """Everything that can happen to a hub, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.runner.run(self._begin())
        self.posted = {topic: Posted() for topic in TOPICS}
        self.here: list[Follower] = []
        self.gone: list[tuple[Follower, int]] = []

    async def _begin(self) -> None:
        self.broker = SteeredBroker(history_size=8, page=3)
        self.broker.live_held = True
        self.hub = Hub(self.broker, RecordingObserver())
        self.work = asyncio.get_running_loop().create_task(self.hub.run(), name="hub")

    @initialize(turn=st.sampled_from([1, 2, crowd.TURN]))
    def write_to_so_many_in_a_turn(self, turn: int) -> None:
        crowd.TURN = turn

    def settle(self) -> None:
        """Let everything happen that can happen at once."""
        self.runner.run(quiet())

    # Moves of producers and of the broker.

    @rule(topic=st.sampled_from(TOPICS), number=st.integers(1, 4), key=st.sampled_from(KEYS))
    def publish(self, topic: str, number: int, key: str) -> None:
        for _ in range(number):
            self._note(topic, self.broker.post(topic, self._name(topic), collapse_key=key), key)

    @rule(topic=st.sampled_from(TOPICS))
    def publish_and_lose_the_live_one(self, topic: str) -> None:
        self._note(topic, self.broker.post_unheard(topic, self._name(topic)))

    @rule(topic=st.sampled_from(TOPICS))
    def publish_what_has_expired(self, topic: str) -> None:
        posted = self.posted[topic]
        posted.excused.add(len(posted.positions))
        self._note(topic, self.broker.post(topic, self._name(topic), expires=1))

    def _name(self, topic: str) -> str:
        return str(len(self.posted[topic].positions))

    def _note(self, topic: str, position: str, key: str = "") -> None:
        self.posted[topic].positions.append(Position.parse(position))
        self.posted[topic].keys.append(key)

    @precondition(lambda self: self.broker.live)
    @rule(number=st.integers(1, 10), turns=st.integers(0, 3), leaves=st.none() | st.integers(0, 9))
    def deliver_live(self, number: int, turns: int, leaves: int | None) -> None:
        """Let publications arrive; after some turns of the loop, somebody may leave."""
        self.runner.run(self._deliver(number, turns, leaves))

    async def _deliver(self, number: int, turns: int, leaves: int | None) -> None:
        self.broker.deliver(number)
        for _ in range(turns):
            await asyncio.sleep(0)
        if leaves is not None and self.here:
            self.leave(leaves)
        await quiet()

    @precondition(lambda self: self.broker.live)
    @rule()
    def lose_the_next_live_one(self) -> None:
        self.broker.live.popleft()

    @precondition(lambda self: self.broker.live)
    @rule()
    def repeat_the_next_live_one(self) -> None:
        self.broker.live.append(self.broker.live[0])

    @rule(topics=st.lists(st.sampled_from(TOPICS), min_size=1))
    def cut(self, topics: list[str]) -> None:
        self.broker.interrupt(topics)
        self.settle()

    @rule(topic=st.sampled_from(TOPICS), keep=st.integers(0, 4))
    def trim(self, topic: str, keep: int) -> None:
        self.broker.trim(topic, keep)

    @rule(topic=st.sampled_from(TOPICS))
    def restart(self, topic: str) -> None:
        self.broker.stream(topic).restart()

    @rule(topic=st.sampled_from(TOPICS), lost=st.integers(0, 2))
    def replace(self, topic: str, lost: int) -> None:
        """Let another process take over, which may have lost the newest, and cut the connection."""
        stream = self.broker.stream(topic)
        lost = min(lost, len(stream.log))
        gone = stream.log[len(stream.log) - lost :]
        self.posted[topic].excused.update(int(json.loads(each.event)["id"]) for each in gone)
        if lost:
            self.broker.rewind(topic, lost)
        stream.go_on()
        self.broker.interrupt([topic])
        self.settle()

    # How calls to the broker go.

    @rule(held=st.booleans())
    def hold(self, held: bool) -> None:  # noqa: FBT001  # drawn by name
        self.broker.held = held

    @precondition(lambda self: self.broker.calls)
    @rule()
    def serve(self) -> None:
        self.broker.calls[0].serve()

    @precondition(lambda self: self.broker.calls)
    @rule()
    def answer(self) -> None:
        self.broker.calls.popleft().answer()
        self.settle()

    @precondition(lambda self: self.broker.calls)
    @rule()
    def fail(self) -> None:
        self.broker.calls.popleft().fail()
        self.settle()

    @rule(away=st.booleans())
    def go_away(self, away: bool) -> None:  # noqa: FBT001  # drawn by name
        self.broker.away = away

    # Moves of clients and of time.

    @rule(topic=st.sampled_from(TOPICS), back=st.integers(0, 20), room=st.booleans())
    def follow(self, topic: str, back: int, room: bool) -> None:  # noqa: FBT001  # drawn by name
        known = len(self.posted[topic].positions)
        since = known - back if 0 < back <= known else None
        self.runner.run(self._follow(topic, since, has_room=room))

    async def _follow(self, topic: str, since: int | None, *, has_room: bool) -> None:
        follower = Follower(self.hub, topic, self.posted[topic], since)
        follower.has_room = has_room
        self.here.append(follower)
        await quiet()

    @precondition(lambda self: self.here)
    @rule(which=st.integers(0, 100), room=st.booleans())
    def keep_up_or_not(self, which: int, room: bool) -> None:  # noqa: FBT001  # drawn by name
        follower = self.here[which % len(self.here)]
        follower.has_room = room
        if room:
            follower.make_room()
            self.settle()

    @precondition(lambda self: self.here)
    @rule(which=st.integers(0, 100))
    def leave(self, which: int) -> None:
        follower = self.here.pop(which % len(self.here))
        follower.leave()
        self.gone.append((follower, len(follower.sent)))

    @rule(seconds=st.sampled_from([1, 1, 1, 3, 11]))
    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.hub.tick()
            self.runner.run(pass_time(1))

    # The end, at which all is true.

    def teardown(self) -> None:
        try:
            self.end()
            assert not self.work.done(), self.work.exception()
        except AssertionError:
            if self.work.done():
                self.work.result()
            raise
        finally:
            crowd.TURN = _TURN
            self.work.cancel()
            self.runner.close()

    def end(self) -> None:
        self.broker.away = False
        self.broker.live_held = False
        self.broker.release()
        for follower in self.here:
            follower.make_room()
        self.wait(3)
        self.runner.run(self._deliver(len(self.broker.live), 0, None))
        self.wait(40)  # nothing is cut here: the checks alone must find what is still missing

        for follower in self.here:
            follower.check_complete()
        for follower, sent in self.gone:
            assert len(follower.sent) == sent, "something came after leaving"


Interleavings.TestCase.settings = settings(
    max_examples=settings().max_examples * 3 // 2, stateful_step_count=40, deadline=None
)
TestInterleavings = Interleavings.TestCase
