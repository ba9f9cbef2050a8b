"""The broker on Redis: scripts that publish and read, and connections that subscribe."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, repeat
from typing import Any, NamedTuple, Self
from zlib import crc32

import structlog

from notifier.adapters.redis.commands import Commands
from notifier.adapters.redis.confirmed_positions import ConfirmedPositions
from notifier.adapters.redis.connection import ANSWERING
from notifier.adapters.redis.keys import channel_of, digest_of, new_epoch, stream_keys
from notifier.adapters.redis.replies import history_of, is_cut, published_of
from notifier.adapters.redis.scripts import PUBLISH, PUBLISHED_AT, READ
from notifier.adapters.redis.signals import payload_of
from notifier.adapters.redis.subscriber import Subscriber
from notifier.core.addresses import Url
from notifier.core.background import LongLived
from notifier.core.errors import Failed, NotifierError, Unavailable, unfailed
from notifier.core.history import PAGE, Before, History, Published, Question, Since
from notifier.core.names import is_personal
from notifier.core.ports import BrokerListener
from notifier.core.positions import Position
from notifier.core.publications import NewPublication
from notifier.core.signals import Signal
from notifier.telemetry.metrics import Metrics

_SUBSCRIBERS = 2
_MOST_COMMANDS = 500  # a round trip
_MOST_PUBLICATIONS = 250  # a call, in which Redis serves nobody else
_PING_EVERY = 2.0  # seconds
_TWO_DAYS = 2 * 86_400

_log = structlog.stdlib.get_logger(__name__)


class Kept(NamedTuple):
    """How many publications a topic keeps, and for how long without a new one."""

    size: int
    head_seconds: int
    log_seconds: int

    @classmethod
    def of(cls, size: int, seconds: int) -> Self:
        """Keep the head longer than the log: one that expired before it would hide it."""
        return cls(size, max(_TWO_DAYS, 2 * seconds), seconds)


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
        inbox_size: int = 200,
        inbox_seconds: int = 30 * 86_400,
        deduplication_seconds: int = 3_600,
        ping_seconds: float = 5.0,
        silence_seconds: float = 15.0,
    ) -> None:
        super().__init__()
        self._commands = Commands(url, metrics)
        self.now = self._commands.clock.now  # see Broker; without a call of its own
        self._confirmed = ConfirmedPositions()
        self._metrics = metrics
        self._deduplication_seconds = deduplication_seconds
        self._kept = Kept.of(history_size, history_seconds)
        self._kept_personal = Kept.of(inbox_size, inbox_seconds)
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
        troubles = [part.trouble for part in (self._commands, *subscribers) if part.trouble]
        return "; ".join(dict.fromkeys(troubles)) if troubles else None

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
        answers = await self._answers(batch)
        if answers and type(answers[0]) is Unavailable:  # then so are the others
            raise answers[0]
        return answers

    async def _answers(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        """Return an answer for each, and lose none if Redis goes away meanwhile."""
        answers: list[Published | NotifierError] = []
        while len(answers) < len(batch):
            try:
                some = await self._publish(batch[len(answers) :][:_MOST_PUBLICATIONS])
            except Unavailable as error:
                return [*answers, *repeat(error, len(batch) - len(answers))]
            answers += some
            if isinstance(some[-1], Failed):
                return answers + await self._publish_others(batch, len(answers), some[-1])
        return answers

    async def _publish_others(
        self, batch: Sequence[NewPublication], start: int, failure: Failed
    ) -> list[Published | NotifierError]:
        """Publish the items behind one that failed, and none to its topic."""
        topic, rest = batch[start - 1].topic, batch[start:]
        answers = iter(await self._answers([new for new in rest if new.topic != topic]))
        return [failure if new.topic == topic else next(answers) for new in rest]

    async def _publish(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        """Publish the first items of the batch: at least one.

        One call does it, so that nothing is published behind an item that Redis refused: see
        PUBLISH.
        """
        limits = (self._deduplication_seconds, *self._kept, *self._kept_personal)
        run_id, replies = await self._commands.run_once(
            PUBLISH,
            [key for new in batch for key in stream_keys(new.topic)],
            [new_epoch(), *limits, *chain.from_iterable(map(_arguments, batch))],
        )
        if isinstance(replies[0], Failed) and len(batch) > 1:  # Redis names none of them
            return await self._publish(batch[: len(batch) // 2])
        self._metrics.deduplication_cuts.inc(sum(is_cut(reply) for reply in replies))
        answers = [published_of(reply) for reply in replies]
        pairs = zip(batch, answers, strict=False)
        # No list: to the garbage collector its tuples cost more than all the rest of this.
        positions = ((new.topic, a.position) for new, a in pairs if isinstance(a, Published))
        self._confirmed.remember(run_id, positions)
        with suppress(Unavailable):  # `_watch` compares them then
            await self._compare()
        return answers

    async def _compare(self) -> None:
        """Compare the current Redis with the positions that former ones confirmed.

        Reading a position that it has lost begins an epoch that continues no other.
        """
        failed: set[tuple[str, Position]] = set()  # `_watch` compares them later: nobody waits
        while unverified := self._confirmed.unverified_on(self._commands.run_id, but=failed):
            for start in range(0, len(unverified), _MOST_COMMANDS):
                some = unverified[start:][:_MOST_COMMANDS]
                run_id, read = await self._read([Since(t, None, position) for t, position in some])
                answers = list(zip(some, read, strict=False))
                failed.update(each for each, history in answers if history.failure)
                compared = [each for each, history in answers if not history.failure]
                self._confirmed.mark_verified(run_id, compared)

    async def read(self, questions: Sequence[Question]) -> list[History]:
        """See Broker; a round trip has up to 500 questions."""
        answers: list[History] = []
        while len(answers) < len(questions):
            _, read = await self._read(questions[len(answers) :][:_MOST_COMMANDS])
            answers += read
        return answers

    async def _read(self, questions: Sequence[Question]) -> tuple[str, list[History]]:
        """Return the run id of the process that answered, and the first answers: at least one."""
        epoch = new_epoch()
        run_id, replies = await self._commands.run(
            READ, [(*stream_keys(each.topic), epoch, *self._asked(each)) for each in questions]
        )
        answered = zip(questions, replies, strict=False)
        return run_id, [history_of(question, reply) for question, reply in answered]

    async def published_at(self, topics: Sequence[str], key: str) -> list[float | None]:
        """See Broker; a round trip has up to 500 topics."""
        calls = [(*stream_keys(topic), digest_of(key)) for topic in topics]
        replies = unfailed(await self._commands.run_each(PUBLISHED_AT, calls))
        return [each / 1000 if isinstance(each, int) and each else None for each in replies]

    async def signal(self, signals: Sequence[Signal]) -> list[NotifierError | None]:
        """See Broker."""
        answers: list[NotifierError | None] = []
        for start in range(0, len(signals), _MOST_COMMANDS):
            some = signals[start:][:_MOST_COMMANDS]
            answers += await self._commands.send(
                [("PUBLISH", channel_of(each.topic), payload_of(each)) for each in some]
            )
        return answers

    def _asked(self, question: Question) -> tuple[str | int, ...]:
        kept = self._kept_personal if is_personal(question.topic) else self._kept
        seconds = kept.head_seconds
        if isinstance(question, Before):
            # Not `(OFFSET-0`: nothing is before 0, which Redis takes for an error.
            last = "+" if question.offset is None else max(question.offset - 1, 0)
            beginning = "" if question.beginning is None else question.beginning
            return (seconds, question.most, question.behind, "", "", "", last, beginning)
        asked = "" if question.offset is None else question.offset
        seen = question.seen or ("", "")
        return (seconds, PAGE, asked, *seen, 1 if question.begins else "", "", "")

    # Following.

    def listen(self, listener: BrokerListener) -> None:
        """See Broker; the broker must be entered."""
        self._listens = True
        for number, subscriber in enumerate(self._subscribers):
            self._background.start(subscriber.run(listener), f"redis: subscriber {number}")

    async def subscribe(self, topics: Sequence[str]) -> None:
        """See Broker."""
        awaited = [
            confirmation
            for subscriber, some in self._shared_out(topics)
            if (confirmation := subscriber.subscribe(some)) is not None
        ]
        if not awaited:
            return
        _, late = await asyncio.wait([each.came for each in awaited], timeout=ANSWERING)
        if late:
            for each in late:
                each.cancel()
            missing = sum(len(each.missing) for each in awaited)
            reason = f"{missing} subscriptions were not confirmed within {ANSWERING} s"
            raise Unavailable("redis", reason)

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """See Broker."""
        for subscriber, some in self._shared_out(topics):
            subscriber.unsubscribe(some)

    def _shared_out(self, topics: Sequence[str]) -> Iterator[tuple[Subscriber, set[str]]]:
        """Return each subscriber with those of the topics that are its own."""
        parts: list[set[str]] = [set() for _ in self._subscribers]
        for topic in topics:
            parts[crc32(topic.encode()) % _SUBSCRIBERS].add(topic)
        return zip(self._subscribers, parts, strict=True)


def _arguments(new: NewPublication) -> tuple[str | bytes | int, ...]:
    personal = 1 if is_personal(new.topic) else ""
    return (channel_of(new.topic), digest_of(new.key), new.record, new.collapse_key, personal)
