"""A server of a few lines that answers as RabbitMQ does, for tests of the client's own parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pamqp.frame
from aiormq import spec

from notifier.adapters.rabbitmq import frames
from notifier.adapters.rabbitmq.connection import Connection

ANSWERS: dict[str, object] = {
    "Connection.StartOk": spec.Connection.Tune(10, 131_072, 60),
    "Connection.Open": spec.Connection.OpenOk(),
    "Connection.Close": spec.Connection.CloseOk(),
    "Channel.Open": spec.Channel.OpenOk(),
    "Channel.Close": spec.Channel.CloseOk(),
    "Basic.Qos": spec.Basic.QosOk(),
    "Basic.Consume": spec.Basic.ConsumeOk("c"),
}


class RabbitDouble:
    """Answers as RabbitMQ does to each method in ANSWERS, on the channel that asked."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await reader.readexactly(len(b"AMQP\x00\x00\x09\x01"))
        self.send(
            spec.Connection.Start(server_properties={"version": "3.10.8", "capabilities": {}}), 0
        )
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self._answer(reader)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readexactly(frames.HEAD.size)
        _, channel, size = frames.HEAD.unpack(head)
        rest = await reader.readexactly(size + 1)
        _, _, method = pamqp.frame.unmarshal(head + rest)
        name = getattr(method, "name", "")
        if name in ANSWERS:
            self.send(ANSWERS[name], channel)

    def send(self, method: object, channel: int) -> None:
        self.writers[-1].write(pamqp.frame.marshal(method, channel))  # type: ignore[arg-type]


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[RabbitDouble, Connection]]:
    server = RabbitDouble()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        connection = Connection(f"amqp://guest:guest@127.0.0.1:{port}/", "test")
        async with connection.closed_within(3):
            await connection.connect(3)
            yield server, connection
