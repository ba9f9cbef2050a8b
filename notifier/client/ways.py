"""The ways to notifier, each with one promise: send events once, and say of each how it went."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from notifier.client.errors import Refused


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event is in the queue."""


@dataclass(frozen=True, slots=True)
class Again:
    """Nobody knows: send it again, in `after` seconds at the earliest."""

    reason: str
    after: float = 0.0


Outcome = Accepted | Refused | Again


class Way(Protocol):
    """A way to notifier, open between `__aenter__` and `__aexit__`."""

    async def __aenter__(self) -> Self:
        """Begin; does not wait for a connection."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        ...

    async def send(self, events: Sequence[bytes]) -> list[Outcome]:
        """Try once, and return the outcome of each event; takes 15 seconds at most."""
        ...
