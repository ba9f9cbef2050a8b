"""Workers: the hub and those beside it. Each works for all sessions, in rounds."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeVar

from notifier.core.access import Identity
from notifier.core.backoff import Backoff
from notifier.core.errors import NotifierError, Unavailable
from notifier.core.ports import Connection

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds

T = TypeVar("T")


class Worker:
    """The base of a worker; `run` must be running. Setting `_work` asks for a round."""

    def __init__(self) -> None:
        self._work = asyncio.Event()

    async def run(self) -> None:
        """Run rounds for ever. Without the backend, retry with a back-off."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
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


async def answered(ask: Callable[[Callable[[T | NotifierError], None]], None]) -> T:
    """Ask a worker, and return what it answers by a callback; raises an error that it answers."""
    done: asyncio.Future[T | NotifierError] = asyncio.get_running_loop().create_future()
    ask(lambda outcome: None if done.done() else done.set_result(outcome))
    outcome = await done
    if isinstance(outcome, NotifierError):
        raise outcome
    return outcome


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
