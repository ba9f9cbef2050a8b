"""The outgoing side of every transport's connection, bounded in bytes and in time.

Back-pressure is the transport's own buffer. Nothing is queued a second time.
"""

import asyncio
import time
from typing import ClassVar

from notifier.core.errors import CloseCode
from notifier.core.ports import Listener
from notifier.core.publications import Publication
from notifier.http.port import Port

_CLOSE_TIMEOUT = 5.0
_LONGEST_PAUSE = 15.0


class Outgoing(asyncio.Protocol):
    """The outgoing side of a connection that has been handed over to its listener.

    Fulfils Debtor.
    """

    __slots__ = ("_gave_up", "_listener", "_paused_at", "_port", "_timer", "_transport")

    # Bytes that may wait for a client that does not read; past it the client is closed with 4002.
    send_buffer: ClassVar[int] = 1024 * 1024

    def __init__(self, port: Port) -> None:
        self._port = port
        self._transport: asyncio.Transport
        self._listener: Listener | None = None
        self._gave_up: CloseCode | None = None
        self._paused_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # Called by asyncio. All clients of a gateway may go in one moment: each one's end has its turn.

    def eof_received(self) -> bool:
        """See asyncio.Protocol. Without TLS the transport stays open until this client's turn."""
        self._port.turns.take(self._transport.close)
        return self._transport.get_extra_info("ssl_object") is None  # asyncio complains of True

    def connection_lost(self, _exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._port.turns.take(self._lost)

    def _lost(self) -> None:
        """Forget the client, which is gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._port.backlog.forget(self)
        if self._listener is not None:
            self._listener.closed(self._gave_up)
            self._listener = None

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused_at = time.monotonic()
        self._port.backlog.note(self)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused_at = 0.0
        self._port.backlog.forget(self)
        if self._listener is not None:
            self._listener.ready()

    # Called by the session.

    @property
    def listener(self) -> Listener | None:
        """See Connection."""
        return self._listener

    @property
    def has_room(self) -> bool:
        """See Connection."""
        return not self._paused_at

    def write(self, data: bytes, publication: Publication | None = None) -> None:  # noqa: ARG002 - for transports that carry cursors
        """See Connection."""
        transport = self._transport
        if self._timer is not None or transport.is_closing():
            return
        if not self._paused_at:
            transport.write(data)
        elif self.waiting > self.send_buffer:
            self._give_up()
        else:
            transport.write(data)
            self._port.backlog.note(self)

    def close(self, code: CloseCode) -> None:
        """See Connection."""
        raise NotImplementedError

    # Called by the backlog.

    @property
    def waiting(self) -> int:
        """See Debtor."""
        return self._transport.get_write_buffer_size()

    def cut_off(self) -> None:
        """See Debtor."""
        self._give_up()

    def drop(self) -> None:
        """See Debtor."""
        self._transport.abort()

    def _give_up(self) -> None:
        self._gave_up = CloseCode.SLOW_CONSUMER
        self.close(self._gave_up)

    def _is_stuck(self) -> bool:
        """Whether nothing has gone out for so long that the client is given up; see `ping`."""
        stuck = bool(self._paused_at) and time.monotonic() - self._paused_at > _LONGEST_PAUSE
        if stuck:
            self._give_up()
        return stuck

    def _abort_later(self) -> None:
        """Let the sent bytes go out for a while, and send no more."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_CLOSE_TIMEOUT, self._transport.abort)
