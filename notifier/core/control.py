"""Control: the orders of backends and operators about a user, and which of them are still new."""

from enum import StrEnum
from typing import NamedTuple

from notifier.core.access import Identity

LOOK = "look"
"""The order (`notifier.core.signals`) to look for new ones at once, told to `GATEWAYS`."""


class Act(StrEnum):
    """The acts that an order about a user can name."""

    DISCONNECT = "disconnect"
    """End the connections that there are now; they may come back."""
    REVOKE = "revoke"
    """Refuse all tokens issued until now, and end the sessions that they opened."""


class Order(NamedTuple):
    """One order. `moment` is when it was given: Unix seconds by the clock of the backend."""

    act: Act
    user: str
    moment: float


class Moments:
    """The newest moment of each user, for `lifetime` seconds."""

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._moments: dict[str, float] = {}  # oldest first

    def take(self, user: str, moment: float) -> bool:
        """Note a moment; False where it is known, or older than the known one."""
        if moment <= self._moments.get(user, 0.0):
            return False
        self._moments.pop(user, None)
        self._moments[user] = moment
        while self._moments[oldest := next(iter(self._moments))] < moment - self._lifetime:
            del self._moments[oldest]
        return True

    def of(self, user: str) -> float | None:
        """Return the user's moment; None without one."""
        return self._moments.get(user)


class Revocations(Moments):
    """When each user's tokens were revoked last."""

    def refuse(self, identity: Identity) -> bool:
        """Whether the token of this identity is revoked.

        `iat` counts whole seconds, so the second of the revocation itself is refused: a token that
        may be older is not let in. One without `iat` may always be older.
        """
        moment = self._moments.get(identity.user)
        return moment is not None and identity.issued <= int(moment)
