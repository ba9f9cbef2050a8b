"""Listening to a broker in tests."""

import asyncio
from collections.abc import Iterable

from notifier.core.publications import Publication
from notifier.core.signals import Signal

_PATIENCE = 10.0


class Listening:
    """A BrokerListener that keeps what it hears until it is asked for."""

    def __init__(self) -> None:
        self._publications: asyncio.Queue[Publication] = asyncio.Queue()
        self._signals: asyncio.Queue[Signal] = asyncio.Queue()
        self._interrupted: set[str] = set()
        self._interruption = asyncio.Event()

    def on_publication(self, publication: Publication) -> None:
        """See BrokerListener."""
        self._publications.put_nowait(publication)

    def on_signal(self, signal: Signal) -> None:
        """See BrokerListener."""
        self._signals.put_nowait(signal)

    def on_interruption(self, topics: Iterable[str]) -> None:
        """See BrokerListener."""
        self._interrupted.update(topics)
        self._interruption.set()

    async def next(self) -> Publication:
        """Return the next publication heard."""
        async with asyncio.timeout(_PATIENCE):
            return await self._publications.get()

    async def next_signal(self) -> Signal:
        """Return the next signal heard."""
        async with asyncio.timeout(_PATIENCE):
            return await self._signals.get()

    async def next_events(self, number: int) -> list[bytes]:
        """Return the events of the next publications heard."""
        return [(await self.next()).event for _ in range(number)]

    async def interrupted(self, *topics: str) -> None:
        """Return when all of these topics have been interrupted; they may then be so again."""
        async with asyncio.timeout(_PATIENCE):
            while not self._interrupted.issuperset(topics):
                self._interruption.clear()
                await self._interruption.wait()
        self._interrupted.difference_update(topics)
