"""A producer: it posts events until they are confirmed, many at once where many are waiting."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self, Unpack
from uuid import uuid4

import msgspec
from anyio.from_thread import start_blocking_portal

from notifier.client.amqp_way import AmqpWay
from notifier.client.errors import ClientError, NoAnswer
from notifier.client.events import Members
from notifier.client.http_way import HttpWay
from notifier.client.ways import Accepted, Again, Outcome, Way
from notifier.core.background import LongLived
from notifier.core.backoff import Backoff
from notifier.core.events import LARGEST_BATCH, MOST_IN_BATCH

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


@dataclass(frozen=True, slots=True)
class _Posting:
    event: bytes
    answer: asyncio.Future[None]


class Producer(LongLived):
    """Posts events; enter it with `async with` and share it between tasks.

    `url` is the api's, http:// or https://, with an API key; or RabbitMQ's, amqp:// or amqps://,
    where `source` is required: source and id are an event's identity. An event is tried for
    `patience` seconds. Events that are posted at the same time leave together, in the order of
    the calls. Leaving the block waits for those that are under way.
    """

    def __init__(
        self, url: str, key: str | None = None, *, source: str | None = None, patience: float = 60.0
    ) -> None:
        super().__init__()
        self._way = _way_of(url, key, source)
        self._source: Members = {} if source is None else {"source": source}
        self._patience = patience
        self._waiting: asyncio.Queue[_Posting] = asyncio.Queue(MOST_IN_BATCH)
        self._next: _Posting | None = None  # it had no room in the last batch
        self._sending: list[_Posting] = []
        self.trouble = ""  # the reason of the last try that failed
        self._is_open = False

    async def post(self, type: str, **members: Unpack[Members]) -> str:  # noqa: A002 - the member's name
        """Return the event's id once it is confirmed; one is made if `members` has none.

        Raises Refused for an event that must be changed, and NoAnswer when `patience` is over:
        post it again with the same id. TypeError for data that cannot become JSON.
        """
        if not self._is_open:
            raise ClientError("the producer is not open: post within `async with`")
        event = {"type": type, "id": uuid4().hex, **self._source, **members}
        loop = asyncio.get_running_loop()
        posting = _Posting(msgspec.json.encode(event), loop.create_future())
        try:
            async with asyncio.timeout(self._patience):
                await self._waiting.put(posting)
                await posting.answer
        except TimeoutError:
            seconds = f"{self._patience:g} s"
            raise NoAnswer(
                f"not confirmed within {seconds}: {self.trouble or 'it is still under way'}"
            ) from None
        return str(event["id"])

    async def __aenter__(self) -> Self:
        """Begin; does not wait for a connection. Ending waits for events, unless with an error."""
        await self._way.__aenter__()
        await super().__aenter__()
        self._is_open = True
        return self

    async def _finish(self, error: BaseException | None) -> None:
        self._is_open = False
        if error is None:
            await self._waiting.join()

    def _start(self) -> None:
        self._background.start(self._send_all(), "notifier-producer")

    async def _close(self) -> None:
        await self._way.__aexit__()
        while not self._waiting.empty():
            self._sending.append(self._waiting.get_nowait())
        for posting in (*self._sending, *([self._next] if self._next else [])):
            _settle(posting, NoAnswer("the producer was closed before the event was confirmed"))

    async def _send_all(self) -> None:
        while True:
            self._fill(self._next or await self._waiting.get())
            count = len(self._sending)
            await self._send_until_settled()
            for _ in range(count):
                self._waiting.task_done()

    def _fill(self, first: _Posting) -> None:
        """Take all that waits, as far as a batch has room."""
        self._sending, self._next, size = [first], None, len(first.event) + len("[]")
        while len(self._sending) < MOST_IN_BATCH and not self._waiting.empty():
            posting = self._waiting.get_nowait()
            size += len(posting.event) + len(",")
            if size > LARGEST_BATCH:
                self._next = posting
                return
            self._sending.append(posting)

    async def _send_until_settled(self) -> None:
        """Send those again of which nothing is known; a caller that gave up settles its own."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while self._sending:
            outcomes = await self._way.send([posting.event for posting in self._sending])
            for posting, outcome in zip(self._sending, outcomes, strict=True):
                _settle(posting, outcome)
            if again := [outcome for outcome in outcomes if isinstance(outcome, Again)]:
                self.trouble = again[0].reason
                # Jitter on top: producers with the same time to wait do not come together either.
                await asyncio.sleep(max(each.after for each in again) + backoff.next())
            self._sending = [each for each in self._sending if not each.answer.done()]


def _settle(posting: _Posting, outcome: Outcome | NoAnswer) -> None:
    if posting.answer.done() or isinstance(outcome, Again):
        return
    if isinstance(outcome, Accepted):
        posting.answer.set_result(None)
    else:
        posting.answer.set_exception(outcome)


def _way_of(url: str, key: str | None, source: str | None) -> Way:
    if not url.startswith(("amqp://", "amqps://")):
        return HttpWay(url, key)
    if source is None:
        raise ClientError("source: give one over AMQP: with the id it is an event's identity")
    return AmqpWay(url)


class SyncProducer:
    """A Producer for code without an event loop; enter it with `with`, share it between threads.

    It runs in a thread of its own, so that events of several threads leave together. Enter it
    after a fork, not before.
    """

    def __init__(
        self, url: str, key: str | None = None, *, source: str | None = None, patience: float = 60.0
    ) -> None:
        self._producer = Producer(url, key, source=source, patience=patience)

    def __enter__(self) -> Self:
        """Start its thread."""
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(self._portal.wrap_async_context_manager(self._producer))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the events under way, unless an error ends the block."""
        self._stack.__exit__(kind, error, trace)

    def post(self, type: str, **members: Unpack[Members]) -> str:  # noqa: A002 - the member's name
        """See Producer.post."""
        return self._portal.call(partial(self._producer.post, type, **members))
