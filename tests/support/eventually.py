"""Waiting for what nobody announces."""

import asyncio
from collections.abc import Callable


async def eventually(is_so: Callable[[], bool], seconds: float = 30) -> None:
    """Return once it is so; TimeoutError when that takes too long."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0.01)
