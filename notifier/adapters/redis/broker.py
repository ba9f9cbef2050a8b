"""The broker on Redis: scripts that publish and read, and connections that subscribe."""

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any
from zlib import crc32

import structlog

from notifier.adapters.redis.commands import Commands
from notifier.adapters.redis.confirmed import ConfirmedPositions
from notifier.adapters.redis.connection import ANSWERING
from notifier.adapters.redis.keys import channel_of, digest_of, new_epoch, stream_keys
from notifier.adapters.redis.replies import history_of, is_cut, published_of
from notifier.adapters.redis.scripts import PUBLISH, READ
from notifier.adapters.redis.signals import payload_of
from notifier.adapters.redis.subscriber import Subscriber
from notifier.core.addresses import Url
from notifier.core.background import LongLived
from notifier.core.errors import NotifierError, Unavailable
from notifier.core.ports import PAGE, BrokerListener, History, Published, Since
from notifier.core.publications import NewPublication
from notifier.core.signals import Signal
from notifier.telemetry.metrics import Metrics

_SUBSCRIBERS = 2
_MOST_COMMANDS = 500  # a round trip
_MOST_PUBLICATIONS = 250  # a call, in which Redis serves nobody else
_PING_EVERY = 2.0  # seconds
_TWO_DAYS = 2 * 86_400

_log = structlog.stdlib.get_logger(__name__)


class RedisBroker(LongLived):
    """Fulfils `notifier.core.ports.Broker` while it is entered; entering does not wait for Redis.

    `url` is redis://, rediss:// or unix://, with user and password where needed, or names Sentinels
    (see `sentinel.py`). Its query may have redis-py's options (`?ssl_ca_certs=…`). `listen` opens
    the subscribing connections. Each sends PING after `ping_seconds` without work, and reconnects
    after `silence_seconds` without a byte.
    """

    def __init__(  # noqa: PLR0913  # settings
        self,
        url: Url,
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
        self._confirmed = ConfirmedPositions()
        self._metrics = metrics
        self._limits = (history_size, history_seconds, deduplication_seconds)
        # A head that expires before its log would hide the log.
        self._head_seconds = max(_TWO_DAYS, 2 * history_seconds)
        self._subscribers = [
            Subscriber(url, metrics, ping_seconds, silence_seconds) for _ in range(_SUBSCRIBERS)
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
        """Keep `trouble` true while nothing else asks Redis, and notice a new process."""
        this: asyncio.Task[Any] | None = asyncio.current_task()
        while this and not this.cancelling():  # a library may have swallowed the cancellation
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
        """Publish the first items of the batch: at least one.

        One call does it, so that nothing is published behind an item that Redis refused: see
        PUBLISH.
        """
        size, log_seconds, window = self._limits
        limits = (new_epoch(), size, self._head_seconds, log_seconds, window)
        run_id, replies = await self._commands.run_once(
            PUBLISH,
            [key for new in batch for key in stream_keys(new.topic)],
            [*limits, *chain.from_iterable(map(_arguments, batch))],
        )
        self._metrics.deduplication_cuts.inc(sum(is_cut(reply) for reply in replies))
        answers = [published_of(reply) for reply in replies]
        pairs = zip(batch, answers, strict=False)
        # No list: to the garbage collector its tuples cost more than all the rest of this.
        positions = ((new.topic, a.position) for new, a in pairs if isinstance(a, Published))
        self._confirmed.remember(run_id, positions)
        await self._compare()
        return answers

    async def _compare(self) -> None:
        """Compare the current Redis with the positions that former ones confirmed.

        Reading a position that it has lost begins an epoch that continues no other.
        """
        while unverified := self._confirmed.unverified_on(self._commands.run_id):
            for start in range(0, len(unverified), _MOST_COMMANDS):
                some = unverified[start:][:_MOST_COMMANDS]
                run_id, read = await self._read([Since(t, None, position) for t, position in some])
                self._confirmed.mark_verified(run_id, some[: len(read)])

    async def read(self, questions: Sequence[Since]) -> list[History]:
        """See Broker; a round trip has up to 500 questions."""
        answers: list[History] = []
        while len(answers) < len(questions):
            _, read = await self._read(questions[len(answers) :][:_MOST_COMMANDS])
            answers += read
        return answers

    async def _read(self, questions: Sequence[Since]) -> tuple[str, list[History]]:
        """Return the run id of the process that answered, and the first answers: at least one."""
        limits = (new_epoch(), self._head_seconds, PAGE)
        run_id, replies = await self._commands.run(
            READ,
            [
                (
                    *stream_keys(question.topic),
                    *limits,
                    "" if question.offset is None else question.offset,
                    *(question.seen or ("", "")),
                    1 if question.begins else "",
                )
                for question in questions
            ],
        )
        answered = zip(questions, replies, strict=False)
        return run_id, [history_of(question.topic, reply) for question, reply in answered]

    async def signal(self, signals: Sequence[Signal]) -> None:
        """See Broker."""
        for start in range(0, len(signals), _MOST_COMMANDS):
            some = signals[start:][:_MOST_COMMANDS]
            await self._commands.send(
                [("PUBLISH", channel_of(each.topic), payload_of(each)) for each in some]
            )

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
        _, unconfirmed = await asyncio.wait(awaited, timeout=ANSWERING)
        if unconfirmed:
            reason = f"{len(unconfirmed)} subscriptions were not confirmed within {ANSWERING} s"
            raise Unavailable("redis", reason)

    async def unfollow(self, topics: Sequence[str]) -> None:
        """See Broker."""
        for topic in topics:
            self._subscriber(topic).unfollow(topic)

    def _subscriber(self, topic: str) -> Subscriber:
        return self._subscribers[crc32(topic.encode()) % _SUBSCRIBERS]


def _arguments(new: NewPublication) -> tuple[str | bytes, ...]:
    return (channel_of(new.topic), digest_of(new.key), new.record, new.collapse_key)
