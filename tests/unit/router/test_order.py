"""Of one topic in order and each once, whatever overtakes what, and whenever a router dies."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from notifier.adapters.memory.queue import MemoryEventQueue
from notifier.core.entries import Entry
from notifier.router.order import CHUNK, LARGE
from notifier.router.router import Router
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import SteeredBroker, shared_ports_of
from tests.support.clock import in_virtual_time, quiet

STEP = CHUNK // 2
_LAST = 8 * STEP + LARGE
Users = tuple[int, int]  # from, and how many

one = st.integers(0, _LAST // STEP).map(lambda number: (number * STEP, 1))
many = st.tuples(st.integers(0, 8).map(lambda number: number * STEP), st.just(LARGE + 1))
moves = st.lists(
    st.tuples(st.sampled_from(["answer", "answer", "answer", "serve", "die"]), st.integers(0, 9)),
    max_size=40,
)


def entry(number: int, users: Users) -> Entry:
    first, count = users
    names = [str(user) for user in range(first, first + count)]
    body = {"type": "t", "id": str(number), "source": "a", "users": names}
    return Entry(json.dumps(body).encode())


def seen(broker: SteeredBroker, topics: dict[str, list[str]]) -> dict[str, list[str]]:
    """The history of each topic."""
    return {topic: list(_ids(broker, topic)) for topic in topics}


def _ids(broker: SteeredBroker, topic: str) -> Iterator[str]:
    for publication in broker.stream(topic).log:
        yield json.loads(publication.event)["id"]


class Routers:
    """Routers, one after another, at one queue and one broker."""

    def __init__(self) -> None:
        self.queue = MemoryEventQueue()
        self.broker = SteeredBroker()
        self.broker.held = True

    async def begin(self) -> None:
        await self.queue.__aenter__()
        self._running = asyncio.create_task(
            Router(self.queue, shared_ports_of(self.broker), Metrics()).run(), name="router"
        )
        await quiet()

    async def die(self) -> None:
        """End without a word: what is not acked comes again."""
        self._running.cancel()
        await asyncio.wait([self._running])
        self.broker.calls.clear()
        await self.queue.__aexit__(None, None, None)
        await self.begin()

    async def move(self, how: str, which: int) -> None:
        if how == "die":
            await self.die()
        elif calls := self.broker.calls:
            call = calls[which % len(calls)]
            call.serve()
            if how == "answer":
                calls.remove(call)
                call.answer()
            await quiet()

    async def finish(self) -> None:
        self.broker.release()
        await quiet()
        self.queue.stop()
        await self._running
        await self.queue.__aexit__(None, None, None)


@given(st.lists(st.one_of(one, one, many), min_size=1, max_size=8), moves)
@settings(max_examples=settings().max_examples // 2)
def test_each_topic_gets_its_events_in_order_and_each_once(
    events: list[Users], moves: list[tuple[str, int]]
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        it = Routers()
        expected = defaultdict[str, list[str]](list)
        for number, (first, count) in enumerate(events):
            await it.queue.put(entry(number, (first, count)))
            for user in range(first, first + count):
                expected[f"user:{user}"].append(str(number))
        await it.begin()

        for how, which in moves:
            await it.move(how, which)
        await it.finish()

        assert seen(it.broker, expected) == expected
        assert not await _comes_again(it.queue)

    scenario()


async def _comes_again(queue: MemoryEventQueue) -> bool:
    async with queue:
        batches = asyncio.ensure_future(anext(queue.batches()))
        await quiet()
        return batches.done() or not batches.cancel()
