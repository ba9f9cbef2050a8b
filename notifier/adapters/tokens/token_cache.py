"""Tokens that were verified already, so that a client that reconnects costs no signature."""

from hashlib import blake2b

from notifier.core.access import Identity

MOST_CACHED = 50_000


class TokenCache:
    """Identities by the hash of their token (`name_of`); the token itself is not kept.

    All were verified by the same keys: a key that is withdrawn takes all that it signed with it.
    At `most` tokens, the half that is known longest makes room.
    """

    def __init__(self, most: int = MOST_CACHED) -> None:
        self._half = most // 2
        self._keys = 0
        # Two dictionaries take half the memory of one that knows its order of removal.
        self._newer: dict[bytes, Identity] = {}
        self._older: dict[bytes, Identity] = {}

    def get(self, name: bytes, keys: int) -> Identity | None:
        """Return the identity of a token, which may have expired, if keys of that number hold."""
        if keys != self._keys:
            return None
        return self._newer.get(name) or self._older.get(name)

    def add(self, name: bytes, identity: Identity, keys: int) -> None:
        """Remember a token that keys of that number have verified."""
        if keys != self._keys:
            self._keys, self._newer, self._older = keys, {}, {}
        elif len(self._newer) >= self._half:
            self._newer, self._older = {}, self._newer
        self._newer[name] = identity


def name_of(token: str) -> bytes:
    """Return the hash that stands for a token: 120 bits, too many to find another text with them.

    One byte more would take 16 more in memory.
    """
    return blake2b(token.encode(errors="surrogatepass"), digest_size=15).digest()
