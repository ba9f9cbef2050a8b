"""A connection that subscribes to topics, and reconnects when it is lost."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import structlog
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import RedisError

from notifier.adapters.redis.connection import ANSWERING, new_connection, pack, reason_of
from notifier.adapters.redis.keys import TOPIC, channel_of
from notifier.adapters.redis.reader import RedisReader
from notifier.adapters.redis.signals import signal_of
from notifier.core.addresses import Address, Url
from notifier.core.backoff import Backoff
from notifier.core.ports import BrokerListener
from notifier.core.publications import Publication
from notifier.telemetry.metrics import Metrics

_MOST_CHANNELS = 1_000  # a command: more of them stall Redis
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to connect

_log = structlog.stdlib.get_logger(__name__)


class Confirmation(NamedTuple):
    """Topics that a caller waits for, and the moment when none of them is missing any more."""

    missing: set[str]
    came: asyncio.Future[None]


class Subscriber:
    """One subscribing connection, made anew whenever it is lost, and the topics it follows.

    It compares the topics wanted with those subscribed, and sends the difference. So it does not
    matter how often a topic was followed and unfollowed meanwhile.
    """

    def __init__(self, url: Url, metrics: Metrics, ping: float, silence: float) -> None:
        self._address = Address.of(url)
        self._metrics = metrics
        self._ping_seconds = ping
        self._silence_seconds = silence
        self._reason: str | None = "not connected yet"
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._has_been_up = False
        self._wanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._interrupted: set[str] = set()  # were subscribed on a connection that was lost
        self._changed: set[str] = set()
        self._work = asyncio.Event()
        self._awaited: list[Confirmation] = []
        self._unanswered = 0  # channels of the last command
        self._answered: asyncio.Future[None]

    @property
    def trouble(self) -> str | None:
        """See Dependency."""
        if self._reason:
            return f"not subscribed to Redis: {self._reason}"
        if self._interrupted:
            return f"{len(self._interrupted)} topics are not subscribed again yet"
        return None

    def subscribe(self, topics: set[str]) -> Confirmation | None:
        """Want topics; return their coming confirmation, or None if all are subscribed already."""
        self._wanted |= topics
        missing = topics - self._subscribed
        if not missing:
            return None
        self._mark_changed(missing)
        confirmation = Confirmation(missing, asyncio.get_running_loop().create_future())
        # Those whose callers gave up go, or they would gather while Redis is away.
        self._awaited = [each for each in self._awaited if not each.came.done()]
        self._awaited.append(confirmation)
        return confirmation

    def unsubscribe(self, topics: set[str]) -> None:
        """Want topics no longer, and release the callers that wait for their confirmation."""
        self._wanted -= topics
        self._interrupted -= topics
        self._mark_changed(topics)
        self._confirm(topics)

    def _mark_changed(self, topics: set[str]) -> None:
        self._changed |= topics
        self._work.set()

    def _confirm(self, topics: set[str]) -> None:
        for each in self._awaited:
            each.missing.difference_update(topics)
            if not (each.missing or each.came.done()):
                each.came.set_result(None)

    async def run(self, listener: BrokerListener) -> None:
        """Stay connected until cancelled."""
        self._listener = listener
        this: asyncio.Task[Any] | None = asyncio.current_task()
        # Checked each time: a TaskGroup swallows a cancellation that meets an error.
        while this and not this.cancelling():
            try:
                await self._run_connection()
            except* (RedisError, OSError) as errors:
                self._on_lost(reason_of(errors.exceptions[0]))
            await asyncio.sleep(self._backoff.next())

    async def _run_connection(self) -> None:
        connection = new_connection(self._address)
        try:
            async with asyncio.timeout(ANSWERING):
                await connection.connect()  # type: ignore[no-untyped-call]
            reader = RedisReader(connection, self._on_message, self._on_confirmation)
            self._on_connected()
            await self._exchange(reader)
        finally:
            await connection.disconnect(nowait=True)

    async def _exchange(self, reader: RedisReader) -> None:
        this = asyncio.current_task()
        name = f"{this and this.get_name()}, sending"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_changes(reader), name=name)
            await reader.end(self._silence_seconds)

    def _on_connected(self) -> None:
        if self._has_been_up:
            self._metrics.reconnects.labels("redis").inc()
        self._reason, self._has_been_up = None, True
        self._changed = set(self._wanted)
        _log.info("redis_subscriber_connected", topics=len(self._wanted))

    def _on_lost(self, reason: str) -> None:
        if self._reason != reason:  # one line for a long outage
            _log.warning("redis_subscriber_lost", reason=reason)
        self._reason = reason
        self._interrupted |= self._subscribed & self._wanted
        self._subscribed.clear()

    # The sending half: one command at a time.

    async def _send_changes(self, reader: RedisReader) -> None:
        while True:
            changed, self._changed = self._changed, set()
            for some in _chunks(changed, _MOST_CHANNELS):
                await self._unsubscribe(reader, (self._subscribed & some) - self._wanted)
                await self._subscribe(reader, (self._wanted & some) - self._subscribed)
            if not self._changed:
                await self._idle(reader)

    async def _idle(self, reader: RedisReader) -> None:
        """Wait for work; make Redis answer meanwhile."""
        self._backoff.reset()  # not before: a user may connect, and not subscribe
        self._work.clear()
        try:
            async with asyncio.timeout(self._ping_seconds):
                await self._work.wait()
        except TimeoutError:
            reader.send(pack("PING"))

    async def _unsubscribe(self, reader: RedisReader, topics: set[str]) -> None:
        # Before it is sent, so that a follower from now on waits for a new subscription.
        self._subscribed -= topics
        await self._command(reader, "UNSUBSCRIBE", topics)

    async def _subscribe(self, reader: RedisReader, topics: set[str]) -> None:
        await self._command(reader, "SUBSCRIBE", topics)
        self._subscribed |= topics
        if again := topics & self._interrupted:
            self._interrupted -= again
            self._listener.on_interruption(again)
        self._confirm(topics)

    async def _command(self, reader: RedisReader, verb: str, topics: set[str]) -> None:
        """Return when Redis has confirmed the command for each topic."""
        if not topics:
            return
        self._unanswered = len(topics)
        self._answered = asyncio.get_running_loop().create_future()
        channels = map(channel_of, topics)
        reader.send(pack(verb, *channels))
        done, _ = await asyncio.wait([self._answered], timeout=ANSWERING)
        if not done:
            raise LostConnectionError(f"{verb} was not confirmed within {ANSWERING} s")

    # The receiving half, which the reader calls.

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        topic = channel[TOPIC].decode()
        try:
            epoch, offset, record = payload.split(b":", 2)
            publication = Publication(topic, epoch.decode(), int(offset), record)
        except ValueError:  # a foreign message must not stop publications
            self._on_other_message(topic, payload)
            return
        self._listener.on_publication(publication)

    def _on_other_message(self, topic: str, payload: bytes) -> None:
        if signal := signal_of(topic, payload):
            self._listener.on_signal(signal)
        else:
            _log.warning("redis_foreign_message", topic=topic)

    def _on_confirmation(self) -> None:
        self._unanswered -= 1
        if self._unanswered == 0:
            self._answered.set_result(None)


def _chunks(topics: Iterable[str], size: int) -> Iterator[set[str]]:
    remaining = iter(topics)
    while chunk := set(islice(remaining, size)):
        yield chunk
