"""A failure, and the register of all of them.

A failure is a generator with one `yield`. It yields in the moment in which its cause is over: the
server answers again, the link is whole, or, where something is killed for good, when it is dead.
It goes on when everybody has everything that was confirmed, to mend what is broken still.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tests.chaos.world import Ground, World

Provocation = Callable[[World], AsyncIterator[None]]


@dataclass(frozen=True)
class Failure:
    """A row of the table.

    Without `gaps` nobody may be told of one. It stands on `ground`. Everybody has everything
    `within` so many seconds. Producers pause a `tail` of seconds later at most: the shorter, the
    more has to be recovered without later events that show holes.
    """

    name: str
    provoke: Provocation
    gaps: bool
    ground: Ground
    within: float
    tail: float


FAILURES: dict[str, Failure] = {}


def failure(
    *, gaps: bool = False, ground: Ground | None = None, within: float = 30, tail: float = 1
) -> Callable[[Provocation], Provocation]:
    """Register a provocation, under its own name, as a row of the table."""

    def register(provoke: Provocation) -> Provocation:
        name = provoke.__name__.replace("_", "-")
        FAILURES[name] = Failure(name, provoke, gaps, ground or Ground(), within, tail)
        return provoke

    return register
