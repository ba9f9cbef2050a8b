import aio_pika
import pytest

from notifier.client.amqp_way import AmqpWay
from notifier.client.ways import Again


class Broken:
    """A connection of aio-pika's that neither opens a channel nor closes."""

    async def channel(self, *, publisher_confirms: bool) -> None:
        raise ConnectionError(f"no channel, with confirms or without ({publisher_confirms})")

    async def close(self) -> None:
        raise RuntimeError("closed already")


async def test_a_connection_that_fails_to_close_hides_no_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connect(url: str, timeout: float) -> Broken:  # noqa: ASYNC109 - aio-pika's
        del url, timeout
        return Broken()

    monkeypatch.setattr(aio_pika, "connect", connect)
    async with AmqpWay("amqp://127.0.0.1/") as way:
        [outcome] = await way.send([b"{}"])

    assert isinstance(outcome, Again)
    assert "no channel" in outcome.reason
