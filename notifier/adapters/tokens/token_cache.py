"""Tokens that were verified already, so that a client that reconnects costs no signature."""

from collections import OrderedDict
from hashlib import sha256
from typing import NamedTuple

from notifier.core.access import Identity

MOST_CACHED = 50_000


class VerifiedToken(NamedTuple):
    """The identity of a token that was verified, and the number of the keys that did it."""

    identity: Identity
    keys: int

    def holds(self, keys: int, now: float) -> bool:
        """Whether it is still so, under the keys that are in force now.

        A key that is withdrawn takes all that it signed with it.
        """
        return self.keys == keys and self.identity.expires > now


class TokenCache:
    """At most `most` tokens by their hash (`name_of`); the token itself is not kept."""

    def __init__(self, most: int = MOST_CACHED) -> None:
        self._most = most
        # A dictionary searches for its first item past all that were removed before it.
        self._known: OrderedDict[bytes, VerifiedToken] = OrderedDict()

    def get(self, name: bytes) -> VerifiedToken | None:
        """Return the record of a token, which may have expired; None without one."""
        return self._known.get(name)

    def add(self, name: bytes, known: VerifiedToken) -> None:
        """Remember a token; the one known longest may have to go."""
        self._known.pop(name, None)
        if len(self._known) >= self._most:
            self._known.popitem(last=False)
        self._known[name] = known


def name_of(token: str) -> bytes:
    """Return the hash that stands for a token."""
    return sha256(token.encode(errors="surrogatepass")).digest()
