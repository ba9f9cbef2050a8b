"""Keys that verify tokens: secrets, public keys and certificates in PEM, key sets (RFC 7517).

The key decides the algorithm, never the token (RFC 8725, section 3.1): a public key is never a
secret for HMAC, and `none` is no algorithm of any key.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, Self

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from msgspec import Meta, Struct

from notifier.adapters.tokens.signed_token import SignedToken
from notifier.core.bounded_json import read_json
from notifier.core.errors import Unauthorized

MOST_KEYS = 100

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_ED25519 = ("EdDSA", "Ed25519")  # one algorithm, as RFC 8037 and as RFC 9864 call it
_HMAC = {"HS256": 32, "HS384": 48, "HS512": 64}  # and the least bytes, RFC 7518, section 3.2
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)

_jws = jwt.PyJWS()
_algorithms = {
    name: _jws.get_algorithm_by_name("EdDSA" if name in _ED25519 else name)
    for name in (*_HMAC, *_RSA, *_CURVES.values(), *_ED25519)
}


@dataclass(frozen=True, slots=True)
class Key:
    """A secret or public key, with the algorithms that it verifies and its id in a key set."""

    material: Any = field(repr=False)
    algorithms: tuple[str, ...]
    kid: str | None = None

    @classmethod
    def of(cls, material: object, algorithms: Sequence[str], kid: str | None = None) -> Self:
        """Make a key; raises jwt.InvalidKeyError for one that is too short or of another kind."""
        algorithm = _algorithms[algorithms[0]]
        prepared = algorithm.prepare_key(material)
        if weakness := algorithm.check_key_length(prepared):
            raise jwt.InvalidKeyError(weakness)
        return cls(prepared, tuple(algorithms), kid)

    def has_signed(self, token: SignedToken) -> bool:
        """Whether this key verifies the signature, by the token's algorithm if it is the key's."""
        if token.alg not in self.algorithms:
            return False
        algorithm = _algorithms[str(token.alg)]
        return bool(algorithm.verify(token.message, self.material, token.signature))


def check_signature(token: SignedToken, keys: Sequence[Key]) -> None:
    """Raise Unauthorized unless one of the keys has signed the token.

    Candidates are the keys with the token's `kid` and those without; all, if it has none.
    """
    candidates = [key for key in keys if token.kid is None or key.kid in (None, token.kid)]
    if not candidates:
        raise Unauthorized("the token's kid is none of the issuer's")
    if any(key.has_signed(token) for key in candidates):
        return
    allowed = {algorithm for key in candidates for algorithm in key.algorithms}
    if token.alg not in tuple(allowed):
        raise Unauthorized(f"the token's alg is not its key's: {' or '.join(sorted(allowed))}")
    raise Unauthorized("the token's signature is not by a key that is known here")


def key_of_secret(secret: str) -> Key:
    """Make the key of a secret of at least 32 bytes; HS384 takes 48, HS512 64; raises ValueError.

    A public key or certificate by mistake is no secret: any reader of it could sign.
    """
    material = secret.encode()
    fitting = [name for name, least in _HMAC.items() if len(material) >= least]
    if not fitting:
        raise ValueError(f"the secret cannot be used: it has fewer than {_HMAC['HS256']} bytes")
    try:
        return Key.of(material, fitting)
    except jwt.InvalidKeyError:
        reason = "it is a public key or a certificate"
        raise ValueError(f"the secret cannot be used: {reason}") from None


def keys_of_pem(text: str) -> list[Key]:
    r"""Read the public keys and certificates of a text; raises ValueError.

    Line breaks may be missing, or written as `\n`, as in one line of an environment file.
    """
    keys = [_key_of_pem(*block) for block in _PEM.findall(re.sub(r"(?<!\\)\\+[rn]", "\n", text))]
    if not keys:
        raise ValueError("there is no PEM block in the public key: -----BEGIN PUBLIC KEY----- …")
    return keys


def _key_of_pem(label: str, body: str) -> Key:
    if "PRIVATE" in label:
        raise ValueError("a PEM block of the public key is a private key: keep that to the issuer")
    lines = "\n".join(body.split())
    block = f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n".encode()
    public_key: object
    try:
        if label == "CERTIFICATE":
            public_key = load_pem_x509_certificate(block).public_key()
        else:
            public_key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("a PEM block of the public key is something else") from None
    algorithms = _algorithms_of(public_key)
    if not algorithms:
        raise ValueError("the public key must be RSA, EC (P-256, P-384, P-521) or Ed25519")
    try:
        return Key.of(public_key, algorithms)
    except jwt.InvalidKeyError:
        raise ValueError("an RSA public key must have at least 2048 bits (RFC 7518, 3.3)") from None


def _algorithms_of(public_key: object) -> tuple[str, ...]:
    match public_key:
        case RSAPublicKey():
            return _RSA
        case EllipticCurvePublicKey() if public_key.curve.name in _CURVES:
            return (_CURVES[public_key.curve.name],)
        case Ed25519PublicKey():
            return _ED25519
        case _:
            return ()


class _KeySet(Struct):
    keys: Annotated[list[dict[str, Any]], Meta(max_length=MOST_KEYS)]


_key_set = msgspec.json.Decoder(_KeySet)
_RULES = {"keys": f"must be a list of at most {MOST_KEYS} keys"}


def keys_of_set(body: bytes) -> list[Key]:
    """Read a JWK Set; raises Invalid, and ValueError for one without a usable key."""
    jwks = read_json(body, _key_set, len(body), _RULES).keys
    keys = [key for jwk in jwks if (key := _key_of_jwk(jwk))]
    if not keys:
        raise ValueError("its key set holds no public key for verifying signatures")
    return keys


def _key_of_jwk(jwk: dict[str, Any]) -> Key | None:
    # A set may well hold keys for other uses (RFC 7517, section 5). `d` is in private keys only:
    # a key whose private half has been published proves nothing.
    # Some issuers write null for what they leave out.
    jwk = {name: value for name, value in jwk.items() if value is not None}
    if jwk.get("use", "sig") != "sig" or jwk.get("kty") == "oct" or "d" in jwk:
        return None
    if isinstance(operations := jwk.get("key_ops"), list) and "verify" not in operations:
        return None
    kid = jwk.get("kid")
    if not isinstance(kid, str | None):
        return None
    try:
        public_key = jwt.PyJWK({name: jwk[name] for name in jwk if name != "alg"}).key
        algorithms = _pinned(_algorithms_of(public_key), jwk.get("alg"))
        return Key.of(public_key, algorithms, kid) if algorithms else None
    except (jwt.PyJWTError, NotImplementedError):
        return None


def _pinned(algorithms: tuple[str, ...], alg: object) -> tuple[str, ...]:
    if alg is None or (alg in _ED25519 and algorithms == _ED25519):
        return algorithms
    return tuple(name for name in algorithms if name == alg)


class KeySource(Protocol):
    """The keys that may have signed a token."""

    @property
    def trouble(self) -> str | None:
        """As a Dependency's."""

    async def check(self, token: SignedToken) -> None:
        """Raise Unauthorized unless one of the keys has signed the token.

        Raises Unavailable while that cannot be said, because newer keys are to be fetched. When it
        returns, `generation` is that of the keys which were looked at.
        """

    @property
    def generation(self) -> int:
        """A number that changes whenever the keys do."""

    @property
    def is_fresh(self) -> bool:
        """Whether tokens verified by the keys of this generation are good without another look."""

    async def open(self) -> None:
        """Prepare; never raises for an issuer that is away."""

    async def close(self) -> None:
        """End fetches and close connections; may be called twice."""


class FixedKeys:
    """Keys of the settings; `replace` takes those of changed settings."""

    trouble = None
    is_fresh = True

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = keys
        self.generation = 0

    def replace(self, keys: Sequence[Key]) -> None:
        """Use these keys from now on: tokens of withdrawn ones are refused."""
        self.generation += keys != self.keys
        self.keys = keys

    async def check(self, token: SignedToken) -> None:
        """See KeySource."""
        check_signature(token, self.keys)

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """Nothing to end."""
