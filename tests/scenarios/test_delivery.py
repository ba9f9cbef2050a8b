"""The main job: who gets what, by every way in, through several processes of each role."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from tests.support.clients import Client, connected
from tests.support.invariants import assert_delivered, assert_in_order
from tests.support.producers import amqp_producer, amqp_publish, http_producer
from tests.support.roles import KEY, TOKENS, Role, running, token

Event = dict[str, Any]
END: Event = {"everyone": True, "type": "end", "id": "the-end"}


async def test_everybody_gets_exactly_their_events_in_order(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    with cluster(tmp_path, amqp_url, redis_url) as running_cluster:
        await deliver(running_cluster, count=1_500, people=150)


async def test_with_partitions_each_client_gets_exactly_its_events_in_order(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    with cluster(tmp_path, amqp_url, redis_url, NOTIFIER_PARTITIONS="3") as running_cluster:
        await deliver(running_cluster, count=600, people=60)


@dataclass(frozen=True)
class Cluster:
    """1 api, 2 routers and 3 gateways."""

    api: Role
    gateways: Sequence[Role]
    amqp_url: str


@contextmanager
def cluster(logs: Path, amqp_url: str, redis_url: str, **settings: str) -> Iterator[Cluster]:
    amqp, redis = {"NOTIFIER_AMQP_URL": amqp_url}, {"NOTIFIER_REDIS_URL": redis_url}
    api = Role("api", logs / "api.log", **amqp, NOTIFIER_API_KEYS=KEY.entry, **settings)
    routers = [
        Role("router", logs / f"router-{n}.log", **amqp, **redis, **settings) for n in range(2)
    ]
    gateways = [Role("gateway", logs / f"gateway-{n}.log", **redis, **TOKENS) for n in range(3)]
    with running(api, *routers, *gateways):
        yield Cluster(api, gateways, amqp_url)


# The listeners.


@dataclass(frozen=True)
class Person:
    """User number `n`; each third follows its team's topic and the news."""

    n: int

    @property
    def user(self) -> str:
        return f"u{self.n}"

    @property
    def topics(self) -> tuple[str, ...]:
        return () if self.n % 3 else (f"team:{self.n % 10}:lunch", "news")

    @property
    def token(self) -> str:
        return token(self.user, "news", f"team:{self.n % 10}:*")

    @property
    def streams(self) -> tuple[str, ...]:
        return (f"user:{self.user}", "everyone", *self.topics)


@dataclass(frozen=True)
class Stay:
    """One of the two connections of a person."""

    person: Person
    client: Client

    async def read(self, count: int) -> None:
        await self.client.read_until(lambda client: len(client.events) >= count)


async def connect_all(
    cluster: Cluster, people: Sequence[Person], leave: AsyncExitStack
) -> list[Stay]:
    """Connect each to two gateways; one's topics stand in the URL, the other's in frames."""
    stays = []
    for person in people:
        here, there = (cluster.gateways[(person.n + step) % 3].gateway_url for step in (0, 1))
        named = connected(here, person.token, topics=person.topics)
        stays.append(Stay(person, await leave.enter_async_context(named)))
        subscribing = await leave.enter_async_context(connected(there, person.token))
        for topic in person.topics:
            await subscribing.follow(topic)
        stays.append(Stay(person, subscribing))
    return stays


# The events.


def events(count: int, people: int) -> list[Event]:
    """Events for one user, a list of users, a topic and everyone."""
    return [
        {**audience(n, people), "type": "test", "id": f"e{n}", "data": {"n": n}}
        for n in range(count)
    ]


def audience(n: int, people: int) -> Event:
    match n % 100:
        case 0:
            return {"everyone": True}
        case rest if rest <= 10:
            return {"topic": "news" if rest % 2 else f"team:{n // 100 % 10}:lunch"}
        case rest if rest <= 20:
            return {"users": [f"u{(n * 7 + step) % people}" for step in range(5)]}
        case _:
            return {"users": [f"u{n * 13 % people}"]}


def key_of(event: Event) -> str:
    """Return the routing key that says the same as the body."""
    match event:
        case {"users": [user]}:
            return f"user.{user}"
        case {"topic": topic}:
            return f"topic.{topic}"
        case {"everyone": True}:
            return "everyone"
        case _:
            return "several"


def ids_by_stream(posted: Sequence[Event]) -> dict[str, set[str]]:
    ids = defaultdict(set)
    for event in posted:
        users = [f"user:{user}" for user in event.get("users", ())]
        for stream in users or [event.get("topic", "everyone")]:
            ids[stream].add(event["id"])
    return ids


def places_of(thirds: Sequence[Sequence[Event]]) -> dict[str, tuple[str, int]]:
    """Number the events of one producer and routing key; those for several have no order."""
    return {
        event["id"]: (f"{producer} {key_of(event)}", number)
        for producer, third in enumerate(thirds)
        for number, event in enumerate(third)
        if key_of(event) != "several"
    }


# How it is posted.


async def post_singly(url: str, posted: Sequence[Event]) -> None:
    """Post over HTTP side by side, those with one key one after another."""
    lanes = defaultdict(list)
    for event in posted:
        lanes[crc32(key_of(event).encode()) % 8].append(event)
    async with http_producer(url) as producer, asyncio.TaskGroup() as tasks:

        async def post(lane: Sequence[Event]) -> None:
            assert [await producer.send(event) for event in lane] == [e["id"] for e in lane]

        for lane in lanes.values():
            tasks.create_task(post(lane))


async def post_in_batches(url: str, posted: Sequence[Event]) -> None:
    async with http_producer(url) as producer:
        for start in range(0, len(posted), 250):
            batch = posted[start : start + 250]
            assert await producer.send_batch(batch) == [event["id"] for event in batch]


async def publish(url: str, posted: Sequence[Event]) -> None:
    """Publish over AMQP, the audience in the routing key where it fits; the last by a program."""

    def split(event: Event) -> tuple[Event, str]:
        if (key := key_of(event)) == "several":
            return event, key
        return {name: event[name] for name in ("type", "id", "data")}, key

    async with amqp_producer(url) as producer:
        for event in posted[:-5]:
            await producer.send(*split(event))
    for event in posted[-5:]:
        await amqp_publish(url, *split(event))


async def post_all(cluster: Cluster, thirds: Sequence[Sequence[Event]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(post_singly(cluster.api.api_url, thirds[0]))
        tasks.create_task(post_in_batches(cluster.api.api_url, thirds[1]))
        tasks.create_task(publish(cluster.amqp_url, thirds[2]))


async def deliver(cluster: Cluster, *, count: int, people: int) -> None:
    """Post events in three ways while everybody listens, and compare what each client got."""
    posted = events(count, people)
    thirds = [posted[start::3] for start in range(3)]
    ids = ids_by_stream([*posted, END])

    async with AsyncExitStack() as leave:
        stays = await connect_all(cluster, [Person(n) for n in range(people)], leave)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(post_all(cluster, thirds))
            for stay in stays:
                wanted = sum(len(ids[stream]) for stream in stay.person.streams)
                tasks.create_task(stay.read(wanted - 1))
        async with http_producer(cluster.api.api_url) as producer:
            await producer.send(END)
        for stay in stays:
            # An event for the wrong client has come before this.
            await stay.client.read_until(lambda client: client.events[-1:] == [END["id"]])

    places = places_of(thirds)
    for stay in stays:
        assert_delivered(stay.client.frames, {s: ids[s] for s in stay.person.streams})
        assert_in_order(stay.client.events, places)
