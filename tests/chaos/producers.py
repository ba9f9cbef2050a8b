"""Producers, and clients that publish: they repeat, with the same id, what is not confirmed."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import aio_pika
import httpx
from aio_pika.abc import AbstractConnection, AbstractExchange

from tests.chaos.clients import NEWS, USERS
from tests.chaos.crew import Crew
from tests.support.invariants import Ledger
from tests.support.roles import token

EVERYONE = "everyone"
AWAY = "away"  # a user without a client
UNDELIVERED_AFTER = 2  # seconds, of events that are for this user too
UNSEEN = "unseen"  # another: events for this user expire, or are superseded
REPORTED, EXPIRING, COLLAPSING = "reported", "expiring", "collapsing"  # lanes with reports
SHORT_LIFE = 1  # second, of an expiring event
_BATCH = 6
_FLOOD = 500  # a batch
_CONFIRMING = 5.0  # seconds for which a foreign producer waits for a confirm


@dataclass(frozen=True)
class Posting:
    """An event that is posted until it is confirmed."""

    name: str
    topics: tuple[str, ...]
    lane: Hashable
    size: int = 20
    ttl: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)  # members of the event

    def body(self, *, audience: bool = True) -> dict[str, Any]:
        """As a producer writes it."""
        event: dict[str, Any] = {"type": "chaos", "id": self.name}
        event["data"] = {"text": "x" * self.size}
        event |= {} if self.ttl is None else {"ttl": self.ttl}
        is_due = f"user:{AWAY}" in self.topics
        event |= {"undelivered_after": UNDELIVERED_AFTER} if is_due else {}
        event |= self.more
        return {**event, **(self._audience() if audience else {})}

    def _audience(self) -> dict[str, Any]:
        if self.topics == (EVERYONE,):
            return {"everyone": True}
        if self.topics[0].startswith("user:"):
            return {"users": [topic.removeprefix("user:") for topic in self.topics]}
        return {"topic": self.topics[0]}

    @property
    def routing_key(self) -> str:
        """As a producer over AMQP writes it."""
        [topic] = self.topics
        return topic.replace("user:", "user.") if topic != NEWS else f"topic.{NEWS}"


Publish = Callable[[Posting], Awaitable[bool]]


@dataclass(frozen=True)
class Style:
    """How a producer over AMQP publishes; its pauses are so many times as long as others'.

    It publishes a `burst` of events, of `size` bytes each, before it waits for confirms.
    """

    pause: float = 1.0
    mandatory: bool = True
    topic: str | None = None
    burst: int = 1
    size: int = 20


_USUAL = Style()


class Flow(Crew):
    """All producers, while it is entered; they post unless they are paused.

    Clients publish at `doors`; without them they do not, and nothing is for a user who is away.
    `answers` counts the answers of the api by status; `slowest` is the longest that one took.
    """

    def __init__(
        self,
        ledger: Ledger,
        http: httpx.AsyncClient,
        amqp: str,
        doors: Sequence[str],
        chance: random.Random,
    ) -> None:
        super().__init__()
        self.answers: Counter[int] = Counter()
        self.slowest = 0.0
        self.ttl: int | None = None  # of what is posted from now on
        self.count = 0
        self.http = http
        self._ledger = ledger
        self._amqp = amqp
        self._doors = doors
        self._chance = chance
        self._is_on = asyncio.Event()
        self._is_on.set()
        self._under_way = 0

    def work(self) -> Iterable[Coroutine[Any, Any, None]]:
        """See Crew."""
        always = asyncio.Event()
        always.set()
        usual = [
            *(self._singly(partial(self._next_of, n), self._post_one) for n in range(3)),
            self._in_batches(),
            *(self._over_amqp(f"amqp{n}", _USUAL, always) for n in range(2)),
        ]
        if not self._doors:
            return usual
        talks = (partial(self._next, f"client{n}", NEWS) for n in range(2))
        return [
            *usual,
            self._singly(self._next_for_absent, self._post_one, pause=6),
            *(self._singly(make, self._post_one, pause=6) for make in self._with_reports()),
            *(self._singly(talk, self._publish, pause=4) for talk in talks),
        ]

    def hold(self) -> None:
        """Post nothing new."""
        self._is_on.clear()

    async def pause(self, seconds: float = 60) -> None:
        """Post nothing new, and return when all that was is confirmed."""
        self.hold()
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while self._under_way:
            assert clock() < deadline, f"still not confirmed after {seconds:g} s"
            self.see_that_all_live()
            await asyncio.sleep(0.01)

    def resume(self) -> None:
        """Post on."""
        self.see_that_all_live()
        self._is_on.set()

    async def post(self, postings: Sequence[Posting]) -> None:
        """Post a batch until all of it is confirmed."""
        with self._posting(postings):
            waiting = list(postings)
            while waiting := await self._post_batch(waiting):
                await self._wait()

    @asynccontextmanager
    async def busier(self, producers: int, style: Style) -> AsyncIterator[None]:
        """Add so many producers over AMQP for the length of the block."""
        goes_on = asyncio.Event()
        goes_on.set()
        work = [self._over_amqp(f"busy{n}", style, goes_on) for n in range(producers)]
        tasks = [asyncio.create_task(each, name="producer") for each in work]
        try:
            yield
        finally:
            goes_on.clear()
            await asyncio.gather(*tasks)

    async def flood(self, topics: Sequence[str]) -> list[str]:
        """Post a small event to each of these topics, in no order; returns their names."""
        postings = [self._next(f"flood{n}", topic, size=1) for n, topic in enumerate(topics)]
        for begin in range(0, len(postings), _FLOOD):
            await self.post(postings[begin:][:_FLOOD])
        return [each.name for each in postings]

    # The producers.

    async def _singly(
        self, make: Callable[[], Posting], publish: Publish, pause: float = 1.0
    ) -> None:
        while True:
            await self._turn(pause)
            posting = make()
            with self._posting([posting]):
                while not await publish(posting):
                    await self._wait()

    async def _in_batches(self) -> None:
        while True:
            await self._turn()
            lanes = [f"batch{index}" for index in range(_BATCH)]  # a batch has no order
            await self.post([self._next(lane, self._one_topic()) for lane in lanes])

    async def _over_amqp(self, lane: str, style: Style, goes_on: asyncio.Event) -> None:
        while goes_on.is_set():
            async with self._exchange(style) as publish:
                while goes_on.is_set() and await self._publish_next(lane, style, publish):
                    pass

    # Their events.

    def _one_topic(self) -> str:
        return self._chance.choices(
            [f"user:{self._chance.choice(USERS)}", NEWS, EVERYONE], weights=[8, 1, 1]
        )[0]

    def _next_of(self, number: int) -> Posting:
        return self._next(f"http{number}", *self._some_topics(number))

    def _next_for_absent(self) -> Posting:
        return self._next("absent", f"user:{self._chance.choice(USERS)}", f"user:{AWAY}")

    def _with_reports(self) -> Iterable[Callable[[], Posting]]:
        def asking(lane: str, users: Sequence[str], **more: Any) -> Posting:  # noqa: ANN401  # as JSON has it
            posting = self._next(lane, f"user:{self._chance.choice(users)}")
            return replace(posting, more={"report": True, **more})

        yield partial(asking, REPORTED, USERS)
        yield partial(asking, EXPIRING, [UNSEEN], ttl=SHORT_LIFE)
        yield partial(asking, COLLAPSING, [UNSEEN], collapse_key="newest")

    def _some_topics(self, number: int) -> tuple[str, ...]:
        if number == 0 and self._chance.random() < 0.2:
            return tuple(f"user:{user}" for user in self._chance.sample(USERS, 3))
        return (self._one_topic(),)

    def _next(self, lane: str, *topics: str, size: int = 20) -> Posting:
        self.count += 1
        name = f"{lane}-{self.count}"
        # An event for several users may overtake, where there is more than one partition.
        return Posting(name, topics, lane if len(topics) == 1 else name, size, self.ttl)

    def large(self, lane: str, topic: str, size: int) -> Posting:
        """A large event, for `post`."""
        return self._next(lane, topic, size=size)

    # How they post.

    async def _turn(self, pause: float = 1.0) -> None:
        await asyncio.sleep(self._chance.uniform(0.01, 0.08) * pause)
        await self._is_on.wait()

    async def _wait(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.1, 0.4))

    def _posting(self, postings: Sequence[Posting]) -> "_UnderWay":
        return _UnderWay(self, postings)

    def begin(self, postings: Sequence[Posting]) -> None:
        """Write down what is about to be posted."""
        self._under_way += 1
        now = asyncio.get_running_loop().time()
        for each in postings:
            self._ledger.post(each.name, each.topics, each.lane, now)

    def end(self, postings: Sequence[Posting]) -> None:
        """Write down that it is confirmed."""
        self._under_way -= 1
        for each in postings:
            self._ledger.confirm(each.topics, each.lane)

    async def _post_one(self, posting: Posting) -> bool:
        return await self.answer_to(posting.body()) == httpx.codes.ACCEPTED

    async def _publish(self, posting: Posting) -> bool:
        """Publish as a client does, on any gateway."""
        url = f"http://{self._chance.choice(self._doors)}/v1/publish"
        headers = {"authorization": f"Bearer {token(str(posting.lane), publish=[NEWS])}"}
        body = {"topic": NEWS, "event": posting.body(audience=False)}
        try:
            answer = await self.http.post(url, json=body, headers=headers)
        except httpx.TransportError:
            return False
        later = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert later or answer.is_success, answer.text
        return not later

    async def answer_to(self, body: object) -> int:
        """Post over HTTP, once; the status, or 0 when there was no answer."""
        status, _ = await self._ask(body)
        return status

    async def _ask(self, body: object) -> tuple[int, Any]:
        clock = asyncio.get_running_loop().time
        begin = clock()
        try:
            answer = await self.http.post("/v1/events", json=body)
        except httpx.TransportError:
            return 0, None
        finally:
            self.slowest = max(self.slowest, clock() - begin)
        self.answers[answer.status_code] += 1
        return answer.status_code, answer.json()

    async def _post_batch(self, postings: list[Posting]) -> list[Posting]:
        """Post, and return what was not accepted."""
        _, answer = await self._ask([posting.body() for posting in postings])
        if answer is None:
            return postings
        statuses = [result["status"] for result in answer["results"]]
        pairs = zip(postings, statuses, strict=True)
        return [posting for posting, status in pairs if status != httpx.codes.ACCEPTED]

    async def _publish_next(self, lane: str, style: Style, publish: Publish) -> bool:
        await self._turn(style.pause)
        topics = [style.topic or self._one_topic() for _ in range(style.burst)]
        postings = [self._next(lane, topic, size=style.size) for topic in topics]
        with self._posting(postings):
            confirmed = await asyncio.gather(*map(publish, postings))
            for posting in (
                each for each, done in zip(postings, confirmed, strict=True) if not done
            ):
                while not await self._publish_anew(posting, style):
                    await self._wait()
        return all(confirmed)

    async def _publish_anew(self, posting: Posting, style: Style) -> bool:
        async with self._exchange(style) as publish:
            return await publish(posting)

    @asynccontextmanager
    async def _exchange(self, style: Style) -> AsyncIterator[Publish]:
        """Connect, and give a function that publishes and says whether it was confirmed."""
        connection: list[AbstractConnection] = []
        exchange: list[AbstractExchange] = []

        async def connect() -> None:
            connection.append(await aio_pika.connect(self._amqp, timeout=_CONFIRMING))
            channel = await connection[0].channel(on_return_raises=True)
            exchange.append(await channel.get_exchange("notifier.events", ensure=False))

        async def publish(posting: Posting) -> bool:
            if not exchange:
                return False
            body = json.dumps(posting.body(audience=False)).encode()
            message = aio_pika.Message(body, message_id=posting.name, delivery_mode=2)
            sent = exchange[0].publish(message, posting.routing_key, mandatory=style.mandatory)
            return await _succeeds(sent)

        await _succeeds(connect())
        try:
            yield publish
        finally:
            for each in connection:
                await _succeeds(each.close())


class _UnderWay:
    def __init__(self, flow: Flow, postings: Sequence[Posting]) -> None:
        self._flow = flow
        self._postings = postings

    def __enter__(self) -> None:
        self._flow.begin(self._postings)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flow.end(self._postings)


async def _succeeds(work: Awaitable[object]) -> bool:
    """Whether this came to its end, in time; what aio_pika raises may be anything."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    done, _ = await asyncio.wait([task], timeout=_CONFIRMING)
    if not done:
        task.cancel()
        await asyncio.wait([task], timeout=1)
        return False
    return not task.cancelled() and task.exception() is None
