"""The bytes of a connection to RabbitMQ: the hot path past aiormq, all else through it.

aiormq takes 70 µs to hand over a delivery, and 150 to publish under confirm. It keeps the
steps that happen once a connection: setting up, declaring, channels, heartbeats, the end. Contents
and confirms of a claimed channel go to the object that claimed it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from aiormq import AMQPConnectionError, TransportFactory
from yarl import URL

from notifier.adapters.rabbitmq import frames

_BEAT = 1  # second
_HOT = frozenset({frames.RETURN, frames.DELIVER, frames.ACK, frames.NACK})


class FrameHandler(Protocol):
    """Handles the contents and confirms of a channel. Its methods return at once."""

    def on_method(self, method: int, payload: bytes) -> None:
        """Hear of a delivery or return, whose content follows, or of a confirm."""

    def on_header(self, payload: bytes) -> None:
        """Hear of a content's size and properties."""

    def on_body(self, payload: bytes) -> None:
        """Hear of a part of a content's body."""


class Wire(asyncio.StreamReaderProtocol):
    """One connection's bytes."""

    def __init__(self) -> None:
        self._loop_now = asyncio.get_running_loop().time
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader)
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._to_drop = 0  # bytes of a frame that was too large
        self._claimed: dict[int, FrameHandler] = {}
        self._told = 0.0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._beating: asyncio.TimerHandle | None = None  # while reading is paused
        self.is_blocked = False
        self.frame_max = frames.LARGEST
        self.on_trouble: Callable[[str], None] = lambda _: None
        """Called when RabbitMQ blocks the connection, or it is lost; with the reason."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        self._has_room.set()
        self._end_beating()
        self.on_trouble("the connection was lost")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's is one by its methods only
        super().connection_made(transport)

    # Reading.

    def data_received(self, data: bytes) -> None:
        """Hand each whole frame to its channel's owner, or to aiormq."""
        if self._to_drop:
            data = self._dropped(data)
        if self._rest:
            data = self._rest + data
        if data.startswith(b"AMQP"):  # it speaks another version, and says so without a frame
            super().data_received(data)
            return
        at, end, cold = 0, len(data), []
        while end - at >= frames.AROUND:
            kind, channel, size = frames.HEAD.unpack_from(data, at)
            stop = at + frames.AROUND + size
            if stop > end:
                if size > frames.LARGEST:
                    at = self._cut(kind, channel, size, data, at)
                break
            payload = data[at + frames.HEAD.size : stop - 1]
            if not channel:
                cold.append(self._looked_at(kind, payload, data[at:stop]))
            elif not self._is_hot(kind, channel, payload):
                cold.append(data[at:stop])
            at = stop
        self._rest = data[at:]
        self._feed(b"".join(cold), is_hot=at > 0)

    def _cut(self, kind: int, channel: int, size: int, data: bytes, at: int) -> int:
        """Keep the beginning of a frame over the bound; return where the rest of `data` begins.

        RabbitMQ splits bodies, but not properties: those of a producer with larger frames than
        ours come as one. Nothing else may be as large.
        """
        start = at + frames.HEAD.size
        if kind != frames.HEADER or channel not in self._claimed:
            self.on_trouble(f"it sent a frame of {size} bytes; {frames.LARGEST} were agreed to")
            self.abort()
            return len(data)
        if len(data) < start + frames.LARGEST:
            return at  # until there is enough of it
        self._claimed[channel].on_header(data[start : start + frames.LARGEST])
        self._to_drop = start + size + 1 - len(data)
        return len(data)

    def _dropped(self, data: bytes) -> bytes:
        dropped = min(self._to_drop, len(data))
        self._to_drop -= dropped
        return data[dropped:]

    def _is_hot(self, kind: int, channel: int, payload: bytes) -> bool:
        """Hand a frame over if its channel is claimed and it is of the hot path."""
        claimed = self._claimed.get(channel)
        if claimed is None:
            return False
        if kind == frames.BODY:
            claimed.on_body(payload)
        elif kind == frames.HEADER:
            claimed.on_header(payload)
        else:
            of, method = frames.METHOD_OF.unpack_from(payload)
            if of != frames.BASIC or method not in _HOT:
                return False
            claimed.on_method(method, payload)
        return True

    def _looked_at(self, kind: int, payload: bytes, frame: bytes) -> bytes:
        """Note the state of the connection in a frame; return the frame for aiormq."""
        if kind != frames.METHOD:
            return frame
        method = frames.METHOD_OF.unpack_from(payload)
        if method == (frames.CONNECTION, frames.BLOCKED):
            self.is_blocked = True
            self.on_trouble("it is blocked: its memory or its disk runs low")
        elif method == (frames.CONNECTION, frames.UNBLOCKED):
            self.is_blocked = False
        elif method == (frames.CONNECTION, frames.TUNE):
            frame, self.frame_max = frames.tuned(frame)  # aiormq agrees to any proposal
        return frame

    def _feed(self, cold: bytes, *, is_hot: bool) -> None:
        now = self._loop_now()
        # RabbitMQ sends no heartbeat while it has other things to send: aiormq would miss them.
        if is_hot and not cold and now > self._told + 1:
            cold = frames.HEARTBEAT
        if cold:
            self._told = now
            super().data_received(cold)

    def pause_reading(self) -> None:
        """Read no further. RabbitMQ keeps its data, and heartbeats are not missed."""
        if self._transport is not None and self.is_open and not self._beating:
            self._transport.pause_reading()
            self._beat()

    def _beat(self) -> None:
        # RabbitMQ's heartbeats stand behind unread bytes: aiormq would miss them. A RabbitMQ
        # that is gone is noticed once reading goes on, or when the kernel gives up a write.
        self._beating = asyncio.get_running_loop().call_later(_BEAT, self._beat)
        super().data_received(frames.HEARTBEAT)

    def resume_reading(self) -> None:
        """Go on reading."""
        if self._transport is not None and self._beating and self.is_open:
            self._transport.resume_reading()
        self._end_beating()

    def _end_beating(self) -> None:
        if self._beating:
            self._beating.cancel()
            self._beating = None

    # Writing.

    def claim(self, channel: int, hot: FrameHandler) -> None:
        """Hand contents and confirms of a channel over to `hot`, until another claims it."""
        self._claimed[channel] = hot

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._has_room.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._has_room.set()

    async def has_room(self) -> None:
        """Return when the other side has read most of the written bytes, or is gone."""
        await self._has_room.wait()

    def write(self, data: bytes) -> None:
        """Send whole frames; nothing happens when the connection is lost."""
        if self._transport is not None:
            self._transport.write(data)

    @property
    def is_open(self) -> bool:
        """Whether it makes sense to write."""
        return self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        """End the connection at once, without waiting for the other side."""
        if self._transport is not None:
            self._transport.abort()


class Transport(TransportFactory):
    """Makes one connection as aiormq does, over a wire."""

    def __init__(self) -> None:
        self.wire: Wire | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def create(
        self,
        url: URL,
        **kwargs: Any,  # noqa: ANN401  # as in the class that this is one of
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; raises aiormq.AMQPConnectionError."""
        provider = kwargs.pop("ssl_context_provider")
        tls = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        try:
            transport, self.wire = await loop.create_connection(
                Wire, url.host or "", url.port or 0, ssl=tls, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.writer = asyncio.StreamWriter(transport, self.wire, self.wire.reader, loop)
        return self.wire.reader, self.writer
