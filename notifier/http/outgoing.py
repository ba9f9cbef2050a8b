"""The outgoing side of a client's connection: bounds of its time and of its memory."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable

from notifier.http.backlog import UNCOUNTED
from notifier.http.port import Port, address_of

_LONGEST_ANSWER = 30.0  # seconds for a client to read it


class Outgoing(asyncio.Protocol):
    """Writes to a client, and ends a connection whose client takes too long. Fulfils Debtor."""

    __slots__ = ("_deadline", "_is_paused", "_port", "_room", "_transport")

    def __init__(self, port: Port) -> None:
        self._port = port
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None
        self._is_paused = False

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment] # a stream's
        self._transport.set_write_buffer_limits(UNCOUNTED, UNCOUNTED)
        self._port.state.connections.add(self)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_paused = True
        self._limit()
        self._port.backlog.note(self)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_paused = False
        self._port.backlog.forget(self)
        self._limit()
        self._wake()

    def connection_lost(self, _exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._port.state.connections.discard(self)
        self._port.backlog.forget(self)
        self._wake()

    # The time that a client has.

    @abstractmethod
    def _limit(self) -> None:
        """Give the client its time for the next step."""

    def _limit_answer(self) -> None:
        self._start_clock(_LONGEST_ANSWER, self.cut_off)

    def _start_clock(self, seconds: float, end: Callable[[], None]) -> None:
        self._stop_clock()
        self._deadline = asyncio.get_running_loop().call_later(seconds, end)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @property
    def waiting(self) -> int:
        """See Debtor."""
        return self._transport.get_write_buffer_size()

    def cut_off(self) -> None:
        """See Debtor. At once: no close code could tell the client why."""
        if self.waiting:
            self._port.backlog.on_cut()
        self.drop()

    def drop(self) -> None:
        """See Debtor."""
        self._transport.abort()

    # Called by its exchange.

    @property
    def is_closing(self) -> bool:
        """See Carrier."""
        return self._transport.is_closing()

    @property
    def client(self) -> str:
        """See Carrier."""
        return address_of(self._transport)

    def write(self, data: bytes) -> None:
        """See Carrier."""
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._is_paused:
            self._port.backlog.note(self)

    def close(self) -> None:
        """See Carrier. Sent bytes have a while to go out."""
        self._port.idle.pop(self, None)
        self._transport.close()
        self._limit_answer()

    async def drained(self) -> None:
        """See Carrier."""
        while self._is_paused and not self.is_closing:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None
