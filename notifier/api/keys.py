"""API keys, which authenticate producers. Only hashes are kept."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import structlog
from fastapi import Request

from notifier.core.access import is_pattern
from notifier.core.errors import Invalid, Unauthorized
from notifier.core.grants import MOST_PATTERNS, Grant, Scope, is_key_name, key_entries_of

_log = structlog.get_logger("notifier.api")


class NewKey(NamedTuple):
    """A fresh API key: the secret goes to the producer, the entry into NOTIFIER_API_KEYS."""

    secret: str
    entry: str


def new_key(name: str, scopes: Sequence[str] = (), patterns: Sequence[str] = ()) -> NewKey:
    """Make a key of 256 random bits: plain SHA-256 keeps that safe; raises Invalid.

    Without scopes it may post, without patterns to every audience.
    """
    if not is_key_name(name):
        raise Invalid("name", "must be 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    if len(patterns) > MOST_PATTERNS or not all(map(is_pattern, patterns)):
        raise Invalid("topic", f"must be at most {MOST_PATTERNS} topics, or patterns with *")
    secret = "nk_" + secrets.token_urlsafe(32)
    return NewKey(secret, ":".join((name, _digest(secret), *_bounds(scopes, patterns))))


def _bounds(scopes: Sequence[str], patterns: Sequence[str]) -> Iterator[str]:
    if scopes or patterns:
        yield "+".join(scopes or (Scope.POST,))
    if patterns:
        yield ";".join(patterns)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeys:
    """The keys that are taken. Several may share a name: that is how one is rotated.

    With `open_to`, everybody is taken for that grant, and the log says so when a key is given:
    only `notifier dev` does that.
    """

    def __init__(self, entries: Iterable[str], *, open_to: Grant | None = None) -> None:
        self._open_to = open_to
        self.replace(entries)

    def replace(self, entries: Iterable[str]) -> None:
        """Take these keys from now on, and no others; raises Invalid, and keeps the former."""
        self._grants = dict(key_entries_of(entries))

    def grant_of(self, authorization: str) -> Grant:
        """Return the grant of an Authorization header's key; raises Unauthorized."""
        scheme, _, secret = authorization.partition(" ")
        if self._open_to is not None:
            if secret:
                _log.warning("api_key_not_checked", mend="set NOTIFIER_API_KEYS to have it checked")
            return self._open_to
        if scheme.lower() != "bearer" or not secret:
            raise Unauthorized("send the header Authorization: Bearer <API key>")
        given = _digest(secret.strip())
        found = None
        for digest, grant in self._grants.items():  # all of them, however early one matches
            if hmac.compare_digest(digest, given):
                found = grant
        if found is None:
            raise Unauthorized("this API key is not known")
        return found


async def granted(request: Request) -> Grant:
    """Return the grant of the request's API key: a dependency; raises Unauthorized."""
    # A coroutine, as FastAPI would run it in a thread otherwise, and wait for that.
    keys: ApiKeys = request.app.state.keys
    grant = keys.grant_of(request.headers.get("authorization", ""))
    request.state.key = grant.name
    return grant
