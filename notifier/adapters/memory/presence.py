"""Presence in memory: for `notifier dev`, whose one gateway is in the same process."""

import asyncio
import secrets
from collections.abc import Sequence

from notifier.core.names import GATEWAYS
from notifier.core.ports import Broker
from notifier.core.presence import WHO, Answer, Presence, Question, encode, presence_of
from notifier.core.signals import Kind, Signal

_PATIENCE = 1.0  # seconds


class MemoryPresenceQueries:
    """Fulfils `notifier.core.ports.PresenceQueries` for one gateway, on its broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._awaited: dict[str, asyncio.Future[Answer]] = {}

    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        """See PresenceQueries."""
        question = Question(secrets.token_hex(8), list(users), detailed)
        awaited = asyncio.get_running_loop().create_future()
        self._awaited[question.id] = awaited
        try:
            await self._broker.signal([Signal(GATEWAYS, Kind.ORDER, WHO, encode(question))])
            done, _ = await asyncio.wait([awaited], timeout=_PATIENCE)
        finally:
            del self._awaited[question.id]
        return presence_of(users, [each.result() for each in done], complete=bool(done))

    async def answer(self, question: str, answer: Answer) -> None:
        """See PresenceQueries."""
        if (awaited := self._awaited.get(question)) and not awaited.done():
            awaited.set_result(answer)
