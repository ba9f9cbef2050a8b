"""The broker on Redis: scripts that publish and read, and connections that subscribe.

Of redis-py this uses connections and their pool, which know URLs, TLS and authentication. Its
pipelines cost six times as much a command; its pub/sub can spin without yielding, checks no health
and retries unseen.
"""

import asyncio
import math
import re
from base64 import b32encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice
from secrets import token_bytes
from time import monotonic
from typing import Any
from zlib import crc32

import structlog
from hiredis import pack_command
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    ConnectionPool,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from notifier.adapters.redis import sentinel
from notifier.adapters.redis.clock import RedisClock
from notifier.adapters.redis.reader import RedisReader
from notifier.adapters.redis.scripts import PUBLISH, READ, Script
from notifier.core.background import LongLived
from notifier.core.backoff import Backoff
from notifier.core.errors import NotifierError, Refused, Unavailable
from notifier.core.ports import PAGE, BrokerListener, History, Published, Since
from notifier.core.positions import NOWHERE, Position
from notifier.core.publications import NewPublication, Publication
from notifier.telemetry.metrics import Metrics

_SUBSCRIBERS = 2
_MOST_CHANNELS = 1_000  # a command: more of them stall Redis
_MOST_COMMANDS = 500  # a round trip
_MOST_PUBLICATIONS = 250  # a call, in which Redis serves nobody else
_COMMAND_CONNECTIONS = 16
_CHANNEL = "notifier:"
_KEYS = ("head", "log", "ids", "newest")

# In seconds.
_ANSWERING = 2.0  # a connect, a round trip, a confirmation
_PING_EVERY = 2.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_TWO_DAYS = 2 * 86_400
_REMEMBERING = 5.0

_MOST_REMEMBERED = 50_000  # topics

# What repeating cannot mend: a key of a wrong type, a log ahead of its head. Any other error may
# be Redis' state or its settings, which is no reason to give an event up.
_REFUSALS = ("WRONGTYPE", "The ID specified in XADD")

_log = structlog.stdlib.get_logger(__name__)

# The commands for the Redis process of a run id.
_ForProcess = Callable[[str], Iterable[tuple[Any, ...]]]


class RedisBroker(LongLived):
    """Fulfils `notifier.core.ports.Broker` while it is entered; entering does not wait for Redis.

    `url` is redis://, rediss:// or unix://, with user and password where needed, or names Sentinels
    (see `sentinel`); what redis-py takes as its query (`?ssl_ca_certs=…`) is taken too.
    Subscribing connections are opened by `listen`; each sends PING after `ping_seconds` without
    work, and is given up and made anew after `silence_seconds` without a byte.
    """

    def __init__(  # noqa: PLR0913  # settings
        self,
        url: str,
        *,
        metrics: Metrics,
        history_size: int = 100,
        history_seconds: int = 86_400,
        deduplication_seconds: int = 3_600,
        ping_seconds: float = 5.0,
        silence_seconds: float = 15.0,
    ) -> None:
        super().__init__()
        self._commands = Commands(url, metrics)
        self._told = _Told()
        self._metrics = metrics
        self._limits = (history_size, history_seconds, deduplication_seconds)
        # A head that goes before its log would hide what is still there.
        self._head_seconds = max(_TWO_DAYS, 2 * history_seconds)
        self._subscribers = [
            _Subscriber(url, metrics, ping_seconds, silence_seconds) for _ in range(_SUBSCRIBERS)
        ]
        self._listens = False

    def _start(self) -> None:
        self._background.start(self._watch(), "redis: watch")

    async def _close(self) -> None:
        await self._commands.close()

    @property
    def trouble(self) -> str | None:
        """See Dependency."""
        subscribers = self._subscribers if self._listens else ()
        troubles = (self._commands.trouble, *(s.trouble for s in subscribers))
        return "; ".join(dict.fromkeys(trouble for trouble in troubles if trouble)) or None

    def now(self) -> float:
        """See Broker."""
        return self._commands.clock.now()

    async def _watch(self) -> None:
        """Keep `trouble` true while nothing else is asked."""
        this: asyncio.Task[Any] | None = asyncio.current_task()
        while this and not this.cancelling():  # which a library on the way may have swallowed
            try:
                await self._commands.ping()
                await self._compare()
            except Unavailable as error:
                _log.debug("redis_ping_failed", reason=str(error))
            await asyncio.sleep(_PING_EVERY)

    # Commands.

    async def publish(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        """See Broker."""
        answers: list[Published | NotifierError] = []
        while len(answers) < len(batch):
            answers += await self._publish(batch[len(answers) :][:_MOST_PUBLICATIONS])
        return answers

    async def _publish(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        """Publish some of the batch from its start on: at least one.

        In one call, so that nothing is published behind something that Redis refused: see PUBLISH.
        """
        size, log_seconds, window = self._limits
        limits = (_new_epoch(), size, self._head_seconds, log_seconds, window)
        run_id, replies = await self._commands.run_once(
            PUBLISH,
            [key for new in batch for key in _keys(new.topic)],
            [*limits, *chain.from_iterable(map(_words, batch))],
        )
        self._metrics.deduplication_cuts.inc(sum(_is_cut(reply) for reply in replies))
        answers = [_published(reply) for reply in replies]
        told = zip(batch, answers, strict=False)
        # No list: to the garbage collector its tuples cost more than all the rest of this.
        positions = ((new.topic, a.position) for new, a in told if isinstance(a, Published))
        self._told.note(run_id, positions)
        await self._compare()
        return answers

    async def _compare(self) -> None:
        """See to it that the present Redis has what former ones told, or that its loss is told."""
        while unknown := self._told.unknown_to(self._commands.run_id):
            for start in range(0, len(unknown), _MOST_COMMANDS):
                some = unknown[start:][:_MOST_COMMANDS]
                run_id, read = await self._read([Since(t, None, position) for t, position in some])
                self._told.settle(run_id, some[: len(read)])

    async def read(self, questions: Sequence[Since]) -> list[History]:
        """See Broker; in one round trip up to 500 questions."""
        answers: list[History] = []
        while len(answers) < len(questions):
            _, read = await self._read(questions[len(answers) :][:_MOST_COMMANDS])
            answers += read
        return answers

    async def _read(self, questions: Sequence[Since]) -> tuple[str, list[History]]:
        """Return which process answered, and answers to some of the questions: at least one."""
        limits = (_new_epoch(), self._head_seconds, PAGE)
        run_id, replies = await self._commands.run(
            READ,
            [
                (
                    *_keys(question.topic),
                    *limits,
                    "" if question.offset is None else question.offset,
                    *(question.seen or ("", "")),
                    1 if question.begins else "",
                )
                for question in questions
            ],
        )
        answered = zip(questions, replies, strict=False)
        return run_id, [_history(question.topic, reply) for question, reply in answered]

    # Following.

    def listen(self, listener: BrokerListener) -> None:
        """See Broker; the broker must be entered."""
        self._listens = True
        for number, subscriber in enumerate(self._subscribers):
            self._background.start(subscriber.run(listener), f"redis: subscriber {number}")

    async def follow(self, topics: Sequence[str]) -> None:
        """See Broker."""
        awaited = [c for t in topics if (c := self._subscriber(t).follow(t)) is not None]
        if not awaited:
            return
        _, unconfirmed = await asyncio.wait(awaited, timeout=_ANSWERING)
        if unconfirmed:
            reason = f"{len(unconfirmed)} subscriptions were not confirmed within {_ANSWERING} s"
            raise Unavailable("redis", reason)

    async def unfollow(self, topics: Sequence[str]) -> None:
        """See Broker."""
        for topic in topics:
            self._subscriber(topic).unfollow(topic)

    def _subscriber(self, topic: str) -> "_Subscriber":
        return self._subscribers[crc32(topic.encode()) % _SUBSCRIBERS]


class _Told:
    """Positions that Redis told in the last seconds: what the present process has, and the rest.

    Redis may lose the last second or two when its process is replaced. Who had not yet heard of
    those publications would never know; this process does, and has acked their events.
    """

    def __init__(self) -> None:
        self._run_id: str | None = None  # of the present process
        self._newest: dict[str, Position] = {}
        self._former: dict[str, Position] = {}
        self._since = 0.0
        self._unknown: set[tuple[str, Position]] = set()  # what other processes told

    def note(self, run_id: str, positions: Iterable[tuple[str, Position]]) -> None:
        """Remember what a process told, whichever it is."""
        if run_id != self._run_id:
            self._unknown.update(positions)
            return
        now = asyncio.get_running_loop().time()
        if now - self._since > _REMEMBERING or len(self._newest) > _MOST_REMEMBERED:
            self._former, self._newest, self._since = self._newest, {}, now
        for topic, position in positions:
            known = self._newest.get(topic)
            # Answers to several batches come in any order.
            if known is None or known.epoch != position.epoch or known.offset < position.offset:
                self._newest[topic] = position

    def unknown_to(self, run_id: str | None) -> list[tuple[str, Position]]:
        """Return what the process that is present now has not been compared with."""
        if run_id != self._run_id:
            self._unknown.update(self._former.items(), self._newest.items())
            self._former, self._newest, self._run_id = {}, {}, run_id
        return list(self._unknown)

    def settle(self, run_id: str, compared: Sequence[tuple[str, Position]]) -> None:
        """Take it that this process has them now, or that their loss is told."""
        if run_id != self._run_id:  # replaced meanwhile
            return
        self._unknown.difference_update(compared)
        for topic, position in compared:
            known = self._newest.get(topic)
            # A topic may be among them twice, and of epochs that continue one another.
            if known is None or known.offset < position.offset:
                self._newest[topic] = position


class Commands:
    """Scripts run on a bounded pool of connections: whoever finds all of them busy waits.

    `url` is as for RedisBroker; raises ValueError when it is none.
    """

    def __init__(self, url: str, metrics: Metrics) -> None:
        self._metrics = metrics
        self._pool = BlockingConnectionPool(
            max_connections=_COMMAND_CONNECTIONS,
            timeout=_ANSWERING,
            redis_connect_func=self._introduce,
            **connection_options(url),
        )
        self._run_ids: dict[AbstractConnection, str] = {}
        self.clock = RedisClock(metrics)
        self.run_id: str | None = None  # of the process that was connected to last
        self.trouble: str | None = "Redis has not answered yet"

    async def _introduce(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        self._metrics.connected("redis", connection._writer)  # noqa: SLF001  # shown nowhere else
        await _send(connection, _pack("INFO", "server"))
        reply = await _reply(connection)
        if isinstance(reply, ResponseError):
            raise reply
        [run_id] = re.findall(rb"^run_id:(\w+)", reply, re.MULTILINE)
        self.run_id = self._run_ids[connection] = run_id.decode()

    async def run(self, script: Script, calls: Sequence[tuple[Any, ...]]) -> tuple[str, list[Any]]:
        """Run a script for each call, keys and arguments, in order, in one round trip.

        Before its arguments the script gets the name of the Redis process (`run`), which is
        returned with the answers: replies, or Refused; at least one and at most one for each call:
        the rest is to be repeated. Raises Unavailable.
        """
        keys = script.keys or 0

        def commands(run_id: str) -> Iterator[tuple[Any, ...]]:
            # EVAL lets Redis know the script again, if it forgot or never knew.
            name = ("EVAL", script.source)
            for call in calls:
                yield (*name, keys, *call[:keys], run_id, *call[keys:])
                name = ("EVALSHA", script.sha)

        answers: list[Any] = []
        run_id, replies = await self._round_trip(commands)
        for reply in replies:
            # Forgotten half-way.
            if isinstance(reply, NoScriptError) and answers:
                break
            answers.append(self._answer(reply))
        return run_id, answers

    async def run_once(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any]
    ) -> tuple[str, list[Any]]:
        """Run a script for all keys, in one call, which Redis takes or refuses as a whole.

        As `run`; the script returns a list of replies.
        """

        def commands(run_id: str) -> Iterator[tuple[Any, ...]]:
            yield ("EVAL", script.source, len(keys), *keys, run_id, *arguments)

        run_id, [replies] = await self._round_trip(commands)
        return run_id, [self._answer(reply) for reply in self._answer(replies)]

    def _answer(self, reply: Any) -> Any:  # noqa: ANN401  # what Redis replies
        if not isinstance(reply, ResponseError):
            return reply
        if str(reply).startswith(_REFUSALS):
            return Refused(str(reply))
        raise self._unavailable(reply)

    async def ping(self) -> None:
        """Return when Redis has answered, with its time; raises Unavailable."""
        asked = monotonic()
        _, [reply] = await self._round_trip(lambda _: [("TIME",)])
        seconds, microseconds = map(int, self._answer(reply))
        self.clock.learn(seconds + microseconds / 1_000_000, asked)

    async def _round_trip(self, commands: _ForProcess) -> tuple[str, list[Any]]:
        try:
            async with asyncio.timeout(_ANSWERING):
                answer = await self._replies(commands)
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        self.trouble = None
        return answer

    async def _replies(self, commands: _ForProcess) -> tuple[str, list[Any]]:
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            if self._run_ids[connection] != self.run_id:  # another process has taken over
                await connection.disconnect(nowait=True)
                await connection.connect()
            run_id = self._run_ids[connection]
            packed = [_pack(*command) for command in commands(run_id)]
            await _send(connection, *packed)
            replies = [await _reply(connection) for _ in packed]
            if any(isinstance(reply, ReadOnlyError) for reply in replies):
                await connection.disconnect(nowait=True)  # it is no master any more
            return run_id, replies
        finally:
            await self._pool.release(connection)

    def _unavailable(self, error: Exception) -> Unavailable:
        unavailable = Unavailable("redis", _reason(error))
        self.trouble = str(unavailable)
        return unavailable

    async def close(self) -> None:
        """Disconnect."""
        await self._pool.disconnect()


class _Subscriber:
    """One subscribing connection, made anew whenever it is lost, and the topics it follows.

    Topics are compared, not counted: whatever is wanted and not subscribed gets subscribed, and
    the other way round, so it does not matter how often a topic was followed and unfollowed since.
    """

    def __init__(self, url: str, metrics: Metrics, ping: float, silence: float) -> None:
        self._pool = ConnectionPool(**connection_options(url))
        self._metrics = metrics
        self._ping_seconds = ping
        self._silence_seconds = silence
        self._reason: str | None = "not connected yet"
        self._backoff = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE)
        self._has_been_up = False
        self._wanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._interrupted: set[str] = set()  # were subscribed on a connection that was lost
        self._changed: set[str] = set()
        self._work = asyncio.Event()
        self._awaited: dict[str, asyncio.Future[None]] = {}  # confirmations, by topic
        self._unanswered = 0  # channels of the last command
        self._answered: asyncio.Future[None]

    @property
    def trouble(self) -> str | None:
        if self._reason:
            return f"not subscribed to Redis: {self._reason}"
        if self._interrupted:
            return f"{len(self._interrupted)} topics are not subscribed again yet"
        return None

    def follow(self, topic: str) -> asyncio.Future[None] | None:
        """Want a topic; return its coming confirmation, None when there is nothing to wait for."""
        self._wanted.add(topic)
        if topic in self._subscribed:
            return None
        self._change(topic)
        if topic not in self._awaited:
            self._awaited[topic] = asyncio.get_running_loop().create_future()
        return self._awaited[topic]

    def unfollow(self, topic: str) -> None:
        """Want a topic no longer; whoever still waits for its confirmation need not."""
        self._wanted.discard(topic)
        self._interrupted.discard(topic)
        self._change(topic)
        self._confirm(topic)

    def _change(self, topic: str) -> None:
        self._changed.add(topic)
        self._work.set()

    def _confirm(self, topic: str) -> None:
        if awaited := self._awaited.pop(topic, None):
            awaited.set_result(None)

    async def run(self, listener: BrokerListener) -> None:
        """Stay connected until cancelled."""
        self._listener = listener
        this: asyncio.Task[Any] | None = asyncio.current_task()
        # Asked for each time: a TaskGroup swallows a cancellation that meets an error.
        while this and not this.cancelling():
            try:
                await self._live()
            except* (RedisError, OSError) as errors:
                self._lose(_reason(errors.exceptions[0]))
            # Jitter, so that not all come back to a restarted Redis in the same moment.
            await asyncio.sleep(self._backoff.next())

    async def _live(self) -> None:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(_ANSWERING):
                await connection.connect()  # type: ignore[no-untyped-call]
            reader = RedisReader(connection, self._pass_on, self._count_answer)
            self._gain()
            await self._ask_until_end(reader)
        finally:
            await connection.disconnect(nowait=True)

    async def _ask_until_end(self, reader: RedisReader) -> None:
        this = asyncio.current_task()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask(reader), name=f"{this and this.get_name()}, asking")
            await reader.end(self._silence_seconds)

    def _gain(self) -> None:
        if self._has_been_up:
            self._metrics.reconnects.labels("redis").inc()
        self._reason, self._has_been_up = None, True
        self._changed = set(self._wanted)
        _log.info("redis_subscriber_connected", topics=len(self._wanted))

    def _lose(self, reason: str) -> None:
        if self._reason != reason:  # one line for a long absence
            _log.warning("redis_subscriber_lost", reason=reason)
        self._reason = reason
        self._interrupted |= self._subscribed & self._wanted
        self._subscribed.clear()

    # The asking half: whatever is sent, one command at a time.

    async def _ask(self, reader: RedisReader) -> None:
        while True:
            changed, self._changed = self._changed, set()
            for some in _chunks(changed, _MOST_CHANNELS):
                await self._unsubscribe(reader, (self._subscribed & some) - self._wanted)
                await self._subscribe(reader, (self._wanted & some) - self._subscribed)
            if not self._changed:
                await self._idle(reader)

    async def _idle(self, reader: RedisReader) -> None:
        """Wait for work, and see to it that Redis is heard of meanwhile."""
        self._backoff.reset()  # not before: it may let us connect, but not subscribe
        self._work.clear()
        try:
            async with asyncio.timeout(self._ping_seconds):
                await self._work.wait()
        except TimeoutError:
            reader.send(_pack("PING"))

    async def _unsubscribe(self, reader: RedisReader, topics: set[str]) -> None:
        # Before it is sent: whoever follows one of them from now on waits for a new subscription.
        self._subscribed -= topics
        await self._command(reader, "UNSUBSCRIBE", topics)

    async def _subscribe(self, reader: RedisReader, topics: set[str]) -> None:
        await self._command(reader, "SUBSCRIBE", topics)
        self._subscribed |= topics
        if again := topics & self._interrupted:
            self._interrupted -= again
            self._listener.on_interruption(again)
        for topic in topics:
            self._confirm(topic)

    async def _command(self, reader: RedisReader, verb: str, topics: set[str]) -> None:
        """Return when Redis has confirmed the command for each topic."""
        if not topics:
            return
        self._unanswered = len(topics)
        self._answered = asyncio.get_running_loop().create_future()
        channels = map(_channel, topics)
        reader.send(_pack(verb, *channels))
        done, _ = await asyncio.wait([self._answered], timeout=_ANSWERING)
        if not done:
            raise LostConnectionError(f"{verb} was not confirmed within {_ANSWERING} s")

    # The hearing half: called by the reader, as it comes in.

    def _pass_on(self, channel: bytes, payload: bytes) -> None:
        topic = channel[len(_CHANNEL) + 1 : -1].decode()
        try:
            epoch, offset, record = payload.split(b":", 2)
            publication = Publication(topic, Position(epoch.decode(), int(offset)), record)
        except ValueError:
            _log.warning("redis_foreign_message", topic=topic)
            return
        self._listener.on_publication(publication)

    def _count_answer(self) -> None:
        self._unanswered -= 1
        if self._unanswered == 0:
            self._answered.set_result(None)


def connection_options(url: str) -> dict[str, Any]:
    """Return how to connect; raises ValueError when `url` is none of Redis."""
    try:
        options = sentinel.options_of(url) if sentinel.is_named(url) else {**parse_url(url)}
    except ValueError:
        # Its text may quote a part of the password.
        raise ValueError(
            "not a URL of Redis, such as redis://user:password@host:6379/0 "
            "or redis+sentinel://host:26379/master"
        ) from None
    return {
        **options,
        "protocol": 2,  # in RESP3 redis-py makes a string of each push, to log it
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        # Ours limit the time. With this one, redis-py sends by `wait_for`, which before Python
        # 3.12 can swallow a cancellation; and what is then sent on would reconnect by itself.
        "socket_timeout": None,
        "socket_connect_timeout": _ANSWERING,
    }


def _pack(*words: str | bytes | float) -> bytes:
    packed: bytes = pack_command(words)  # type: ignore[arg-type]  # the stub says one word
    return packed


async def _send(connection: AbstractConnection, *packed: bytes) -> None:
    try:
        await connection.send_packed_command([b"".join(packed)])
    except RuntimeError as error:  # of uvloop, when the connection was reset just now
        raise LostConnectionError(str(error)) from error


async def _reply(connection: AbstractConnection) -> Any:  # noqa: ANN401  # what Redis replies
    """Read a reply, an error among them; without a timer of its own, which costs more than it."""
    try:
        reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
    except ResponseError as error:
        return error
    if reply is None:  # so redis-py tells of a TimeoutError from TCP's keepalive
        await connection.disconnect(nowait=True)
        raise LostConnectionError("the connection timed out")
    return reply


def _published(reply: Any) -> Published | NotifierError:  # noqa: ANN401  # what Redis replies
    if isinstance(reply, Refused):
        return reply
    epoch, offset, duplicate, _ = reply
    return Published(Position(epoch.decode(), offset), duplicate=bool(duplicate))


def _is_cut(reply: Any) -> bool:  # noqa: ANN401  # what Redis replies
    return not isinstance(reply, Refused) and bool(reply[3])


def _history(topic: str, reply: Any) -> History:  # noqa: ANN401  # what Redis replies
    if isinstance(reply, Refused):
        # Not the others' trouble: to this topic's followers it is one gap after another.
        _log.warning("redis_stream_unusable", topic=topic, reason=str(reply))
        return History(Position(_new_epoch(), 0))
    if not reply:
        return History(NOWHERE)
    epoch, offset, lineage, entries, keys = reply
    epoch = epoch.decode()
    publications: list[Publication] = []
    for entry, fields in entries:
        try:
            _, record, *_ = fields
            position = Position(epoch, int(entry.removesuffix(b"-0")))
            publications.append(Publication(topic, position, record))
        except ValueError:
            # Nothing of ours: history reaches back to here.
            _log.warning("redis_foreign_entry", topic=topic)
            publications.clear()
    newest = dict(zip(keys[::2], map(int, keys[1::2]), strict=True))
    return History(Position(epoch, offset), publications, _lineage(lineage), newest)


def _lineage(text: bytes) -> dict[str, int]:
    pairs = (each.partition(":") for each in text.decode().split())
    return {epoch: int(offset) for epoch, _, offset in pairs}


def _channel(topic: str) -> str:
    return f"{_CHANNEL}{{{topic}}}"


def _keys(topic: str) -> tuple[str, ...]:
    return tuple(f"{_CHANNEL}{{{topic}}}:{key}" for key in _KEYS)


def _words(new: NewPublication) -> tuple[str | bytes, ...]:
    return (_channel(new.topic), _digest(new.key), new.record, new.collapse_key)


@lru_cache(1_000)  # those of one event for many topics
def _digest(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=10).digest()


def _new_epoch() -> str:
    return b32encode(token_bytes(5)).decode().lower()


def _reason(error: BaseException) -> str:
    # asyncio's own has no words.
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)


def _chunks(topics: Iterable[str], size: int) -> Iterator[set[str]]:
    remaining = iter(topics)
    while chunk := set(islice(remaining, size)):
        yield chunk
