"""Connections to RabbitMQ: aio-pika's, over a wire, reconnected whenever they are lost.

Not aio-pika's own RobustConnection: it knows one host, and all its clients reconnect in the same
moment.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ConnectionClosed
from yarl import URL

from notifier.adapters.rabbitmq.errors import Lost, Vanished, honour_cancellation, losses
from notifier.adapters.rabbitmq.wire import Transport, Wire
from notifier.core.addresses import Address, Url
from notifier.core.background import LongLived
from notifier.core.backoff import Backoff
from notifier.telemetry.metrics import Metrics

# In seconds.
_HEARTBEAT = 10
_CONNECTING = 10
_SETTING_UP = 10
_CLOSING = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0

_log = structlog.stdlib.get_logger(__name__)


class Connection(aio_pika.Connection):
    """aio-pika's connection, with a wire between it and the socket."""

    def __init__(self, url: str, purpose: str) -> None:
        name = f"notifier: {purpose}"
        super().__init__(URL(_with_heartbeat(url)), client_properties={"connection_name": name})
        self._factory = Transport()
        # aio-pika hands these on to `aiormq.connect`, of which this is a public parameter.
        self.kwargs["transport_factory"] = self._factory

    @property
    def wire(self) -> Wire:
        """The bytes of this connection, once it is made."""
        assert self._factory.wire  # noqa: S101  # asked for by users of the connection
        return self._factory.wire

    @property
    def writer(self) -> asyncio.StreamWriter | None:
        """The stream to RabbitMQ, once it is made."""
        return self._factory.writer

    @property
    def version(self) -> str:
        """RabbitMQ's version."""
        assert self.transport  # noqa: S101  # as above
        return str(self.transport.connection.server_properties.get("version"))

    @asynccontextmanager
    async def closed_within(self, seconds: float) -> AsyncIterator[None]:
        """Close it at the end, with its channels; without RabbitMQ's answer after so long."""
        try:
            yield
        finally:
            deadline = asyncio.get_running_loop().call_later(seconds, self.abort)
            with suppress(Lost), losses():
                await self.close(ConnectionClosed(200, "closed"))
            deadline.cancel()

    def abort(self) -> None:
        """End the connection at once, without waiting for RabbitMQ."""
        if self._factory.wire:
            self._factory.wire.abort()


async def connected(url: str, purpose: str, seconds: float) -> Connection:
    """Connect to the first node of `url` that answers in so many seconds; raises Lost."""
    failure = Lost("no address is given")
    for node in url.split(","):
        connection = Connection(node.strip(), purpose)
        try:
            with losses():
                await connection.connect(seconds)
                return connection
        except Lost as lost:
            failure = lost
    raise failure


def number_of(channel: AbstractChannel) -> int:
    """Return the number that an open channel has in frames."""
    assert channel.number  # noqa: S101  # aio-pika's channels have none before they are opened
    return channel.number


class Reconnector:
    """Keeps a connection up: reconnects whenever it is lost, to one host after another.

    `url` may be several, separated by commas. `use` is called with each new connection: it calls
    `mark_ready` once the connection is ready for its purpose, and then awaits `until_lost`.
    """

    def __init__(
        self,
        url: Url,
        purpose: str,
        metrics: Metrics,
        use: Callable[[Connection], Awaitable[None]],
    ) -> None:
        self._address = Address.of(url)
        self.purpose = purpose
        self._metrics = metrics
        self._use = use
        self._reason: str | None = "it has not answered yet"
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._has_been_up = False
        self.lost_queue = ""  # with the connection before this one
        self._connection: Connection | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_overdue = False

    @property
    def trouble(self) -> str | None:
        """See Dependency."""
        return self._reason and f"not connected to RabbitMQ: {self._reason}"

    @property
    def is_blocked(self) -> bool:
        """Whether RabbitMQ has stopped to read from the present connection."""
        return self._connection is not None and self._connection.wire.is_blocked

    async def run(self) -> None:
        """Connect, again and again, until it is cancelled."""
        for turn in count():
            honour_cancellation()  # closing can swallow it
            urls = self._address.url.split(",")
            try:
                with losses():
                    await self._use_until_lost(
                        Connection(urls[turn % len(urls)].strip(), self.purpose)
                    )
            except Lost as lost:
                self._note_loss(Lost("it does not answer in time") if self._is_overdue else lost)
            await asyncio.sleep(self._backoff.next())

    async def _use_until_lost(self, connection: Connection) -> None:
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watched: set[AbstractChannel] = set()
        self._connection, self._is_overdue = connection, False
        connection.close_callbacks.add(self._on_end)
        async with connection.closed_within(_CLOSING):
            try:
                await connection.connect(_CONNECTING)
                self._metrics.connected("rabbitmq", connection.writer)
                self._set_deadline(_SETTING_UP)
                await self._use(connection)
            finally:
                # Closing takes a while.
                self._reason = self._reason or "the connection was just lost"
                self._set_deadline(None)

    def _set_deadline(self, seconds: float | None) -> None:
        # A task that aiormq is asked to cancel may go on to wait for a RabbitMQ that hangs.
        if self._deadline:
            self._deadline.cancel()
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._abort)

    def _abort(self) -> None:
        self._is_overdue = True
        if self._connection:
            self._connection.abort()

    def bound_closing(self) -> None:
        """Bound the time that `run` takes to close the connection, once it is cancelled."""
        self._set_deadline(_CLOSING)

    def _note_loss(self, lost: Lost) -> None:
        self.lost_queue = lost.queue if isinstance(lost, Vanished) else ""
        if isinstance(lost, Vanished):
            self._metrics.topology_repairs.inc()
            _log.warning("rabbitmq_queue_vanished", purpose=self.purpose, reason=str(lost))
        elif self._reason != str(lost):  # one line for a long absence
            _log.warning("rabbitmq_lost", purpose=self.purpose, reason=str(lost))
        self._reason = str(lost)

    def allow_long_setup(self) -> None:
        """Let setting up take any time from now on; heartbeats still end it when RabbitMQ hangs."""
        self._set_deadline(None)

    def mark_ready(self) -> None:
        """Note that the connection is ready for its purpose."""
        self._set_deadline(None)
        if self._has_been_up:
            self._metrics.reconnects.labels("rabbitmq").inc()
        self._reason, self._has_been_up = None, True
        self._backoff.reset()
        _log.info("rabbitmq_connected", purpose=self.purpose)

    def reconnect(self, why: BaseException) -> None:
        """End this connection; the next one declares the topology again."""
        if not self._end.done():
            self._end.set_exception(why)
            self._end.exception()  # else asyncio complains when nobody waits for it any more

    def _on_end(self, connection: object, why: BaseException | None) -> None:
        if connection is not self._connection:
            return
        if isinstance(why, asyncio.CancelledError):  # of aiormq, after missed heartbeats
            why = Lost("it fell silent")
        self.reconnect(why or Lost("it closed the connection"))

    def watch(self, channel: AbstractChannel) -> None:
        """Reconnect when RabbitMQ closes this channel."""

        def on_end(_: object, why: BaseException | None) -> None:
            if isinstance(why, Exception) and channel in self._watched:
                self.reconnect(why)

        self._watched.add(channel)
        channel.close_callbacks.add(on_end)

    async def close(self, channel: AbstractChannel) -> None:
        """Close a channel that is watched."""
        self._watched.discard(channel)
        await channel.close()

    async def until_lost(self) -> None:
        """Raise the reason once the connection is lost."""
        honour_cancellation()  # declaring can swallow it
        await self._end


def _with_heartbeat(url: str) -> str:
    if "heartbeat=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}heartbeat={_HEARTBEAT}"


class ConnectedAdapter(LongLived):
    """Keeps an adapter's connections up while it is entered; entering does not wait for them."""

    def __init__(self, *reconnectors: Reconnector) -> None:
        super().__init__()
        self._reconnectors = reconnectors

    def _start(self) -> None:
        for reconnector in self._reconnectors:
            self._background.start(reconnector.run(), f"rabbitmq: {reconnector.purpose}")

    async def _finish(self, _: BaseException | None) -> None:
        for reconnector in self._reconnectors:
            reconnector.bound_closing()
