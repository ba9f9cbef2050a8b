"""The marks `received` that a follower owes: of events whose producers wait for one."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

_EVERY = 1.0  # seconds


class Receipts:
    """Tells at most once a second up to where each topic is received."""

    def __init__(self) -> None:
        self._owed: dict[str, str] = {}  # positions, by topic
        self._told_at = 0.0

    def take(self, frame: dict[str, Any]) -> None:
        """Take note of a frame that came."""
        if frame.get("ack") is True:
            self._owed[frame["topic"]] = frame["position"]

    @property
    def due(self) -> float | None:
        """The moment to tell at, by the clock of `tell`; None where nothing is owed."""
        return self._told_at + _EVERY if self._owed else None

    async def tell(self, send: Callable[[str], Awaitable[None]], now: float) -> None:
        """Send each mark that is owed; those that fail stay owed."""
        self._told_at = now
        for topic, position in tuple(self._owed.items()):
            await send(json.dumps({"type": "mark", "topic": topic, "received": position}))
            del self._owed[topic]
