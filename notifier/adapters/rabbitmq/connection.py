"""Connections to RabbitMQ that are made anew whenever they are lost."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from random import uniform
from types import TracebackType
from typing import Self

import aiormq
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection

from notifier.adapters.rabbitmq.topology import TopologyError
from notifier.adapters.rabbitmq.wire import Transport, Wire
from notifier.core.background import Background
from notifier.telemetry.metrics import Metrics

# In seconds.
_HEARTBEAT = 10
_CONNECTING = 10
_SETTING_UP = 10
_CLOSING = 3
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

REMEDY = (
    "give the user this right (rabbitmqctl set_permissions, or set_topic_permissions where the "
    "words name a topic); docs/operating.md#topology lists those that each role needs"
)

_log = structlog.stdlib.get_logger(__name__)


class Lost(Exception):
    """The connection is of no use, or no longer; says why."""


class Vanished(Lost):
    """A queue or an exchange is gone; `queue` is its name where it is known."""

    def __init__(self, reason: str, queue: str = "") -> None:
        super().__init__(reason)
        self.queue = queue


@contextmanager
def losses() -> Iterator[None]:
    """Turn what aiormq raises into Lost.

    It rejects whoever waits with whatever ended the connection: the server's words, a bare
    Exception, or, after missed heartbeats, a CancelledError that nobody asked for. In return it
    puts such an error in the place of a CancelledError that somebody did ask for.
    """
    try:
        yield
    except asyncio.CancelledError:
        honour_cancellation()
        raise Lost("it fell silent") from None
    except Exception as error:
        honour_cancellation()
        if type(error) is not Exception and not isinstance(error, _EXPECTED):
            raise
        kind = Vanished if isinstance(error, _GONE) else Lost
        raise kind(_in_words(error)) from error


_GONE = (aiormq.ChannelNotFoundEntity, aiormq.PublishError)
_EXPECTED = (aiormq.AMQPError, OSError, RuntimeError, TopologyError)


def _in_words(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "it does not answer in time"
        case aiormq.PublishError():
            return f"it has no queue for what is published: {error}"
        case aiormq.DeliveryError():
            return "it refuses what is published: is the queue full?"
        case aiormq.ChannelAccessRefused():
            return f"{error}; {REMEDY}"
        case RuntimeError():  # of aiormq, about a channel that is closed
            return "the connection was lost"
        case _:
            return str(error) or "it closed the connection"


def honour_cancellation() -> None:
    """Raise the CancelledError that somebody asked for, in case aiormq has swallowed it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Link:
    """A connection that is torn down and made anew whenever it is lost, on one host after another.

    `url` may be several, separated by commas. `use` is called with each new connection: it calls
    `is_up` when it has made of it what it needs, and then awaits `until_lost`.
    """

    def __init__(
        self,
        url: str,
        purpose: str,
        metrics: Metrics,
        use: Callable[[AbstractConnection], Awaitable[None]],
    ) -> None:
        self._urls = [_with_heartbeat(part.strip()) for part in url.split(",")]
        self.purpose = purpose
        self._metrics = metrics
        self._use = use
        self._reason: str | None = "it has not answered yet"
        self._failures = 0
        self._has_been_up = False
        self.lost_queue = ""  # with the connection before this one
        self._transport = Transport()
        self._deadline: asyncio.TimerHandle | None = None
        self._is_overdue = False

    @property
    def trouble(self) -> str | None:
        """See Dependency."""
        return self._reason and f"not connected to RabbitMQ: {self._reason}"

    @property
    def wire(self) -> Wire:
        """The bytes of the present connection."""
        assert self._transport.wire  # noqa: S101  # asked for by `use`, which has a connection
        return self._transport.wire

    async def keep(self) -> None:
        """Connect, again and again, until it is cancelled."""
        for url in cycle(self._urls):
            honour_cancellation()  # closing can swallow it
            try:
                with losses():
                    await self._live(url)
            except Lost as lost:
                self._note(Lost("it does not answer in time") if self._is_overdue else lost)
            # Jitter, so that not all come back to a restarted RabbitMQ in the same moment.
            longest = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(self._failures, 10))
            await asyncio.sleep(uniform(_SHORTEST_PAUSE, longest))  # noqa: S311  # no secret

    async def _live(self, url: str) -> None:
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watched: set[AbstractChannel] = set()
        self._transport, self._is_overdue = Transport(), False
        async with asyncio.timeout(_CONNECTING):
            connection = await aiormq.connect(
                url,
                client_properties={"connection_name": f"notifier: {self.purpose}"},
                transport_factory=self._transport,
            )
        self._metrics.connected("rabbitmq", self._transport.writer)
        self._limit(_SETTING_UP)
        try:
            await self._use(connection)
        finally:
            self._reason = self._reason or "the connection was just lost"  # closing takes a while
            self._limit(_CLOSING)
            with suppress(Lost), losses():
                await connection.close(aiormq.ConnectionClosed(200, "closed"))
            self._limit(None)

    def _limit(self, seconds: float | None) -> None:
        # A task that aiormq is asked to cancel may go on to wait for a RabbitMQ that hangs.
        if self._deadline:
            self._deadline.cancel()
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._abort)

    def _abort(self) -> None:
        self._is_overdue = True
        if self._transport.wire:
            self._transport.wire.abort()

    def hurry(self) -> None:
        """See to it that `keep`, once cancelled, takes no longer than closing may."""
        self._limit(_CLOSING)

    def _note(self, lost: Lost) -> None:
        self._failures += 1
        self.lost_queue = lost.queue if isinstance(lost, Vanished) else ""
        if isinstance(lost, Vanished):
            self._metrics.topology_repairs.inc()
            _log.warning("rabbitmq_queue_vanished", purpose=self.purpose, reason=str(lost))
        elif self._reason != str(lost):  # one line for a long absence
            _log.warning("rabbitmq_lost", purpose=self.purpose, reason=str(lost))
        self._reason = str(lost)

    def may_take_long(self) -> None:
        """Let setting up take any time from now on; heartbeats still end it when RabbitMQ hangs."""
        self._limit(None)

    def is_up(self) -> None:
        """Say that the connection is of use now."""
        self._limit(None)
        if self._has_been_up:
            self._metrics.reconnects.labels("rabbitmq").inc()
        self._reason, self._failures, self._has_been_up = None, 0, True
        _log.info("rabbitmq_connected", purpose=self.purpose)

    def give_up(self, why: BaseException) -> None:
        """End this connection; a new one declares what has vanished."""
        if not self._end.done():
            self._end.set_exception(why)
            self._end.exception()  # else asyncio complains when nobody waits for it any more

    def watch(self, channel: AbstractChannel) -> None:
        """Give up when RabbitMQ closes this channel."""

        def on_end(closing: "asyncio.Future[None]") -> None:
            why = None if closing.cancelled() else closing.exception()
            if why and channel in self._watched:
                self.give_up(why)

        self._watched.add(channel)
        channel.closing.add_done_callback(on_end)

    async def close(self, channel: AbstractChannel) -> None:
        """Close a channel that is watched."""
        self._watched.discard(channel)
        await channel.close()

    async def until_lost(self, connection: AbstractConnection) -> None:
        """Raise why it was lost."""
        honour_cancellation()  # declaring can swallow it
        ends = [self._end, connection.closing]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in done:
            end.result()
        raise Lost("it closed the connection")


def _with_heartbeat(url: str) -> str:
    if "heartbeat=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}heartbeat={_HEARTBEAT}"


class Keeping:
    """Keeps links up while it is entered; entering does not wait for RabbitMQ."""

    def __init__(self, *links: Link) -> None:
        self._links = links
        self._background = Background()

    async def __aenter__(self) -> Self:
        """Begin to connect."""
        await self._background.__aenter__()
        for link in self._links:
            self._background.start(link.keep(), f"rabbitmq: {link.purpose}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect."""
        for link in self._links:
            link.hurry()
        await self._background.__aexit__(kind, error, trace)
