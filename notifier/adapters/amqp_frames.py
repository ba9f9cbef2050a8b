"""Frames from RabbitMQ that aiormq cannot read, replaced by what it can.

A producer may set a timestamp in nanoseconds, or an id in Latin-1. RabbitMQ passes that on, and
aiormq would close the connection over it, on each redelivery, for ever.
"""

import asyncio
import struct
from typing import Any, cast

import pamqp.frame
from aiormq import TransportFactory, spec
from aiormq.connection import TCPTransportFactory, TLSTransportFactory
from pamqp.constants import FRAME_HEADER, FRAME_METHOD
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader
from yarl import URL

UNREADABLE = "notifier-unreadable"  # a header in place of properties, with what is wrong with them

_HEAD = struct.Struct(">BHI")  # frame type, channel, size
_BODY_SIZE = struct.Struct(">4xQ")  # in the payload of a content header
_DELIVER = struct.pack(">HH", *divmod(spec.Basic.Deliver.index, 1 << 16))
_UNDECODABLE = (
    *(PAMQPException, ValueError, TypeError, LookupError, ArithmeticError, RecursionError),
)


class Transport(TransportFactory):
    """Makes one connection as aiormq does, and makes unreadable deliveries readable."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    @property
    def writer(self) -> asyncio.StreamWriter | None:
        """The open connection, None before."""
        return self._writer

    def abort(self) -> None:
        """End the connection at once, whoever waits for the other side."""
        if self._writer:
            self._writer.transport.abort()

    async def create(
        self,
        url: URL,
        **kwargs: Any,  # noqa: ANN401  # as in the class that this is one of
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; raises aiormq.AMQPConnectionError."""
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await factory.create(url, **kwargs)
        return cast("asyncio.StreamReader", _Reader(reader)), self._writer


class _Reader:
    """What aiormq uses of a StreamReader, reading whole frames beneath."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._frame = b""

    def at_eof(self) -> bool:
        return not self._frame and self._stream.at_eof()

    async def readexactly(self, size: int) -> bytes:
        if not self._frame:
            self._frame = await self._next_frame()
        taken, self._frame = self._frame[:size], self._frame[size:]
        return taken

    async def _next_frame(self) -> bytes:
        head = await self._stream.readexactly(_HEAD.size)
        if head.startswith(b"AMQP"):  # it speaks another version, and says so without a frame
            return head
        kind, channel, size = _HEAD.unpack(head)
        frame = head + await self._stream.readexactly(size + 1)
        return readable(frame, kind, channel)


def readable(frame: bytes, kind: int, channel: int) -> bytes:
    """Return the frame, or what stands in for it: without properties, or with `?` in its key."""
    payload = frame[_HEAD.size : -1]
    if kind == FRAME_HEADER and (problem := _problem_of(frame)):
        (body_size,) = _BODY_SIZE.unpack_from(payload)
        properties = spec.Basic.Properties(headers={UNREADABLE: problem})
        return pamqp.frame.marshal(ContentHeader(0, body_size, properties), channel)
    if kind == FRAME_METHOD and payload.startswith(_DELIVER):
        # Of its strings only the last one, the routing key, is the producer's own.
        key = payload[len(payload) - _key_length(payload) :]
        return frame[: -1 - len(key)] + _utf8(key) + frame[-1:]
    return frame


def _problem_of(frame: bytes) -> str | None:
    try:
        pamqp.frame.unmarshal(frame)
    except _UNDECODABLE as error:
        return str(error)
    return None


def _key_length(payload: bytes) -> int:
    tag = len(_DELIVER)
    exchange = tag + 1 + payload[tag] + 9  # a delivery's number and a flag stand in between
    return payload[exchange + 1 + payload[exchange]]


def _utf8(key: bytes) -> bytes:
    try:
        key.decode()
    except UnicodeDecodeError:
        return key.decode("ascii", "replace").replace("\ufffd", "?").encode()
    return key
