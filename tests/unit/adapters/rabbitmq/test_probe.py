import pytest
from aio_pika.abc import AbstractChannel

from notifier.adapters.rabbitmq import probe
from notifier.adapters.rabbitmq.connection import Connection, Reconnector
from notifier.adapters.rabbitmq.probe import Probe
from notifier.telemetry.metrics import Metrics
from tests.support.eventually import eventually
from tests.support.rabbit import connected


class Asking:
    """A right that counts how often it is asked for, and whether the connection is read."""

    def __init__(self) -> None:
        self.times = 0
        self.looks_while_paused = 0
        self.is_paused = True

    async def exercise(self, _: Connection, __: AbstractChannel) -> None:
        self.times += 1

    def look(self) -> bool:
        self.looks_while_paused += self.is_paused
        return self.is_paused


async def use(_: Connection) -> None:
    raise AssertionError


async def test_nothing_is_asked_while_the_connection_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "_EVERY", 0.001)
    asking = Asking()
    reconnector = Reconnector("amqp://127.0.0.1/", "test", Metrics(), use)

    async with (
        connected() as (_, connection),
        Probe(reconnector, asking.exercise, is_paused=asking.look).over(connection),
    ):
        await eventually(lambda: asking.looks_while_paused > 2)
        while_paused = asking.times
        asking.is_paused = False
        await eventually(lambda: asking.times > 2)

    assert while_paused == 0
