"""Tokens: JSON Web Tokens (RFC 7519), verified by a secret, by public keys or by an issuer's keys.

What a token says of its algorithm is never believed: each key knows the one algorithm that it is
for (RFC 8725, section 3.1).
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from time import monotonic, time
from typing import Annotated, Any, Protocol, Self

import httpx
import jwt
import msgspec
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import AllowedPublicKeys, HMACAlgorithm
from msgspec import Meta, Struct

from notifier.adapters.tokens.jws import Jws, parse
from notifier.adapters.tokens.known import KnownTokens
from notifier.core.access import Identity, identity_of
from notifier.core.errors import Unauthorized, Unavailable
from notifier.core.names import checked_name
from notifier.core.reading import TOO_DEEP, is_too_deep, named, not_json

LONGEST_TOKEN = 8 * 1024
LEEWAY = 10  # seconds that an issuer's clock may be ahead of ours
LARGEST_KEY_SET = 256 * 1024
MOST_KEYS = 100

_PUBLIC_KEY_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384"}
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAX_AGE = re.compile(r"\bmax-age=(\d{1,9})")

_log = structlog.stdlib.get_logger(__name__)


# Keys.


class _Hs256(HMACAlgorithm):
    """HS256 that looks once whether a secret is no key of another kind, not with each token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return _prepared_secret(key)


@lru_cache(maxsize=8)
def _prepared_secret(secret: str | bytes) -> bytes:
    return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)


_jws = jwt.PyJWS(algorithms=_PUBLIC_KEY_ALGORITHMS)
_jws.register_algorithm("HS256", _Hs256(HMACAlgorithm.SHA256))


@dataclass(frozen=True, slots=True)
class _Key:
    algorithm: str
    material: bytes | AllowedPublicKeys = field(repr=False)
    kid: str | None = None

    def __post_init__(self) -> None:
        """Refuse, as jwt.InvalidKeyError, what is too short or of another kind than its use."""
        algorithm = _jws.get_algorithm_by_name(self.algorithm)
        if weakness := algorithm.check_key_length(algorithm.prepare_key(self.material)):
            raise jwt.InvalidKeyError(weakness)

    def has_signed(self, jws: Jws) -> bool:
        """Whether the signature is this key's, by the algorithm that this key is for."""
        algorithm = _jws.get_algorithm_by_name(self.algorithm)
        return algorithm.verify(jws.message, algorithm.prepare_key(self.material), jws.signature)


def _key_of_secret(secret: str) -> _Key:
    try:
        return _Key("HS256", secret.encode())
    except jwt.InvalidKeyError as error:
        raise ValueError(f"the secret cannot be used: {error}") from None


def _keys_of_pem(text: str) -> list[_Key]:
    keys = [_key_of_pem(block) for block in _PEM.findall(text)]
    if not keys:
        raise ValueError("there is no PEM block in the public key: -----BEGIN PUBLIC KEY----- …")
    return keys


def _key_of_pem(block: str) -> _Key:
    try:
        public_key = load_pem_public_key(block.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("a PEM block of the public key is something else") from None
    try:
        match public_key:
            case RSAPublicKey():
                return _Key("RS256", public_key)
            case EllipticCurvePublicKey() if public_key.curve.name in _CURVES:
                return _Key(_CURVES[public_key.curve.name], public_key)
            case Ed25519PublicKey():
                return _Key("EdDSA", public_key)
            case _:
                raise ValueError("the public key must be RSA, EC (P-256 or P-384) or Ed25519")
    except jwt.InvalidKeyError as error:
        raise ValueError(f"the public key cannot be used: {error}") from None


class _KeySet(Struct):
    keys: Annotated[list[dict[str, Any]], Meta(max_length=MOST_KEYS)]


_key_set = msgspec.json.Decoder(_KeySet)


def _keys_of_set(body: bytes) -> list[_Key]:
    if is_too_deep(body):
        raise ValueError(TOO_DEEP)
    keys = [key for jwk in _key_set.decode(body).keys if (key := _key_of_jwk(jwk))]
    if not keys:
        raise ValueError("its key set holds no public key for verifying signatures")
    return keys


def _key_of_jwk(jwk: dict[str, Any]) -> _Key | None:
    # A set may well hold what is not for us (RFC 7517, section 5). `d` is in private keys only:
    # a key whose private half has been published proves nothing.
    if jwk.get("use", "sig") != "sig" or jwk.get("kty") == "oct" or "d" in jwk:
        return None
    if jwk.get("alg") not in (None, *_PUBLIC_KEY_ALGORITHMS):
        return None
    try:
        key = jwt.PyJWK(jwk)
        return _Key(key.algorithm_name, key.key, jwk.get("kid"))
    except (jwt.PyJWTError, NotImplementedError):
        return None


class KeySource(Protocol):
    """Where a verifier finds the keys that may have signed a token."""

    @property
    def trouble(self) -> str | None:
        """As a Dependency's."""

    async def candidates(self, kid: str | None) -> Sequence[_Key]:
        """Return the keys that a token with this key id may be signed with; raises Unavailable."""

    @property
    def generation(self) -> int:
        """A number that is another one whenever the keys are."""

    @property
    def is_fresh(self) -> bool:
        """Whether the keys may be relied on without asking for candidates."""

    async def open(self) -> None:
        """Prepare; never raises for an issuer that is away."""

    async def close(self) -> None:
        """End what was begun; may be called twice."""


class FixedKeys:
    """Keys known from the start, whatever their ids."""

    trouble = None
    generation = 0
    is_fresh = True

    def __init__(self, keys: Sequence[_Key]) -> None:
        self._keys = keys

    async def candidates(self, kid: str | None) -> Sequence[_Key]:  # noqa: ARG002  # see above
        """Return all of them."""
        return self._keys

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """Nothing to end."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """How often an issuer is asked for its keys, in seconds.

    Between two requests lies a `pause`, whatever key ids tokens claim; one takes at most `timeout`.
    Keys count as fresh for as long as the answer's Cache-Control says, between `least` and `most`;
    `usual` if it says nothing.
    """

    pause: float = 10
    timeout: float = 3
    least: float = 60
    usual: float = 300
    most: float = 3600

    def freshness(self, cache_control: str) -> float:
        """Return for how long an answer with this header is fresh."""
        found = _MAX_AGE.search(cache_control)
        return min(max(int(found[1]), self.least), self.most) if found else self.usual


_UNHURRIED = Pacing()
OnFetch = Callable[[str], None]


def _unheard(outcome: str) -> None:
    """Let nobody hear."""


class IssuerKeys:
    """The keys that an issuer publishes (a JWK Set, RFC 7517), fetched when a token needs them.

    All callers share one fetch. Keys that are no longer fresh serve on while the issuer is away.
    Raises ValueError for a URL that is neither https nor on this machine. `on_fetch` hears what
    became of each fetch: `fetched` or `failed`.
    """

    def __init__(self, url: str, pacing: Pacing = _UNHURRIED, on_fetch: OnFetch = _unheard) -> None:
        self._url = _checked_url(url)
        self._pacing = pacing
        self._on_fetch = on_fetch
        self._client = httpx.AsyncClient(
            verify=_trusted(),
            timeout=None,  # noqa: S113  # a fetch as a whole has one
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
        self._keys: Sequence[_Key] = ()
        self._fresh_until = self._next_fetch = float("-inf")
        self._failure: str | None = "its keys have not been fetched yet"
        self._fetches = 0
        self.generation = 0
        self._missing: set[str | None] = set()  # key ids that the last fetch did not bring
        self._fetching: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str | None:
        """Why there are no keys; asking tries again, so it must be asked in the event loop."""
        if self._keys:
            return None
        # A pod that is not ready gets no tokens to verify, which else would make it fetch.
        self._fetch_when_due()
        return f"the token issuer's keys are missing: {self._failure}"

    async def candidates(self, kid: str | None) -> Sequence[_Key]:
        """Return the keys of this id, fetching when they are stale or there are none.

        None only when a fetch since it was asked for has not brought any.
        """
        fetches = self._fetches
        if not self.is_fresh or not self._of(kid):
            await self._fetched()
        if found := self._of(kid):
            return found
        if self._failure:
            raise Unavailable("issuer", self._failure)
        if fetches == self._fetches and kid not in self._missing:
            # It may be a new one. Who is told that a token is bad does not come back with it.
            raise Unavailable("issuer", "its keys were fetched a moment ago, and not yet again")
        if len(self._missing) < MOST_KEYS:
            self._missing.add(kid)
        return found

    @property
    def is_fresh(self) -> bool:
        """See KeySource."""
        return monotonic() < self._fresh_until

    def _of(self, kid: str | None) -> list[_Key]:
        return [key for key in self._keys if key.kid == kid]

    async def open(self) -> None:
        """Fetch the keys for the first time."""
        await self._fetched()

    async def close(self) -> None:
        """End a fetch under way, and the connections."""
        if self._fetching:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
        await self._client.aclose()

    async def _fetched(self) -> None:
        self._fetch_when_due()
        if self._fetching and not self._fetching.done():
            # A caller who is cancelled must not take the fetch away from the others.
            await asyncio.shield(self._fetching)

    def _fetch_when_due(self) -> None:
        under_way = self._fetching and not self._fetching.done()
        if under_way or monotonic() < self._next_fetch:
            return
        self._next_fetch = monotonic() + self._pacing.pause
        # In a context of its own: what it logs is not about the caller who happened to be first.
        self._fetching = asyncio.create_task(self._fetch(), name="issuer keys", context=Context())

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(self._pacing.timeout):
                body, cache_control = await self._get()
            keys = _keys_of_set(body)
        except (httpx.HTTPError, msgspec.DecodeError, ValueError, OSError, RecursionError) as error:
            self._failure = _failure_of(error)
            _log.warning("issuer_keys_not_fetched", reason=self._failure, held=len(self._keys))
            self._on_fetch("failed")
        else:
            self._on_fetch("fetched")
            self.generation += keys != self._keys
            self._keys, self._failure = keys, None
            self._fetches += 1
            self._missing.clear()
            self._fresh_until = monotonic() + self._pacing.freshness(cache_control)

    async def _get(self) -> tuple[bytes, str]:
        body = bytearray()
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != HTTPStatus.OK:
                raise ValueError(f"it answered {response.status_code}")
            # Raw, because a few compressed bytes can become more than memory holds.
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > LARGEST_KEY_SET:
                    raise ValueError(f"its key set is larger than {LARGEST_KEY_SET} bytes")
            return bytes(body), response.headers.get("cache-control", "")


def _failure_of(error: Exception) -> str:
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError | RecursionError):
        return f"its key set is malformed: {_said(error)}"
    return str(error) or "it did not answer in time"  # TimeoutError says nothing


def _trusted() -> ssl.SSLContext:
    """Trust the public authorities and, beside them, those of SSL_CERT_FILE and the system.

    By itself httpx lets that file take the place of all others: with a private Redis' authority in
    it, a public issuer would be refused.
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def _checked_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise ValueError("the key set's address is no URL") from None
    allowed = ("https", "http") if url.host in _LOOPBACK else ("https",)
    if not url.host or url.scheme not in allowed:
        raise ValueError("the key set's URL must begin with https:// (http:// on loopback only)")
    return url


# Tokens.

# Up to the year 9999, so that it can be written as a date.
NumericDate = Annotated[float, Meta(ge=0, lt=253_402_300_800)]


class _Claims(Struct):
    exp: NumericDate
    nbf: NumericDate = 0
    iat: NumericDate = 0
    iss: str | None = None
    aud: str | list[str] | None = None
    sub: Any = None
    topics: Any = None


_claims = msgspec.json.Decoder(_Claims)
_RULES = {
    **dict.fromkeys(("exp", "nbf", "iat"), "must be a number of seconds since 1970 (NumericDate)"),
    "aud": "must be a string or a list of strings",
    "keys": f"must be a list of at most {MOST_KEYS} keys",
}


class JwtVerifier:
    """Verifies tokens; enter it with `async with` first, so that it can fetch keys.

    A token needs a signature by one of the keys, `exp`, a `sub` that is a user id, and the `iss`
    and `aud` given here. `nbf` and `iat` are honoured; `topics` are the patterns of its identity.
    """

    def __init__(self, keys: KeySource, *, issuer: str | None, audience: str | None) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._known = KnownTokens()

    async def __aenter__(self) -> Self:
        """Fetch keys where that is needed; an issuer that is away is no error yet."""
        await self._keys.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End what was begun."""
        await self._keys.close()

    @property
    def trouble(self) -> str | None:
        """None, except where keys are to be fetched and never could be."""
        return self._keys.trouble

    async def verify(self, token: str) -> Identity:
        """Return whom the token identifies; raises Unauthorized, or Unavailable (`issuer`)."""
        known = self._known.get(token, self._keys.generation, time())
        if known is not None and self._keys.is_fresh:
            return known
        if len(token) > LONGEST_TOKEN:
            raise Unauthorized(f"the token is longer than {LONGEST_TOKEN} bytes")
        jws = parse(token)
        candidates = await self._keys.candidates(jws.kid)
        generation = self._keys.generation  # of these: nothing has come in between
        claims = _signed_claims(jws, candidates)
        self._check_times(claims, time())
        self._check_origin(claims)
        identity = identity_of(claims.sub, claims.exp, claims.topics)
        self._known.add(token, generation, identity)
        return identity

    def _check_times(self, claims: _Claims, now: float) -> None:
        if claims.exp <= now:
            raise Unauthorized(f"the token expired at {_written(claims.exp)}")
        if claims.nbf > now + LEEWAY:
            raise Unauthorized(f"the token is not valid before {_written(claims.nbf)}")
        if claims.iat > now + LEEWAY:
            raise Unauthorized(f"the token is issued in the future, at {_written(claims.iat)}")

    def _check_origin(self, claims: _Claims) -> None:
        if self._issuer is not None and claims.iss != self._issuer:
            raise Unauthorized(f"the token's iss is not {self._issuer}")
        audiences = claims.aud if isinstance(claims.aud, list) else [claims.aud]
        if self._audience is not None and self._audience not in audiences:
            raise Unauthorized(f"the token's aud is not {self._audience}")


def _signed_claims(jws: Jws, candidates: Sequence[_Key]) -> _Claims:
    if not candidates:
        raise Unauthorized("the token's kid is none of the issuer's")
    keys = [key for key in candidates if key.algorithm == jws.alg]
    if not keys:
        allowed = " or ".join(sorted({key.algorithm for key in candidates}))
        raise Unauthorized(f"the token's alg is not its key's: {allowed}")
    if not any(key.has_signed(jws) for key in keys):
        raise Unauthorized("the token's signature is not by a key that is known here")
    return _claims_of(jws.payload)


def _claims_of(payload: bytes) -> _Claims:
    if is_too_deep(payload):
        raise Unauthorized(f"the token's claims are malformed: {TOO_DEEP}")
    try:
        return _claims.decode(payload)
    except (ValueError, RecursionError) as error:  # msgspec's, and UTF-8's
        # It names the member and its rule, never the value.
        raise Unauthorized(f"the token's claims are malformed: {_said(error)}") from None


def _said(error: Exception) -> str:
    if isinstance(error, msgspec.ValidationError):
        return str(named(error, _RULES))
    return not_json(error)


def _written(seconds: float) -> str:
    return f"{datetime.fromtimestamp(int(seconds), UTC):%Y-%m-%dT%H:%M:%SZ}"


def verifier_of(  # noqa: PLR0913  # three kinds of keys, and what to check
    *,
    secret: str | None = None,
    public_key: str | None = None,
    jwks_url: str | None = None,
    issuer: str | None = None,
    audience: str | None = None,
    on_fetch: OnFetch = _unheard,
) -> JwtVerifier:
    """Make a verifier of exactly one of the three; raises ValueError when it cannot be used.

    `secret` is for HS256, at least 32 bytes; `public_key` is one or more PEM blocks: RSA for RS256,
    EC for ES256 or ES384, Ed25519 for EdDSA; `jwks_url` is https. An `issuer` or `audience` that
    is None is not checked. `on_fetch` is for IssuerKeys.
    """
    keys: KeySource
    match secret, public_key, jwks_url:
        case str(), None, None:
            keys = FixedKeys([_key_of_secret(secret)])
        case None, str(), None:
            keys = FixedKeys(_keys_of_pem(public_key))
        case None, None, str():
            keys = IssuerKeys(jwks_url, on_fetch=on_fetch)
        case _:
            raise ValueError("give exactly one of a secret, a public key and a key set's URL")
    return JwtVerifier(keys, issuer=issuer, audience=audience)


def mint(  # noqa: PLR0913  # one argument for each claim
    secret: str,
    user: str,
    *,
    topics: Sequence[str],
    issuer: str | None,
    audience: str | None,
    lifetime: float,
) -> str:
    """Make a token for `lifetime` seconds from now, signed with HS256; for development and tests.

    Raises Invalid for what is not a user id, and ValueError for a secret that is too short.
    """
    _key_of_secret(secret)
    now = int(time())
    expires = now + int(lifetime)
    claims: dict[str, Any] = {"sub": checked_name(user, "user"), "iat": now, "exp": expires}
    if issuer is not None:
        claims["iss"] = issuer
    if audience is not None:
        claims["aud"] = audience
    if topics:
        claims["topics"] = list(topics)
    return jwt.encode(claims, secret, algorithm="HS256")
