"""The promises of the broker on Redis beyond its port: above all while Redis fails.

Each trap of redis-py that the adapter avoids has its test here.
"""

import asyncio
import errno
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from hashlib import blake2b
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
import redis
import uvloop
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.connection import AbstractConnection
from structlog.testing import capture_logs

from notifier.adapters.redis import broker as redis_broker
from notifier.adapters.redis import clock as redis_clock
from notifier.adapters.redis.broker import RedisBroker
from notifier.adapters.redis.connection import transport_of
from notifier.adapters.redis.control import RedisControl
from notifier.adapters.redis.pool import Pool
from notifier.core.background import Background
from notifier.core.errors import Failed, Refused, Unavailable
from notifier.core.events import SILENT
from notifier.core.history import Before, Published, Since
from notifier.core.positions import Position
from notifier.core.publications import NewPublication, Publication
from notifier.core.signals import Kind, Signal
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import record
from tests.support.eventually import eventually
from tests.support.listening import Listening
from tests.support.proxy import Proxy
from tests.support.services import RedisServer
from tests.support.tls import expiry, expiry_of, tls_in_front_of

pytestmark = pytest.mark.services


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A client of an operator's own."""
    with closing(redis.Redis.from_url(server.url, decode_responses=True)) as client:
        yield client


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def broker(server: RedisServer, metrics: Metrics) -> AsyncIterator[RedisBroker]:
    """A broker that notices a silent Redis after half a second."""
    async with RedisBroker(
        server.url, metrics=metrics, ping_seconds=0.1, silence_seconds=0.5
    ) as broker:
        yield broker


def new(topic: str, name: str = "x", key: str | None = None) -> NewPublication:
    return NewPublication(topic, key or name, record(name))


async def follow(broker: RedisBroker, *topics: str) -> Listening:
    listening = Listening()
    broker.listen(listening)
    await broker.subscribe(topics)
    return listening


async def published(broker: RedisBroker, publication: NewPublication) -> Position:
    """Publish, as a router does: until Redis takes it."""
    async with asyncio.timeout(15):
        while True:
            with suppress(Unavailable):
                [answer] = await broker.publish([publication])
                assert isinstance(answer, Published)
                return answer.position


def limited(server: RedisServer, client: redis.Redis, **rights: Any) -> str:  # noqa: ANN401 - as redis-py takes them
    """Return the URL of a user that has these rights alone."""
    client.acl_setuser("limited", enabled=True, passwords="+pw", **rights)
    return server.url.replace("redis://", "redis://limited:pw@")


async def trouble(broker: RedisBroker, expected: str) -> None:
    """Return when the broker has trouble that contains this."""
    await until(lambda: expected in (broker.trouble or ""))


async def each_subscriber_is_lost(broker: RedisBroker) -> None:
    """Return when all connections that subscribe are lost: each notices it by itself."""
    subscribers = broker._subscribers  # noqa: SLF001  # the trouble of one hides the others'
    await until(lambda: all(each.trouble for each in subscribers))


async def no_trouble(broker: RedisBroker) -> None:
    """Return when the broker has no trouble any more."""
    await until(lambda: broker.trouble is None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)


def reconnects(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("notifier_reconnects_total", {"backend": "redis"}) or 0


def pings_seen(client: redis.Redis) -> int:
    statistics: Any = client.info("commandstats")
    return int(statistics.get("cmdstat_ping", {"calls": 0})["calls"])


def subscribing_connections(client: redis.Redis) -> list[dict[str, str]]:
    listed: Any = client.client_list(_type="pubsub")
    return list(listed)


# The streams in Redis.


async def test_a_stream_lives_under_keys_of_one_slot_that_expire(
    broker: RedisBroker, client: redis.Redis
) -> None:
    position = await published(broker, new("news", "a", key="k"))

    assert sorted(client.scan_iter()) == [
        "notifier:{news}:head",
        "notifier:{news}:ids",
        "notifier:{news}:log",
    ]
    run_id = str(client.info("server")["run_id"])
    head = {"epoch": position.epoch, "offset": "1", "run": run_id, "lineage": ""}
    assert client.hgetall("notifier:{news}:head") == head
    assert client.xrange("notifier:{news}:log") == [("1-0", {"r": '0:0:\n{"id":"a"}'})]
    assert client.strlen("notifier:{news}:ids") == 16
    lives = [client.ttl(f"notifier:{{news}}:{key}") for key in ("head", "log", "ids")]
    assert lives == pytest.approx([172_800, 86_400, 3_600], abs=10)


async def test_reading_keeps_a_head_from_expiring(broker: RedisBroker, client: redis.Redis) -> None:
    await published(broker, new("news"))
    client.expire("notifier:{news}:head", 10)

    await broker.read([Since("news")])

    assert client.ttl("notifier:{news}:head") == pytest.approx(172_800, abs=10)


async def test_reading_again_and_again_writes_nothing(metrics: Metrics) -> None:
    questions = [Since("news", 0), Since("unused")]
    with (
        RedisServer(appendonly="yes", appendfsync="always") as server,
        closing(redis.Redis.from_url(server.url)) as client,
    ):
        async with RedisBroker(server.url, metrics=metrics) as broker:
            empty = written(client)
            await published(broker, new("news"))
            await broker.read(questions)
            before = written(client)

            for _ in range(10):
                await broker.read(questions)

            assert written(client) == before > empty


def written(client: redis.Redis) -> int:
    """How many bytes went to the append-only file."""
    persistence: Any = client.info("persistence")
    return int(persistence["aof_current_size"])


async def test_the_head_of_a_topic_without_publications_does_not_stay_for_long(
    broker: RedisBroker, client: redis.Redis
) -> None:
    await broker.read([Since("news")])

    assert client.ttl("notifier:{news}:head") == pytest.approx(3_600, abs=10)


async def test_a_personal_topic_stays_as_long_as_an_inbox(
    broker: RedisBroker, client: redis.Redis
) -> None:
    await broker.publish([new(topic, topic) for topic in ("user:42", "news")])
    await broker.read([Since("user:42"), Before("user:42")])

    days = {
        key: round(int(client.ttl(f"notifier:{{{key}")) / 86_400)
        for key in ("user:42}:log", "user:42}:head", "news}:log", "news}:head")
    }
    assert list(days.values()) == [30, 60, 1, 2]


async def test_counting_does_not_fetch_whole_events(broker: RedisBroker) -> None:
    await broker.publish([NewPublication("news", "a", b"0:0:\n" + b"x" * 60_000)])

    [told] = await broker.read([Before("news", beginning=len(SILENT))])

    assert len(told.publications[0].event) < 100


async def test_an_expired_head_takes_its_log_and_keys_with_it(
    broker: RedisBroker, client: redis.Redis
) -> None:
    first = await published(broker, new("news", "a"))
    client.delete("notifier:{news}:head")

    [history] = await broker.read([Since("news", 0)])
    second = await published(broker, new("news", "a"))

    assert history.head.epoch != first.epoch
    assert (history.head.offset, list(history.publications)) == (0, [])
    assert second == Position(history.head.epoch, 1)


async def test_a_head_that_cannot_be_read_begins_anew(
    broker: RedisBroker, client: redis.Redis
) -> None:
    await published(broker, new("news", "a"))
    client.hset("notifier:{news}:head", "offset", "nonsense")

    assert (await published(broker, new("news", "b"))).offset == 1


async def test_a_duplicate_is_dropped_within_the_deduplication_window_and_no_longer(
    broker: RedisBroker, client: redis.Redis
) -> None:
    now: Any = client.time()
    ids = entry("old", now[0] - 3_601) + entry("young", now[0] - 3_500)
    client.set("notifier:{news}:ids", ids)
    await broker.read([Since("news")])
    client.set("notifier:{news}:ids", ids)  # for the head that there is now

    answers = await broker.publish([new("news", "young"), new("news", "old"), new("news", "old")])

    assert [a.duplicate for a in answers if isinstance(a, Published)] == [True, False, True]


def entry(key: str, seconds: int) -> bytes:
    """The topic's memory of a key that it saw at that time."""
    return blake2b(key.encode(), digest_size=10).digest() + (1_000 * seconds).to_bytes(6, "big")


async def test_expired_keys_are_removed_once_they_are_half_of_all(
    broker: RedisBroker, client: redis.Redis
) -> None:
    now: Any = client.time()
    await broker.read([Since("news")])
    old = [entry(f"old-{number}", now[0] - 3_601) for number in range(6)]
    young = [entry(f"young-{number}", now[0] - 60) for number in range(4)]
    client.set("notifier:{news}:ids", b"".join(old + young))

    answers = await broker.publish([new("news", "a"), new("news", "young-3")])

    assert client.strlen("notifier:{news}:ids") == 16 * 5
    assert [a.duplicate for a in answers if isinstance(a, Published)] == [False, True]


async def test_a_busy_topic_drops_duplicates_by_keys_in_strings_of_a_bounded_length(
    broker: RedisBroker, client: redis.Redis, metrics: Metrics
) -> None:
    count = 20_000
    batch = [new("news", str(number)) for number in range(count)]

    first = await broker.publish(batch)
    again = await broker.publish(batch)

    assert not any(answer.duplicate for answer in first if isinstance(answer, Published))
    assert all(answer.duplicate for answer in again if isinstance(answer, Published))
    lengths = [client.strlen(name) for name in client.scan_iter("notifier:{news}:ids*")]
    assert (sum(lengths), max(lengths) <= 2_048 + 16) == (16 * count, True)
    lives = [client.ttl(name) for name in client.scan_iter("notifier:{news}:ids*")]
    assert 0 < min(lives) <= max(lives) <= 3_600
    assert metrics.registry.get_sample_value("notifier_deduplication_cuts_total") == 0


async def test_a_topic_at_its_bound_forgets_the_oldest_and_counts_it(
    broker: RedisBroker, client: redis.Redis, metrics: Metrics
) -> None:
    now: Any = client.time()
    await broker.read([Since("news")])
    client.hset("notifier:{news}:head", "spread", "token:15")
    hash_of_new = int.from_bytes(blake2b(b"new", digest_size=10).digest()[:2], "big") % 2**15
    name = f"notifier:{{news}}:ids:token:15:{hash_of_new}"
    client.set(name, b"".join(entry(f"old-{number}", now[0] - 60) for number in range(128)))

    await broker.publish([new("news", "new")])

    assert client.strlen(name) == 16 * (96 + 1)
    assert metrics.registry.get_sample_value("notifier_deduplication_cuts_total") == 1


async def test_keys_left_by_a_lost_head_of_a_busy_topic_do_not_count(
    broker: RedisBroker, client: redis.Redis
) -> None:
    batch = [new("news", str(number)) for number in range(1_000)]
    await broker.publish(batch)
    client.delete("notifier:{news}:head")

    answers = await broker.publish(batch)

    assert [a.duplicate for a in answers if isinstance(a, Published)] == [False] * 1_000


async def test_the_collapse_keys_that_are_remembered_are_bounded(server: RedisServer) -> None:
    with closing(redis.Redis.from_url(server.url, decode_responses=True)) as client:
        async with RedisBroker(server.url, metrics=Metrics(), history_size=20) as broker:
            await broker.publish(
                [NewPublication("news", str(n), record("x"), f"key {n}") for n in range(400)]
            )

        remembered = client.hgetall("notifier:{news}:newest")
        assert {f"key {n}": str(n + 1) for n in range(380, 400)}.items() <= remembered.items()
        assert len(remembered) <= 2 * 20 + 16
        assert 0 < client.ttl("notifier:{news}:newest") <= 86_400


async def test_a_foreign_entry_in_a_stream_fails_that_topic_only(
    broker: RedisBroker, client: redis.Redis
) -> None:
    client.set("notifier:{string}:head", "not a hash")
    await published(broker, new("ahead", "before"))
    client.xadd("notifier:{ahead}:log", {"r": "?"}, id="7-0")
    batch = [new("news", "a"), new("string", "b"), new("ahead", "c"), new("news", "d")]

    first, of_string, of_ahead, last = await broker.publish(batch)
    histories = await broker.read([Since("string", 0), Since("ahead", 0), Since("news", 0)])

    assert isinstance(first, Published)
    assert last == Published(first.position._replace(offset=2))
    assert isinstance(of_string, Refused)
    assert isinstance(of_ahead, Refused)
    assert client.hget("notifier:{ahead}:head", "offset") == "1"
    assert [len(history.publications) for history in histories] == [0, 0, 2]
    assert broker.trouble is None


# Of an error that nobody foresaw: a script fails at an offset that is no number of Redis'.
BROKEN_HEAD: Any = {"epoch": "e", "offset": "1e300"}


async def test_an_unforeseen_error_fails_one_topic_and_is_logged_with_the_script(
    broker: RedisBroker, client: redis.Redis
) -> None:
    client.hset("notifier:{odd}:head", mapping=BROKEN_HEAD)
    batch = [new("news", "a"), new("odd", "b"), new("odd", "c"), new("news", "d")]

    with capture_logs() as logs:
        first, failed, behind, last = await broker.publish(batch)
        odd, news = await broker.read([Before("odd", 2**70), Since("news", 0)])

    assert isinstance(first, Published)
    assert last == Published(first.position._replace(offset=2))
    assert isinstance(failed, Failed)
    assert behind is failed
    assert len(news.publications) == 2
    assert isinstance(odd.failure, Failed)
    assert broker.trouble is None
    told = {line["call"] for line in logs if line["event"] == "redis_call_failed"}
    assert told == {"publish", "read"}


async def test_a_topic_without_rights_fails_alone_in_a_batch(
    server: RedisServer, client: redis.Redis
) -> None:
    keys = ["notifier:{news}*", "notifier:{sales}*"]
    url = limited(server, client, keys=keys, channels="*", commands=["+@all"])

    async with RedisBroker(url, metrics=Metrics()) as broker:
        batch = [new("news", "a"), new("odd", "b"), new("sales", "c"), new("news", "d")]
        answers = await broker.publish(batch)
        odd, _ = await broker.read([Since("odd", 0), Since("news", 0)])

        assert [type(each) for each in answers] == [Published, Failed, Published, Published]
        assert isinstance(odd.failure, Failed)
        assert broker.trouble is None


async def test_a_signal_to_a_channel_without_rights_fails_alone(
    server: RedisServer, client: redis.Redis
) -> None:
    channels = ["notifier:{news}*"]
    url = limited(server, client, keys="*", channels=channels, commands=["+@all"])

    async with RedisBroker(url, metrics=Metrics()) as broker:
        listening = await follow(broker, "news")
        typing = [Signal(each, Kind.FRAME, "typing", b"{}") for each in ("news", "odd", "news")]
        answers = await broker.signal(typing)

        assert [type(each) for each in answers] == [type(None), Failed, type(None)]
        assert [await listening.next_signal() for _ in range(2)] == [typing[0], typing[2]]
        assert broker.trouble is None


async def test_a_user_that_may_run_no_script_is_a_trouble_of_the_broker(
    server: RedisServer, client: redis.Redis
) -> None:
    url = limited(server, client, keys="*", commands=["+@all", "-eval"])

    async with RedisBroker(url, metrics=Metrics()) as broker:
        with pytest.raises(Unavailable, match="permissions"):
            await broker.read([Since("news")])

        assert "permissions" in str(broker.trouble)


async def test_a_foreign_message_on_a_channel_is_ignored(
    broker: RedisBroker, client: redis.Redis
) -> None:
    listening = await follow(broker, "news")

    for nonsense in ("", "nonsense", "a:b:c", "a:1:", "a:1:x:0:\n{}"):
        client.publish("notifier:{news}", nonsense)
    await published(broker, new("news", "a"))

    assert await listening.next_events(1) == [b'{"id":"a"}']


async def test_scripts_forgotten_by_redis_are_loaded_again(
    broker: RedisBroker, client: redis.Redis
) -> None:
    await published(broker, new("news", "a"))
    client.script_flush()

    answers = await broker.publish([new("news", "b"), new("news", "c")])

    assert [a.position.offset for a in answers if isinstance(a, Published)] == [2, 3]


async def test_scripts_forgotten_amid_questions_are_loaded_again(
    broker: RedisBroker, server: RedisServer
) -> None:
    position = await published(broker, new("news", "a"))
    async with AsyncRedis.from_url(server.url) as forgetful, asyncio.timeout(20):
        while "errorstat_NOSCRIPT" not in await forgetful.info("errorstats"):
            forgetting = asyncio.gather(*(forgetful.script_flush() for _ in range(20)))

            histories = await broker.read([Since("news")] * 500)

            await forgetting
            assert [history.head for history in histories] == [position] * 500


async def test_a_cancelled_question_leaves_no_answer_for_the_next(
    broker: RedisBroker, server: RedisServer
) -> None:
    position = await published(broker, new("news"))
    server.pause()
    asking = asyncio.gather(*(broker.read([Since("sales")]) for _ in range(20)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asking, 0.1)

    server.resume()

    histories = [(await broker.read([Since("news")]))[0] for _ in range(20)]
    assert {history.head for history in histories} == {position}


async def test_a_burst_of_questions_waits_for_a_few_connections(
    broker: RedisBroker, client: redis.Redis
) -> None:
    position = await published(broker, new("news"))

    answers = await asyncio.gather(*(broker.read([Since("news")]) for _ in range(500)))

    assert {answer[0].head for answer in answers} == {position}
    connected: Any = client.info("clients")
    assert connected["connected_clients"] <= 17


# Redis that refuses now and then: nothing is published behind a publication that was refused.

SWITCHED = {
    "memory": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "replicas": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    "scripts": (("SCRIPT", "FLUSH"),),
}


@pytest.mark.parametrize("switch", SWITCHED)
async def test_publications_stay_in_order_while_redis_refuses_some(
    server: RedisServer, client: redis.Redis, switch: str
) -> None:
    names: list[str] = []
    async with (
        RedisBroker(server.url, metrics=Metrics(), history_size=1_000_000) as broker,
        AsyncRedis.from_url(server.url) as operator,
        Background() as background,
        asyncio.timeout(60),
    ):
        switching = background.start(switched_again_and_again(operator, switch), "switching")
        while not switching.done():
            batch = [str(len(names) + number) for number in range(500)]
            await publish_as_a_router(broker, [new("news", name) for name in batch])
            names += batch

    log: Any = client.xrange("notifier:{news}:log")
    assert [fields["r"] for _, fields in log] == [record(name).decode() for name in names]


async def switched_again_and_again(operator: AsyncRedis, switch: str) -> None:
    for _ in range(50):
        for command in SWITCHED[switch]:
            await operator.execute_command(*command)  # type: ignore[no-untyped-call]


async def publish_as_a_router(broker: RedisBroker, batch: list[NewPublication]) -> None:
    while batch:
        with suppress(Unavailable):
            answers = zip(batch, await broker.publish(batch), strict=True)
            batch = [new for new, answer in answers if isinstance(answer, Unavailable)]


async def test_of_a_batch_that_redis_refuses_nothing_is_published(
    broker: RedisBroker, client: redis.Redis
) -> None:
    client.config_set("min-replicas-to-write", 1)

    with pytest.raises(Unavailable, match="replicas"):
        await broker.publish([new(f"topic-{number}") for number in range(250)])

    assert client.dbsize() == 0


async def test_no_publication_to_its_topic_follows_one_that_failed(
    server: RedisServer, client: redis.Redis
) -> None:
    may_append = ["(+xadd ~notifier:{sales}*)"]
    url = limited(server, client, keys="*", channels="*")
    operator: Any = client
    operator.execute_command("ACL", "SETUSER", "limited", "+@all", "-xadd", *may_append)

    async with RedisBroker(url, metrics=Metrics()) as broker:
        await published(broker, new("sales", "a"))
        answers = await broker.publish([new("news", "b"), new("sales", "c"), new("news", "d")])

        assert [type(each) for each in answers] == [Failed, Published, Failed]
    assert client.xlen("notifier:{sales}:log") == 2
    assert not client.exists("notifier:{news}:log", "notifier:{news}:head")


async def test_answers_from_before_redis_went_away_are_told(
    server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_broker, "_MOST_PUBLICATIONS", 2)
    async with RedisBroker(server.url, metrics=Metrics()) as broker:
        commands = broker._commands  # noqa: SLF001  # no other way between two round trips
        run_once, calls = commands.run_once, count()

        async def once(*given: Any) -> tuple[str, list[Any]]:  # noqa: ANN401  # as it takes them
            if next(calls):
                raise Unavailable("redis", "it was just lost")
            return await run_once(*given)

        monkeypatch.setattr(commands, "run_once", once)
        answers = await broker.publish([new("a"), new("b"), new("c"), new("a", "2")])
        with pytest.raises(Unavailable, match="just lost"):
            await broker.publish([new("c"), new("a", "2")])

    assert [type(each) for each in answers] == [Published, Published, Unavailable, Unavailable]
    assert client.xlen("notifier:{a}:log") == 1
    assert not client.exists("notifier:{c}:log")


async def test_an_answer_counts_even_if_redis_goes_away_before_positions_are_compared(
    server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RedisBroker(server.url, metrics=Metrics()) as broker:

        async def lost() -> None:
            raise Unavailable("redis", "it was just lost")

        monkeypatch.setattr(broker, "_compare", lost)
        [answer] = await broker.publish([new("a")])

    assert isinstance(answer, Published)
    assert client.xlen("notifier:{a}:log") == 1


# Redis in trouble.


async def test_a_full_redis_takes_no_publication_but_answers_readers(
    broker: RedisBroker, client: redis.Redis
) -> None:
    before = await published(broker, new("news", "a"))
    client.config_set("maxmemory", 1)

    with pytest.raises(Unavailable, match="maxmemory"):
        await broker.publish([new("news", "b"), new("sales", "c")])
    known, unknown = await broker.read([Since("news", 0), Since("sales", 0)])
    client.config_set("maxmemory", 0)
    after = await published(broker, new("news", "b"))

    assert known.head == before
    assert unknown.head.offset == 0
    assert after == before._replace(offset=2)


async def test_reading_topics_that_do_not_exist_leaves_no_keys(
    broker: RedisBroker, client: redis.Redis
) -> None:
    await broker.read([Since(f"never:{n}", 0, begins=False) for n in range(100)])

    assert client.dbsize() == 0


async def test_a_machine_whose_clock_is_ahead_has_the_time_of_redis_and_says_so(
    metrics: Metrics, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_clock, "time", lambda: time.time() + 3600)

    async with RedisBroker(redis_url, metrics=metrics) as broker:
        await no_trouble(broker)

        assert broker.now() == pytest.approx(time.time(), abs=5)
        told = metrics.registry.get_sample_value("notifier_clock_deviation_seconds")
        assert told == pytest.approx(3600, abs=5)


async def test_trouble_says_why_redis_takes_nothing(
    broker: RedisBroker, client: redis.Redis
) -> None:
    client.config_set("maxmemory", 1)
    with pytest.raises(Unavailable):
        await broker.publish([new("news")])

    assert broker.trouble is not None
    assert "maxmemory" in broker.trouble


async def test_a_replica_takes_no_publication(broker: RedisBroker, client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "1")

    with pytest.raises(Unavailable):
        await broker.publish([new("news")])


async def test_a_connection_reconnects_when_its_server_has_become_a_replica(
    broker: RedisBroker, client: redis.Redis
) -> None:
    await published(broker, new("news", "a"))
    before = connections_of_others(client)
    client.replicaof("127.0.0.1", "1")
    with pytest.raises(Unavailable):
        await broker.publish([new("news", "b")])
    client.replicaof("NO", "ONE")

    await published(broker, new("news", "b"))

    assert before - connections_of_others(client)


def connections_of_others(client: redis.Redis) -> set[str]:
    listed: Any = client.client_list()
    return {each["id"] for each in listed} - {str(client.client_id())}


async def test_a_user_without_the_right_to_publish_gets_nothing_refused(
    server: RedisServer, client: redis.Redis
) -> None:
    url = limited(server, client, keys="*", commands=["+@all", "-xadd"])

    async with RedisBroker(url, metrics=Metrics()) as broker:
        [answer] = await broker.publish([new("news")])

        assert isinstance(answer, Failed)
        assert broker.trouble is None


async def test_trouble_names_a_missing_right_to_subscribe(
    server: RedisServer, client: redis.Redis
) -> None:
    url = limited(server, client, keys="*", commands=["+@all"])

    async with RedisBroker(url, metrics=Metrics()) as broker:
        broker.listen(Listening())
        with pytest.raises(Unavailable):
            await broker.subscribe(["news"])

        await trouble(broker, "permissions")


async def test_a_hung_redis_is_unavailable_and_noticed_by_subscribers(
    broker: RedisBroker, server: RedisServer
) -> None:
    listening = await follow(broker, "news")
    server.pause()

    with pytest.raises(Unavailable, match="no answer in time"):
        await broker.publish([new("news", "a")])
    with pytest.raises(Unavailable):
        await broker.subscribe(["sales"])
    await trouble(broker, "not subscribed")
    await each_subscriber_is_lost(broker)
    server.resume()

    await listening.interrupted("news")
    await no_trouble(broker)
    await published(broker, new("sales", "followed as soon as possible"))
    while (await listening.next()).topic != "sales":
        pass


async def test_a_hung_redis_is_noticed_while_nothing_is_asked_of_it(
    broker: RedisBroker, server: RedisServer
) -> None:
    listening = await follow(broker, "news")

    server.pause()
    await trouble(broker, "nothing heard for 0.5 s")
    await each_subscriber_is_lost(broker)

    server.resume()
    await listening.interrupted("news")
    await no_trouble(broker)


async def test_a_subscription_that_is_not_confirmed_ends_its_connection(
    server: RedisServer, metrics: Metrics
) -> None:
    async with RedisBroker(server.url, metrics=metrics) as broker:  # silent for 15 s at most
        listening = await follow(broker, "news")
        server.pause()

        with pytest.raises(Unavailable, match="not confirmed"):
            await broker.subscribe(["news", *(f"topic-{number}" for number in range(10))])
        await trouble(broker, "not subscribed")

        server.resume()
        await listening.interrupted("news")


async def test_redis_killed_without_a_disk_begins_streams_anew(
    broker: RedisBroker, server: RedisServer, metrics: Metrics
) -> None:
    listening = await follow(broker, "news")
    before = await published(broker, new("news", "a"))
    await listening.next()

    await asyncio.to_thread(server.kill)
    with pytest.raises(Unavailable):
        await broker.publish([new("news", "b")])
    await trouble(broker, "not subscribed")
    await asyncio.to_thread(server.start)

    await listening.interrupted("news")
    after = await published(broker, new("news", "a"))
    assert (await listening.next()).position == after
    assert (after.offset, after.epoch != before.epoch) == (1, True)
    await no_trouble(broker)
    assert reconnects(metrics) == 2


async def test_redis_killed_with_a_disk_resumes_every_stream(metrics: Metrics) -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with RedisBroker(server.url, metrics=metrics) as broker:
            before = await published(broker, new("news", "a"))

            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

            after = await published(broker, new("news", "b"))
            [duplicate] = await broker.publish([new("news", "a")])
            [told] = await broker.read([Since("news", 0, seen=before)])
            assert (after.offset, after.epoch != before.epoch) == (2, True)
            assert duplicate == Published(after, duplicate=True)
            assert [each.position.offset for each in told.publications] == [1, 2]
            assert (told.head, told.lineage) == (after, {before.epoch: 1})


async def test_a_stream_remembers_the_epochs_that_it_continues(metrics: Metrics) -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with RedisBroker(server.url, metrics=metrics) as broker:
            positions = [await published(broker, new("news", "0"))]
            for number in range(1, 4):
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                positions.append(await published(broker, new("news", str(number))))
            [told] = await broker.read([Since("news", 0)])

    former = {position.epoch: position.offset for position in positions[:-1]}
    assert (told.head, told.lineage) == (positions[-1], former)


async def test_followers_that_had_not_seen_a_lost_publication_get_a_gap(metrics: Metrics) -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with RedisBroker(server.url, metrics=metrics) as broker:
            kept = await published(broker, new("news", "a"))
            lost = await lose_the_next(server, broker)

            [of_the_asker] = await broker.read([Since("news", 1, seen=lost)])
            [of_others] = await broker.read([Since("news", 1, seen=kept)])

    assert of_the_asker.lineage == of_others.lineage == {}
    assert of_the_asker.head == of_others.head
    assert of_others.head.epoch != kept.epoch


async def test_followers_get_a_gap_for_a_loss_that_only_the_publisher_knew_of(
    metrics: Metrics,
) -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with (
            RedisBroker(server.url, metrics=metrics) as publisher,
            RedisBroker(server.url, metrics=metrics) as other,
        ):
            kept = await published(publisher, new("news", "a"))
            await lose_the_next(server, publisher)

            await published(publisher, new("elsewhere", "b"))
            [told] = await other.read([Since("news", 1, seen=kept)])

    assert told.lineage == {}
    assert told.head.epoch != kept.epoch


async def test_followers_get_a_gap_for_a_loss_of_a_duplicate_of_somebody_elses_publication(
    metrics: Metrics,
) -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with RedisBroker(server.url, metrics=metrics) as heir:
            async with RedisBroker(server.url, metrics=metrics) as publisher:
                kept = await published(publisher, new("news", "a"))
                unkept(server)
                await published(publisher, new("news", "lost"))
            await published(heir, new("news", "lost"))  # a duplicate, whose event it acks
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

            await published(heir, new("elsewhere", "b"))
            [told] = await heir.read([Since("news", 1, seen=kept)])

    assert told.lineage == {}
    assert told.head.epoch != kept.epoch


async def test_a_late_answer_of_a_former_redis_is_compared_with_the_current_one(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    transports = recorded_transports(monkeypatch)
    async with failover(metrics) as (former, present, link, publisher):
        kept = await published(publisher, new("news", "a"))
        copy(former, present)
        link.target = present.port  # for connections to come
        with answers_held(transports):
            publishing = asyncio.create_task(publisher.publish([new("news", "lost")]))
            await until(lambda: head_offset(former) == 2)
            await published(publisher, new("elsewhere", "b"))  # and the known ones are compared

        await publishing
        async with RedisBroker(present.url, metrics=metrics) as other:
            [told] = await other.read([Since("news", 1, seen=kept)])

    assert told.lineage == {}
    assert told.head.epoch != kept.epoch


async def test_a_former_redis_is_asked_nothing_more_once_there_is_another(
    metrics: Metrics,
) -> None:
    async with failover(metrics) as (former, present, link, publisher):
        link.target = present.port  # for connections to come: the second of these needs one
        await asyncio.gather(*(publisher.publish([new("news", name)]) for name in "ab"))
        before = head_offset(former)

        await asyncio.gather(*(publisher.publish([new("news", name)]) for name in "cdef"))

        assert (before, head_offset(former)) == (1, 1)


async def test_followers_get_a_gap_for_a_loss_at_the_second_of_two_replacements(
    metrics: Metrics,
) -> None:
    with RedisServer() as third:
        async with failover(metrics) as (former, present, link, publisher):
            kept = await published(publisher, new("news", "a"))
            copy(former, third)
            await published(publisher, new("news", "lost"))
            copy(former, present)

            for number, server in enumerate((present, third)):
                link.target = server.port
                link.cut()
                await published(publisher, new("elsewhere", str(number)))

        async with RedisBroker(third.url, metrics=metrics) as other:
            [told] = await other.read([Since("news", 1, seen=kept)])

    assert told.lineage == {}


async def test_a_loss_is_noticed_once_a_topic_that_failed_can_be_compared(
    metrics: Metrics,
) -> None:
    async with failover(metrics) as (former, present, link, publisher):
        kept = await published(publisher, new("news", "a"))
        copy(former, present)
        await published(publisher, new("news", "lost"))
        with closing(redis.Redis.from_url(present.url)) as direct:
            keys = ["notifier:{elsewhere}*"]
            direct.acl_setuser("default", enabled=True, nopass=True, reset_keys=True, keys=keys)
            link.target = present.port
            link.cut()
            await published(publisher, new("elsewhere", "b"))

            direct.acl_setuser("default", enabled=True, keys=["*"])
        await published(publisher, new("elsewhere", "c"))
        async with RedisBroker(present.url, metrics=metrics) as other:
            [told] = await other.read([Since("news", 1, seen=kept)])

    assert told.lineage == {}


async def test_the_newest_of_answers_in_any_order_is_compared(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    transports = recorded_transports(monkeypatch)
    async with failover(metrics) as (former, present, link, publisher):
        kept = await published(publisher, new("news", "a"))
        with answers_held(transports):
            publishing = asyncio.create_task(publisher.publish([new("news", "b")]))
            await until(lambda: head_offset(former) == 2)
            copy(former, present)
            await published(publisher, new("news", "lost"))
        await publishing

        link.target = present.port
        link.cut()
        await published(publisher, new("elsewhere", "c"))
        async with RedisBroker(present.url, metrics=metrics) as other:
            [told] = await other.read([Since("news", 1, seen=kept)])

    assert told.lineage == {}


@asynccontextmanager
async def failover(
    metrics: Metrics,
) -> AsyncIterator[tuple[RedisServer, RedisServer, Proxy, RedisBroker]]:
    """A broker behind a link to the first Redis, which may lead to the second at any time."""
    with RedisServer() as former, RedisServer() as present:
        async with Proxy(former.port) as link, asyncio.timeout(30):
            url = f"redis://127.0.0.1:{link.port}/0"
            async with RedisBroker(url, metrics=metrics) as publisher:
                await no_trouble(publisher)  # so it has one connection, which is idle
                yield former, present, link, publisher


def copy(former: RedisServer, present: RedisServer) -> None:
    """Let one Redis have what a replica of the other would have by now."""
    with (
        closing(redis.Redis.from_url(former.url)) as source,
        closing(redis.Redis.from_url(present.url)) as target,
    ):
        for key in source.scan_iter():
            target.restore(key, 0, source.dump(key) or b"")


def head_offset(server: RedisServer) -> int:
    with closing(redis.Redis.from_url(server.url)) as client:
        return int(client.hget("notifier:{news}:head", "offset") or 0)


@contextmanager
def answers_held(transports: list[asyncio.Transport]) -> Iterator[None]:
    """Meanwhile nothing is read on the connections that there are."""
    held = tuple(transports)
    for transport in held:
        transport.pause_reading()
    yield
    for transport in held:
        transport.resume_reading()


async def lose_the_next(server: RedisServer, broker: RedisBroker) -> Position:
    """Publish what Redis, once killed and started again, knows nothing of."""
    unkept(server)
    lost = await published(broker, new("news", "lost"))
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    return lost


def unkept(server: RedisServer) -> None:
    """Let Redis write nothing down from now on."""
    with closing(redis.Redis.from_url(server.url)) as client:
        client.config_set("appendonly", "no")


async def test_redis_may_come_after_its_clients(metrics: Metrics) -> None:
    with RedisServer() as server:
        server.kill()
        async with RedisBroker(server.url, metrics=metrics) as broker:
            listening = Listening()
            broker.listen(listening)
            with pytest.raises(Unavailable):
                await broker.subscribe(["news"])

            await asyncio.to_thread(server.start)
            await no_trouble(broker)
            await broker.subscribe(["news"])

            await published(broker, new("news", "a"))
            assert await listening.next_events(1) == [b'{"id":"a"}']


# Subscribing connections.


async def test_publishing_needs_no_subscribing_connection(
    broker: RedisBroker, client: redis.Redis
) -> None:
    await published(broker, new("news"))

    connections: Any = client.client_list()
    assert not [each for each in connections if each["cmd"] == "subscribe"]
    assert broker.trouble is None


async def test_topics_are_spread_over_two_connections_that_speak_resp2(
    broker: RedisBroker, client: redis.Redis
) -> None:
    await follow(broker, *(f"topic-{number}" for number in range(100)))

    connections = subscribing_connections(client)

    assert sum(int(each["sub"]) for each in connections) == 100
    assert [int(each["sub"]) > 20 for each in connections] == [True, True]
    assert {each["resp"] for each in connections} == {"2"}


async def test_no_command_subscribes_to_more_than_a_thousand_channels(
    server: RedisServer, client: redis.Redis
) -> None:
    client.config_set("slowlog-log-slower-than", 0)
    client.config_set("slowlog-max-len", 1_000)
    topics = [f"topic-{number}" for number in range(4_500)]
    async with RedisBroker(server.url, metrics=Metrics()) as broker:  # patient with a busy Redis
        listening = await follow(broker, *topics)

        client.client_kill_filter(_type="pubsub")
        await listening.interrupted(*topics)

        sizes = [channels_of(entry["command"].decode()) for entry in client.slowlog_get(1_000)]
        assert sum(sizes) == 2 * len(topics)
        assert max(sizes) == 1_000
        answers = await broker.publish([new(topic, topic) for topic in topics])
        assert len(answers) == len(topics)
        assert {(await listening.next()).topic for _ in topics} == set(topics)


def channels_of(command: str) -> int:
    """Count a logged command's channels: Redis keeps 31 words and says how many more there were."""
    if not command.startswith("SUBSCRIBE "):
        return 0
    more = re.search(r"\((\d+) more arguments\)", command)
    return 30 + int(more[1]) if more else command.count(" ")


async def test_a_lost_connection_reconnects_subscribes_again_and_reports_an_interruption(
    broker: RedisBroker, client: redis.Redis, metrics: Metrics
) -> None:
    topics = [f"topic-{number}" for number in range(10)]
    listening = await follow(broker, *topics)

    client.client_kill_filter(_type="pubsub")

    await listening.interrupted(*topics)
    await broker.publish([new(topic, topic) for topic in topics])
    assert {(await listening.next()).topic for _ in topics} == set(topics)
    assert reconnects(metrics) == 2
    assert broker.trouble is None


async def test_a_follower_waits_while_the_connection_reconnects(
    broker: RedisBroker, client: redis.Redis
) -> None:
    listening = await follow(broker, "news")
    topics = [f"topic-{number}" for number in range(10)]

    client.client_kill_filter(_type="pubsub")
    await broker.subscribe(topics)

    await broker.publish([new(topic, topic) for topic in topics])
    assert {(await listening.next()).topic for _ in topics} == set(topics)


async def test_a_topic_unfollowed_meanwhile_is_not_subscribed_after_a_reconnect(
    broker: RedisBroker, server: RedisServer, client: redis.Redis
) -> None:
    listening = await follow(broker, "news", "sales", "sports")

    await asyncio.to_thread(server.kill)
    await trouble(broker, "not subscribed")
    await broker.unsubscribe(["sales"])
    await asyncio.to_thread(server.start)

    await listening.interrupted("news", "sports")
    await no_trouble(broker)
    assert sorted(client.pubsub_channels()) == ["notifier:{news}", "notifier:{sports}"]


async def test_a_slow_follower_that_redis_cuts_off_can_read_the_missed_publications(
    broker: RedisBroker, client: redis.Redis
) -> None:
    listening = await follow(broker, "news")
    client.config_set("client-output-buffer-limit", "pubsub 1024 0 0")

    position = await published(broker, NewPublication("news", "k", record("a" * 60_000)))

    await listening.interrupted("news")
    [history] = await broker.read([Since("news", 0)])
    assert [publication.position for publication in history.publications] == [position]


async def test_idle_connections_are_kept(
    server: RedisServer, client: redis.Redis, metrics: Metrics
) -> None:
    async with RedisBroker(
        server.url, metrics=metrics, ping_seconds=0.05, silence_seconds=0.2
    ) as broker:
        listening = await follow(broker)

        await until(lambda: pings_seen(client) >= 40)

        assert reconnects(metrics) == 0
        await broker.subscribe(["news"])
        await published(broker, new("news", "a"))
        assert await listening.next_events(1) == [b'{"id":"a"}']


async def test_a_timeout_of_tcp_itself_is_a_lost_connection(
    server: RedisServer, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    transports = recorded_transports(monkeypatch)
    with no_longer_than(15):  # a loop that spins sees no other timeout
        async with RedisBroker(server.url, metrics=metrics) as broker:
            listening = await follow(broker, "news")
            position = await published(broker, new("news", "a"))
            assert await listening.next_events(1) == [b'{"id":"a"}']

            for transport in list(transports):
                time_out(transport)

            await listening.interrupted("news")
            assert await published(broker, new("news", "b")) == position._replace(offset=2)
            assert await listening.next_events(1) == [b'{"id":"b"}']


def test_the_process_survives_uvloops_error_for_a_connection_just_reset(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = Pool.lent

    @asynccontextmanager
    async def reset(self: Pool) -> AsyncIterator[tuple[AbstractConnection, str]]:
        async with lent(self) as (connection, run_id):
            transport_of(connection).abort()  # as a reset in this moment does
            await asyncio.sleep(0.01)  # until uvloop has closed it
            yield connection, run_id

    async def ask() -> None:
        async with RedisBroker(server.url, metrics=Metrics()) as broker:
            await published(broker, new("news", "a"))
            with monkeypatch.context() as patch:
                patch.setattr(Pool, "lent", reset)
                with pytest.raises(Unavailable):
                    await broker.read([Since("news")])
            assert (await published(broker, new("news", "b"))).offset == 2

    uvloop.run(ask())


async def test_a_timeout_of_tcp_itself_is_no_answer(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    transports = recorded_transports(monkeypatch)
    async with RedisBroker(server.url, metrics=Metrics()) as broker:
        position = await published(broker, new("news", "a"))
        server.pause()
        asking = asyncio.gather(broker.read([Since("news")]), return_exceptions=True)
        await asyncio.wait([asking], timeout=0.2)

        for transport in list(transports):
            time_out(transport)

        [answer] = await asking
        assert isinstance(answer, Unavailable)
        assert "timed out" in str(answer)
        server.resume()
        assert await published(broker, new("news", "b")) == position._replace(offset=2)


def recorded_transports(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.Transport]:
    """Collect the transports of all connections from now on."""
    transports: list[asyncio.Transport] = []
    connect = asyncio.open_connection

    async def recording(
        *place: Any,  # noqa: ANN401  # of any type
        **options: Any,  # noqa: ANN401  # the same
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(*place, **options)
        transports.append(cast("asyncio.Transport", writer.transport))
        return reader, writer

    monkeypatch.setattr(asyncio, "open_connection", recording)
    return transports


def time_out(transport: asyncio.Transport) -> None:
    """Let a connection be lost as by TCP's keepalive."""
    lost = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
    transport.get_protocol().connection_lost(lost)


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    def interrupt(_: int, __: FrameType | None) -> None:
        raise AssertionError(f"busy for more than {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # again each second: several may spin
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Its life.


async def test_an_error_of_the_body_is_raised_unchanged(server: RedisServer) -> None:
    async def body() -> None:
        async with RedisBroker(server.url, metrics=Metrics()) as broker:
            await follow(broker, "news")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await body()


async def test_a_task_that_dies_ends_the_body(server: RedisServer) -> None:
    class Deaf(Listening):
        def on_publication(self, publication: Publication) -> None:
            raise LookupError(publication.topic)

    async def body() -> None:
        async with RedisBroker(server.url, metrics=Metrics()) as broker:
            broker.listen(Deaf())
            await broker.subscribe(["news"])
            await published(broker, new("news"))
            await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as caught:
        await body()

    assert caught.group_contains(LookupError, match="news")


async def test_it_shuts_down_while_redis_hangs(server: RedisServer) -> None:
    async with asyncio.timeout(15):
        async with RedisBroker(server.url, metrics=Metrics()) as broker:
            await follow(broker, "news")
            server.pause()
            with pytest.raises(Unavailable):
                await broker.subscribe([f"topic-{number}" for number in range(50_000)])


async def test_an_adapter_of_scripts_connects_with_its_first_call_and_disconnects_when_it_is_left(
    server: RedisServer, client: redis.Redis, metrics: Metrics
) -> None:
    async with RedisControl(server.url, 60, metrics=metrics) as control:
        before = connections_of_others(client)
        await control.orders()
        during = connections_of_others(client)

    assert (len(before), len(during)) == (0, 1)
    await eventually(lambda: not connections_of_others(client))


# Addresses.


async def test_a_user_and_a_password_are_taken_from_the_url(
    server: RedisServer, client: redis.Redis
) -> None:
    allow_ann(client)
    url = server.url.replace("redis://", "redis://ann:p%40ss%2Fword@")

    async with RedisBroker(url, metrics=Metrics()) as broker:
        listening = await follow(broker, "news")
        await published(broker, new("news", "a"))

        assert await listening.next_events(1) == [b'{"id":"a"}']


async def test_a_wrong_password_is_told_without_the_password(
    server: RedisServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    allow_ann(client)
    url = server.url.replace("redis://", "redis://ann:mistaken@")

    async with RedisBroker(url, metrics=Metrics()) as broker:
        broker.listen(Listening())
        with pytest.raises(Unavailable) as caught:
            await broker.publish([new("news")])
        await trouble(broker, "invalid")

        assert "invalid username-password pair" in str(caught.value)
        assert "mistaken" not in f"{caught.value} {broker.trouble} {broker!r} {caplog.text}"


def allow_ann(client: redis.Redis) -> None:
    client.acl_setuser(
        "ann", enabled=True, passwords="+p@ss/word", keys="*", channels="*", commands=["+@all"]
    )


@pytest.mark.parametrize("url", ["redis://:se/cret@redis:6379", "http://ann:se/cret@redis"])
def test_a_url_that_is_none_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL of Redis") as caught:
        RedisBroker(url, metrics=Metrics())

    assert caught.value.__suppress_context__
    assert "se" not in str(caught.value).replace("user", "").split(":")


async def test_tls_is_verified_and_the_certificates_expiry_told(
    server: RedisServer, metrics: Metrics, tmp_path: Path
) -> None:
    authority = tmp_path / "authority.pem"
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    async with tls_in_front_of(port, authority) as tls:
        address = f"rediss://127.0.0.1:{tls}/0"
        good = RedisBroker(f"{address}?ssl_ca_certs={authority}", metrics=metrics)
        async with good as broker:
            listening = await follow(broker, "news")
            await published(broker, new("news", "a"))
            assert await listening.next_events(1) == [b'{"id":"a"}']
        assert expiry(metrics, "redis") == expiry_of(authority)

        async with RedisBroker(address, metrics=Metrics()) as broker:
            assert "certificate" in await refusal(broker)


async def refusal(broker: RedisBroker) -> str:
    """The reason why nothing is published; a busy machine may not come as far as that in time."""
    async with asyncio.timeout(30):
        while True:
            with pytest.raises(Unavailable) as refused:
                await broker.publish([new("news")])
            if "in time" not in str(refused.value):
                return str(refused.value)
