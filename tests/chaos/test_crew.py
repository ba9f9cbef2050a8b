import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any

from tests.chaos.crew import Crew


class Deaf(Crew):
    """Swallows the first cancellation, as a library may."""

    def work(self) -> Iterable[Coroutine[Any, Any, None]]:
        return [self._listen()]

    async def _listen(self) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()


async def test_a_crew_ends_though_a_cancellation_is_swallowed() -> None:
    async with asyncio.timeout(60), Deaf():
        await asyncio.sleep(0)
