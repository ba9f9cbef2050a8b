"""Verifies tokens (RFC 7519): the signature by an issuer's keys, then the claims."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta, Struct

from notifier.adapters.tokens.issuer import IssuerKeys, OnFetch, discovery_url, issuers_at, unheard
from notifier.adapters.tokens.keys import FixedKeys, KeySource, key_of_secret, keys_of_pem
from notifier.adapters.tokens.signed_token import LONGEST_TOKEN, SignedToken, decoded
from notifier.adapters.tokens.token_cache import TokenCache, name_of
from notifier.core.access import Identity, identity_of
from notifier.core.bounded_json import named, read_json
from notifier.core.errors import Invalid, TokenExpired, Unauthorized

CLOCKS_DIFFER = 10  # seconds that an issuer's clock may be ahead of ours, unless a leeway is set

# Up to the year 9999, so that it can be written as a date.
NumericDate = Annotated[float, Meta(ge=0, lt=253_402_300_800)]


class _Claims(Struct):
    exp: NumericDate
    nbf: NumericDate | None = None
    iat: NumericDate | None = None
    iss: str | None = None
    aud: str | list[str] | None = None


# By float, a number too large to be read is infinite, and its own claim's rule refuses it by name.
_every_claim = msgspec.json.Decoder(dict[str, Any], float_hook=float)
_RULES = {
    **dict.fromkeys(("exp", "nbf", "iat"), "must be a number of seconds since 1970 (NumericDate)"),
    "aud": "must be a string or a list of strings",
}


@dataclass(frozen=True, slots=True)
class Issuer:
    """Keys, and the `iss` of the tokens that they verify: any of `names`; None is not checked."""

    keys: KeySource
    names: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """The claims that a token needs, beside its issuer's.

    It needs one of `audiences`; None is not checked. A claim's name may be a path, such as
    `app_metadata.uid`; a name that has dots itself is found too. `leeway` is in seconds, for clocks
    that differ, and delays the expiry too. None takes CLOCKS_DIFFER for `nbf` and `iat` only.
    """

    audiences: Collection[str] | None = None
    user_claim: str = "sub"
    topics_claim: str = "topics"
    leeway: float | None = None


class JwtVerifier:
    """Verifies tokens; enter it with `async with` first, so that it can fetch keys.

    A token needs a signature by one of its issuer's keys, `exp`, a user id, and the claims that
    `rules` name. `nbf` and `iat` are honoured.
    """

    def __init__(self, issuers: Sequence[Issuer], rules: ClaimRules) -> None:
        self._issuers = issuers
        self._rules = rules
        self._known = TokenCache()

    async def __aenter__(self) -> Self:
        """Fetch keys where that is needed; an issuer that is away is no error yet."""
        for issuer in self._issuers:
            await issuer.keys.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End fetches and close connections."""
        for issuer in self._issuers:
            await issuer.keys.close()

    def take_keys(self, issuers: Sequence[Issuer]) -> None:
        """Verify by the secrets or public keys of these issuers from now on.

        An issuer that publishes its keys stays as it is: it rotates them by itself.
        """
        for ours, theirs in zip(self._issuers, issuers, strict=False):
            if isinstance(ours.keys, FixedKeys) and isinstance(theirs.keys, FixedKeys):
                ours.keys.replace(theirs.keys.keys)

    @property
    def trouble(self) -> str | None:
        """Why no token can be verified: the keys of all issuers are missing."""
        troubles = [issuer.keys.trouble for issuer in self._issuers]
        return troubles[0] if all(troubles) else None

    async def verify(self, token: str) -> Identity:
        """Return the identity of a token; raises Unauthorized, or Unavailable (`issuer`)."""
        name = name_of(token)
        known = self._known.get(name, self._generation)
        if known is not None and known.expires > time() and self._is_fresh:
            return known
        signed = decoded(token)
        issuer = self._issuer_of(signed)
        await issuer.keys.check(signed)
        generation = self._generation  # of the keys that were looked at: there was no await since
        claims, every = _claims_of(signed.payload)
        self._check_origin(claims, issuer)
        identity = self._identity(every, self._check_times(claims, time()), claims.iat or 0)
        self._known.add(name, identity, generation)
        return identity

    @property
    def _is_fresh(self) -> bool:
        return all(issuer.keys.is_fresh for issuer in self._issuers)

    @property
    def _generation(self) -> int:
        return sum([issuer.keys.generation for issuer in self._issuers])

    def _issuer_of(self, token: SignedToken) -> Issuer:
        """Find the issuer whose keys are to verify the token: nothing else of it is believed."""
        if len(self._issuers) == 1:
            return self._issuers[0]
        claims, _ = _claims_of(token.payload)
        for issuer in self._issuers:
            if issuer.names is None or claims.iss in issuer.names:
                return issuer
        names = sorted(name for issuer in self._issuers for name in issuer.names or ())
        raise Unauthorized(f"the token's iss is not {' or '.join(names)}")

    def _check_times(self, claims: _Claims, now: float) -> float:
        """Return the moment when the token expires."""
        leeway = self._rules.leeway
        ahead = now + (CLOCKS_DIFFER if leeway is None else leeway)
        expires = claims.exp + (leeway or 0)
        if expires <= now:
            raise TokenExpired(f"the token expired at {_written(claims.exp)} (exp)")
        if claims.nbf is not None and claims.nbf > ahead:
            raise Unauthorized(f"the token is not valid before {_written(claims.nbf)} (nbf)")
        if claims.iat is not None and claims.iat > ahead:
            raise Unauthorized(
                f"the token is issued in the future, at {_written(claims.iat)} (iat)"
            )
        return expires

    def _check_origin(self, claims: _Claims, issuer: Issuer) -> None:
        if issuer.names is not None and claims.iss not in issuer.names:
            raise Unauthorized(f"the token's iss is not {' or '.join(sorted(issuer.names))}")
        allowed = self._rules.audiences
        given = claims.aud if isinstance(claims.aud, list) else [claims.aud]
        if allowed is not None and not set(allowed).intersection(given):
            raise Unauthorized(f"the token's aud is not {' or '.join(sorted(allowed))}")

    def _identity(self, claims: dict[str, Any], expires: float, issued: float) -> Identity:
        user, topics = self._rules.user_claim, self._rules.topics_claim
        return identity_of(
            _claim(claims, user),
            expires,
            _claim(claims, topics),
            publish=claims.get("publish"),
            presence=claims.get("presence"),
            names=(user, topics),
            issued=issued,
        )


def _claims_of(payload: bytes) -> tuple[_Claims, dict[str, Any]]:
    try:
        every = read_json(payload, _every_claim, LONGEST_TOKEN)
        return msgspec.convert(every, _Claims), every
    except msgspec.ValidationError as error:
        reason = named(error, _RULES)  # it names the member and its rule, never the value
    except Invalid as error:
        reason = error
    raise Unauthorized(f"the token's claims are malformed: {reason}")


def _claim(claims: dict[str, Any], path: str) -> object:
    """Return the member of that name, else of that path; None without it."""
    if path in claims or "." not in path:
        return claims.get(path)
    for at, sign in enumerate(path):
        if sign == "." and isinstance(inner := claims.get(path[:at]), dict):
            return _claim(inner, path[at + 1 :])
    return None


def _written(seconds: float) -> str:
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%SZ}"


def issuers_of(  # noqa: PLR0913  # four kinds of keys, and whose they are
    *,
    secrets: Sequence[str] = (),
    public_key: str | None = None,
    jwks_url: str | None = None,
    discovery_urls: Sequence[str] = (),
    names: Sequence[str] | None = None,
    on_fetch: OnFetch = unheard,
) -> list[Issuer]:
    """Make the issuers of exactly one of the four kinds of keys; raises ValueError.

    `secrets` have at least 32 bytes each; `public_key` is one or more PEM blocks: RSA, EC, Ed25519
    or certificates; URLs are https. `names` are the `iss` that tokens may have, None is any. The
    metadata at each discovery URL must be of the issuer that the URL says, or of the name at the
    same place in `names`. `on_fetch` is for IssuerKeys.
    """
    kinds = (bool(secrets), public_key is not None, jwks_url is not None, bool(discovery_urls))
    if kinds.count(True) != 1:
        raise ValueError("give exactly one of secrets, a public key, a key set's URL and discovery")
    if secrets:
        return [Issuer(FixedKeys([key_of_secret(secret) for secret in secrets]), names)]
    if public_key is not None:
        return [Issuer(FixedKeys(keys_of_pem(public_key)), names)]
    if jwks_url is not None:
        return [Issuer(IssuerKeys(jwks_url, on_fetch=on_fetch), names)]
    return list(_discovered(discovery_urls, names, on_fetch))


def _discovered(
    urls: Sequence[str], names: Sequence[str] | None, on_fetch: OnFetch
) -> Iterator[Issuer]:
    if names is not None and len(names) != len(urls):
        raise ValueError(
            f"there are {len(urls)} discovery URLs and {len(names)} issuers: name one issuer for "
            "each, in the same order, or none"
        )
    for index, url in enumerate(map(discovery_url, urls)):
        its_names = issuers_at(url) if names is None else frozenset((names[index],))
        yield Issuer(IssuerKeys(url, on_fetch=on_fetch, issuers=its_names), its_names)
