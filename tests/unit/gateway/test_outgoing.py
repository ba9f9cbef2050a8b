import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from notifier.adapters.memory.seats import MemorySeats
from notifier.core.errors import CloseCode
from notifier.gateway.outgoing import Outgoing
from notifier.http.port import Port
from notifier.http.turns import Turns
from tests.support.clock import VirtualTimeLoop, quiet, take_time
from tests.support.conversations import State
from tests.support.gateways import served

TURN = 0.001  # seconds, as in http/turns.py
WORK = 0.0003  # that the end of one session takes


class Transport:
    """Tells of its end in the next turn of the loop, once, as uvloop does."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._is_closing = False

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._client.connection_lost, None)


class Client(Outgoing):
    """A connection whose listener takes its time when it hears of the end."""

    def __init__(self, number: int, port: Port, heard: list[int]) -> None:
        super().__init__(port)
        self.number = number
        self._heard = heard
        self._listener = self
        self._transport = cast("asyncio.Transport", Transport(self))

    def received(self, text: bytes) -> None: ...

    def heard(self) -> None: ...

    def ready(self) -> None: ...

    def flooded(self, what: str, most: float) -> None: ...

    def closed(self, code: CloseCode | None = None) -> None:
        assert code is None
        take_time(WORK)
        self._heard.append(self.number)


async def nobody(_: Scope, __: Receive, ___: Send) -> None:
    """The application of a port that no request comes to."""


async def longest_turn_of(breaking: list[bool]) -> tuple[float, list[int]]:
    """Break all in one turn, by a reset where True, and return the longest turn until all ended."""
    loop, heard = asyncio.get_running_loop(), list[int]()
    port = Port(nobody, State())
    for number, is_reset in enumerate(breaking):
        client = Client(number, port, heard)
        if is_reset:
            loop.call_soon(client.connection_lost, ConnectionResetError())
        else:
            loop.call_soon(client.eof_received)
    longest = 0.0
    while len(heard) < len(breaking):
        began = loop.time()
        await asyncio.sleep(0)  # a turn
        longest = max(longest, loop.time() - began)
    await quiet()
    return longest, heard


@given(st.lists(st.booleans(), max_size=40))
def test_however_many_break_at_once_each_end_is_told_once_and_no_turn_is_long(
    breaking: list[bool],
) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        longest, heard = runner.run(longest_turn_of(breaking))

    assert sorted(heard) == list(range(len(breaking)))
    assert longest <= TURN + WORK + 1e-9


async def test_a_server_that_stops_waits_for_the_ends_that_have_not_had_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(_: Turns, work: Callable[[], None]) -> bool:
        asyncio.get_running_loop().call_later(0.5, work)
        return False

    seats = MemorySeats(2)

    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(served(seats=seats))
        clients = [await stack.enter_async_context(it.welcomed()) for _ in range(2)]
        monkeypatch.setattr(Turns, "take", late)
        for client in clients:
            client.socket.transport.abort()

    assert it.count("notifier_connections", transport="websocket") == 0
    assert it.count("notifier_connections_closed_total", reason="client") == 2
    assert [await seats.claim("42") for _ in range(2)] == [True] * 2
