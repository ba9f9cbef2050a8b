"""The promise that the project is about, held against any interleaving that hypothesis finds.

Whatever is published, lost on the way, trimmed, restarted or cut, and whoever comes and goes
meanwhile: each follower gets every event once and in order, or is told of a gap.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from notifier.core.frames import Start
from notifier.core.hub import Hub
from notifier.core.positions import Position
from tests.support.brokers import SteeredBroker
from tests.support.clock import VirtualTimeLoop, pass_time, quiet
from tests.support.connections import RecordingConnection
from tests.support.observers import RecordingObserver

TOPICS = ["news", "sales"]


class Follower(RecordingConnection):
    """One stay in one topic, and where it has been served up to."""

    def __init__(self, hub: Hub, topic: str, since: Position | None) -> None:
        super().__init__()
        self.topic = topic
        self.since = since
        self.refused = False
        self._hub = hub
        self._arrival = hub.follow(self, {topic: since}, self._answered)

    def _answered(self, starts: Mapping[str, Start] | None) -> None:
        self.refused = starts is None
        for start in (starts or {}).values():
            position, resumed = start.position, start.resumed is True
            self.sent.append({"type": "start", "position": position, "resumed": resumed})

    def leave(self) -> None:
        self._arrival.gone = True
        self._arrival.withdraw(self.topic)
        self._hub.leave(self, [self.topic])

    def served(self) -> Position | None:
        """Return up to where this follower was served, having found no fault with it."""
        last: Position | None = None
        for frame in self.sent:
            position = Position.parse(frame["position"])
            last = self._checked(frame, last, position)
        return last

    def _checked(self, frame: dict[str, Any], last: Position | None, now: Position) -> Position:
        match frame["type"]:
            case "start":
                assert last is None, "answered twice"
                assert not frame["resumed"] or now == self.since
            case "event":
                assert last is not None, "an event before the answer"
                assert now == (last.epoch, last.offset + 1), f"{now} after {last}: {self.sent}"
            case "gap":
                assert last is not None, "a gap before the answer"
                self._check_gap(frame["reason"], last, now)
            case strange:
                raise AssertionError(strange)
        return now

    def _check_gap(self, reason: str, last: Position, now: Position) -> None:
        if self.sent[1]["type"] == "gap" and last == now:  # the start was the gap's position
            assert self.since is not None
            last = self.since
        assert (reason == "restarted") == (last.epoch != now.epoch), f"{reason} {last} {now}"
        assert reason == "restarted" or now.offset > last.offset, f"{reason} {last} {now}"


class Interleavings(RuleBasedStateMachine):
    """Everything that can happen to a hub, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.runner.run(self._begin())
        self.known: dict[str, list[Position]] = {topic: [] for topic in TOPICS}
        self.here: list[Follower] = []
        self.gone: list[tuple[Follower, int]] = []

    async def _begin(self) -> None:
        self.broker = SteeredBroker(history_size=8, page=3)
        self.broker.live_held = True
        self.hub = Hub(self.broker, RecordingObserver())
        self.work = asyncio.get_running_loop().create_task(self.hub.run(), name="hub")

    def settle(self) -> None:
        """Let everything happen that can happen at once."""
        self.runner.run(quiet())

    # What producers and the broker do.

    @rule(topic=st.sampled_from(TOPICS), number=st.integers(1, 4))
    def publish(self, topic: str, number: int) -> None:
        for _ in range(number):
            self.known[topic].append(Position.parse(self.broker.post(topic)))

    @rule(topic=st.sampled_from(TOPICS))
    def publish_and_lose_the_live_one(self, topic: str) -> None:
        self.known[topic].append(Position.parse(self.broker.post_unheard(topic)))

    @precondition(lambda self: self.broker.live)
    @rule(number=st.integers(1, 3))
    def deliver_live(self, number: int) -> None:
        self.broker.deliver(number)
        self.settle()

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

    # What clients and time do.

    @rule(topic=st.sampled_from(TOPICS), back=st.integers(0, 20))
    def follow(self, topic: str, back: int) -> None:
        known = self.known[topic]
        since = known[-back] if 0 < back <= len(known) else None
        self.runner.run(self._follow(topic, since))

    async def _follow(self, topic: str, since: Position | None) -> None:
        self.here.append(Follower(self.hub, topic, since))
        await quiet()

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

    # What must then be true.

    def teardown(self) -> None:
        try:
            self.end()
        finally:
            self.work.cancel()
            self.runner.close()

    def end(self) -> None:
        self.broker.away = False
        self.broker.live_held = False
        self.broker.release()
        self.wait(3)
        self.broker.deliver()
        self.wait(40)  # nothing is cut here: the checks alone must find what is still missing

        for follower in self.here:
            head = self.broker.stream(follower.topic).head
            assert follower.served() == (None if follower.refused else head)
        for follower, sent in self.gone:
            follower.served()
            assert len(follower.sent) == sent, "something came after leaving"


Interleavings.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=False
)
TestInterleavings = Interleavings.TestCase
