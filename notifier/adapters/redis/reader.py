"""Reads the messages of a subscribing connection, without a task or a future for each message.

redis-py connects, secures and authenticates. Its own reading costs several times as much as the
rest of a delivery, and mistakes a TimeoutError of TCP's keepalive for one of its caller's.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from notifier.adapters.redis.connection import transport_of

# For every kilobyte that it has read, hiredis moves all its unread bytes.
_SLICE = 8 * 1024


class RedisReader(asyncio.Protocol):
    """Takes a subscribing connection over from redis-py, once that has connected it.

    `on_message` is called with channel and payload, `on_confirmation` for each channel that was
    subscribed or unsubscribed; both return at once. The connection closes itself, as before.
    Raises redis-py's ConnectionError if that connection is closed already.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        on_message: Callable[[bytes, bytes], None],
        on_confirmation: Callable[[], None],
    ) -> None:
        self._transport = transport_of(connection)
        self._on_message = on_message
        self._on_confirmation = on_confirmation
        self._loop = asyncio.get_running_loop()
        self._replies = hiredis.Reader(
            protocolError=InvalidResponse, replyError=ResponseError, notEnoughData=None
        )
        self._received_at = self._loop.time()
        self._end: asyncio.Future[Exception] = self._loop.create_future()
        self._transport.set_protocol(self)

    def send(self, command: bytes) -> None:
        """Send a packed command; the callbacks get its answer."""
        if not self._transport.is_closing():  # where uvloop raises; `end` tells of it
            self._transport.write(command)

    async def end(self, silence: float) -> None:
        """Wait for the end, and raise its cause.

        A lost connection, a refusal, `silence` seconds without a byte, or a callback's error.
        """
        while not self._end.done():
            left = self._received_at + silence - self._loop.time()
            if left <= 0:
                raise LostConnectionError(f"nothing heard for {silence} s")
            await asyncio.wait([self._end], timeout=left)
        raise self._end.result()

    # asyncio calls these.

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._received_at = self._loop.time()
        try:
            for start in range(0, len(data), _SLICE):
                self._replies.feed(data, start, min(_SLICE, len(data) - start))
                self._dispatch_all()
        except Exception as error:  # noqa: BLE001 - `end` raises it
            self._stop(error)

    def _dispatch_all(self) -> None:
        replies, on_message = self._replies, self._on_message
        while (reply := replies.gets(False)) is not None:  # noqa: FBT003 - positional there
            if type(reply) is list and reply[0] == b"message":
                on_message(reply[1], reply[2])
            else:
                self._dispatch(reply)

    def _dispatch(self, reply: Any) -> None:  # noqa: ANN401 - any reply
        if isinstance(reply, Exception):
            raise reply
        if reply[0] in (b"subscribe", b"unsubscribe"):  # else it is the answer to PING
            self._on_confirmation()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop(LostConnectionError(str(exc) if exc else "Redis closed the connection"))

    def _stop(self, error: Exception) -> None:
        if not self._end.done():
            self._end.set_result(error)
        self._transport.abort()
