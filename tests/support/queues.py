"""An event queue that remembers what was put, and does so only when it may."""

import asyncio
from collections.abc import Sequence

from notifier.core.entries import Entry
from notifier.core.errors import Unavailable


class RecordingQueue:
    """Fulfils EventQueue. Cleared, `open` keeps confirmations back; `away` refuses entries."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.entries: list[Entry] = []
        self.open = asyncio.Event()
        self.open.set()
        self.away: set[int] | bool = False
        self._asked = 0
        self._put = asyncio.Event()

    async def put(self, entry: Entry) -> None:
        """See EventQueue."""
        self._asked += 1
        if self.away is True or (self.away and self._asked in self.away):
            raise Unavailable("rabbitmq", "not confirmed within 10 s")
        self.entries.append(entry)
        self._put.set()
        await self.open.wait()

    async def put_each(self, entries: Sequence[Entry]) -> list[Unavailable | None]:
        """See EventQueue."""
        outcomes = await asyncio.gather(*map(self.put, entries), return_exceptions=True)
        return [each if isinstance(each, Unavailable) else None for each in outcomes]

    async def taken(self) -> Entry:
        """Wait until something was put, confirmed or not."""
        await self._put.wait()
        return self.entries[-1]
