"""Workers: the hub and those beside it. Each works for all sessions, in rounds."""

import asyncio
from abc import abstractmethod
from typing import Protocol

from notifier.core.access import Identity
from notifier.core.backoff import Backoff
from notifier.core.errors import Unavailable
from notifier.core.ports import Connection

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds


class Worker:
    """The base of a worker; `run` must be running. Setting `_work` asks for a round."""

    def __init__(self) -> None:
        self._work = asyncio.Event()

    async def run(self) -> None:
        """Run rounds for ever. Without the backend, retry with a back-off."""
        backoff = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE)
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._run_round()
                backoff.reset()
                await self._rest()
            except Unavailable:
                self._on_unavailable()
                await asyncio.sleep(backoff.next())
                self._work.set()

    @abstractmethod
    async def _run_round(self) -> None:
        """Do some of the work, and set `_work` if some is left; may raise Unavailable."""

    async def _rest(self) -> None:
        """Let more work gather before the next round."""

    def _on_unavailable(self) -> None:
        """Hear that a round failed."""


class Subscriber(Protocol):
    """A session, as a worker tells it something about the topics that it follows."""

    @property
    def connection(self) -> Connection:
        """The connection that frames reach its client by."""

    @property
    def identity(self) -> Identity:
        """The user, and the rights of its token."""

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it follows."""
