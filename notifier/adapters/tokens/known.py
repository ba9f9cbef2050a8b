"""Tokens that were verified already, so that a client that reconnects costs no signature."""

from collections import OrderedDict
from hashlib import sha256
from typing import NamedTuple

from notifier.core.access import Identity

MOST_KNOWN = 50_000


class _Known(NamedTuple):
    identity: Identity
    keys: int


class KnownTokens:
    """At most `most` identities by the hash of their token; the token itself is not kept.

    Each is known until it expires, or until `keys`, a number for the keys in force, is another one:
    a key that is withdrawn takes all that it signed with it.
    """

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        # A dictionary searches for its first item past all that were removed before it.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def get(self, token: str, keys: int, now: float) -> Identity | None:
        """Return the identity of a known token, None for any other."""
        known = self._known.get(_hash(token))
        if known is None or known.keys != keys or known.identity.expires <= now:
            return None
        return known.identity

    def add(self, token: str, keys: int, identity: Identity) -> None:
        """Remember a token verified by these keys; the one known longest may have to go."""
        name = _hash(token)
        self._known.pop(name, None)
        if len(self._known) >= self._most:
            self._known.popitem(last=False)
        self._known[name] = _Known(identity, keys)


def _hash(token: str) -> bytes:
    return sha256(token.encode(errors="surrogatepass")).digest()
