import asyncio

import pytest

from notifier.http import turns
from notifier.http.turns import Turns


async def test_work_is_done_at_once_while_there_is_time() -> None:
    done: list[int] = []

    assert Turns().take(lambda: done.append(1))
    assert done == [1]


async def test_the_rest_is_done_in_later_turns_in_its_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_TURN", 0.0)
    taking, done = Turns(), list[int]()
    for number in range(4):
        taking.take(lambda number=number: done.append(number))  # type: ignore[misc]
    at_first = list(done)
    for _ in range(8):
        await asyncio.sleep(0)

    assert (at_first, done) == ([0], [0, 1, 2, 3])
