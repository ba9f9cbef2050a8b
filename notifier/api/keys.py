"""API keys: how producers say who they are. Only hashes are kept."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple

import structlog

from notifier.core.errors import Invalid, Unauthorized

_log = structlog.get_logger("notifier.api")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class NewKey(NamedTuple):
    """A fresh API key: the secret goes to the producer, the entry into NOTIFIER_API_KEYS."""

    secret: str
    entry: str


def new_key(name: str) -> NewKey:
    """Make a key of 256 random bits: plain SHA-256 keeps that safe; raises Invalid."""
    if not _NAME.fullmatch(name):
        raise Invalid("name", "must be 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    secret = "nk_" + secrets.token_urlsafe(32)
    return NewKey(secret, f"{name}:{_digest(secret)}")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeys:
    """The keys that are taken. Several may share a name: that is how one is rotated.

    With `open_to`, everybody is taken for that producer, and the log says so when a key is given:
    only `notifier dev` does that.
    """

    def __init__(self, entries: Iterable[str], *, open_to: str | None = None) -> None:
        self._open_to = open_to
        self.replace(entries)

    def replace(self, entries: Iterable[str]) -> None:
        """Take these keys from now on, and no others."""
        pairs = (entry.split(":", 1) for entry in entries)
        self._names = {digest: name for name, digest in pairs}

    def name_of(self, authorization: str) -> str:
        """Return the producer's name for an Authorization header; raises Unauthorized."""
        scheme, _, secret = authorization.partition(" ")
        if self._open_to is not None:
            if secret:
                _log.warning("api_key_not_checked", mend="set NOTIFIER_API_KEYS to have it checked")
            return self._open_to
        if scheme.lower() != "bearer" or not secret:
            raise Unauthorized("send the header Authorization: Bearer <API key>")
        given = _digest(secret.strip())
        found = None
        for digest, name in self._names.items():  # all of them, however early one matches
            if hmac.compare_digest(digest, given):
                found = name
        if found is None:
            raise Unauthorized("this API key is not known")
        return found
