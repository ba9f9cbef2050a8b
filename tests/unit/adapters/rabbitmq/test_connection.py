"""The places of aio-pika and aiormq that the adapter leans on: these tests fail when they move."""

import asyncio
import inspect

import aio_pika
import aiormq
import pamqp.frame
import pytest
from aiormq import spec
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from notifier.adapters.rabbitmq.connection import Connection, number_of
from notifier.adapters.rabbitmq.deliveries import Deliveries, Message
from notifier.adapters.rabbitmq.wire import Wire
from tests.support.eventually import eventually
from tests.support.rabbit import ANSWERS, RabbitDouble, connected


def test_the_transport_factory_is_a_public_parameter_of_aiormq() -> None:
    parameters = inspect.signature(aiormq.Connection).parameters

    assert "transport_factory" in parameters


async def test_aio_pika_hands_the_wire_on_and_connects_over_it() -> None:
    async with connected() as (_, connection):
        assert isinstance(connection.wire, Wire)
        assert isinstance(connection, aio_pika.Connection)
        assert connection.version == "3.10.8"


async def test_deliveries_of_a_channel_of_aio_pika_go_past_it_to_their_claimant() -> None:
    taken: list[Message] = []
    async with connected() as (server, connection):
        channel = await connection.channel(publisher_confirms=False)
        number = number_of(channel)
        Deliveries(connection.wire, number, taken.append)
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue("q", ensure=False)
        await queue.consume(never)

        server.send(spec.Basic.Deliver("c", 1, False, "", "key"), number)  # noqa: FBT003
        server.send(ContentHeader(0, 0, spec.Basic.Properties()), number)
        await eventually(lambda: [message.routing_key for message in taken] == [b"key"])


async def test_a_consumer_that_rabbitmq_cancels_is_told() -> None:
    cancelled = asyncio.Event()
    async with connected() as (server, connection):
        channel = await connection.channel(publisher_confirms=False)
        beneath = await channel.get_underlay_channel()
        beneath.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())

        server.send(spec.Basic.Cancel("c"), number_of(channel))

        await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_channel_that_rabbitmq_closes_is_told_with_the_reason() -> None:
    reasons: list[BaseException | None] = []
    async with connected() as (server, connection):
        channel = await connection.channel(publisher_confirms=False)
        channel.close_callbacks.add(lambda _, why: reasons.append(why))

        server.send(spec.Channel.Close(404, "no queue", 0, 0), number_of(channel))

        await eventually(lambda: len(reasons) == 1)
    assert "no queue" in str(reasons[0])


async def test_a_connection_that_rabbitmq_closes_is_told_with_the_reason() -> None:
    reasons: list[BaseException | None] = []
    async with connected() as (server, connection):
        connection.close_callbacks.add(lambda _, why: reasons.append(why))

        server.send(spec.Connection.Close(320, "shut down", 0, 0), 0)

        await eventually(lambda: len(reasons) == 1)
    assert "shut down" in str(reasons[0])


async def test_closing_takes_no_longer_than_allowed_when_rabbitmq_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(ANSWERS, "Connection.Close")
    monkeypatch.setattr(aiormq.Connection, "READER_CLOSE_TIMEOUT", 60)
    server = RabbitDouble()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        connection = Connection(f"amqp://guest:guest@127.0.0.1:{port}/", "test")

        async def come_and_go() -> None:
            async with connection.closed_within(0.1):
                await connection.connect(3)

        await asyncio.wait_for(come_and_go(), 10)

    assert connection.is_closed


async def never(_: object) -> None:
    raise AssertionError


def test_heartbeats_are_frames_that_aiormq_reads() -> None:
    assert pamqp.frame.marshal(Heartbeat(), 0) == b"\x08\0\0\0\0\0\0\xce"
