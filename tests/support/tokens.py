"""Keys of every kind, tokens that they sign, and verifiers of them."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from jwt.algorithms import AllowedPrivateKeys, get_default_algorithms

from notifier.adapters.tokens.issuer import FetchIntervals
from notifier.adapters.tokens.verifier import ClaimRules, JwtVerifier, issuers_of
from notifier.core.errors import Unauthorized

SECRET = "a secret of more than thirty-two bytes"
RSA = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505  # to see it refused
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
P256K = ec.generate_private_key(ec.SECP256K1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()
SOON = int(time()) + 3600
ANY = ClaimRules()
FOR_US = ClaimRules(audiences=["notifier"])
UNHURRIED = FetchIntervals()
EAGER = FetchIntervals(pause=0)
FORGETFUL = FetchIntervals(pause=0, least=0, usual=0, most=0)


def claims(**changes: object) -> dict[str, Any]:
    every = {"sub": "42", "exp": SOON, **changes}
    return {name: value for name, value in every.items() if value is not None}


def signed(
    key: AllowedPrivateKeys | str,
    algorithm: str,
    kid: str | None = None,
    **changes: Any,  # noqa: ANN401  # claims
) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid} if kid else None)


def pem_of(key: AllowedPrivateKeys) -> str:
    form = PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(Encoding.PEM, form).decode()


def verifier_of(
    *,
    secret: str | None = None,
    names: Sequence[str] | None = None,
    rules: ClaimRules = ANY,
    **keys: Any,  # noqa: ANN401  # as issuers_of takes them
) -> JwtVerifier:
    secrets = () if secret is None else [secret]
    return JwtVerifier(issuers_of(secrets=secrets, names=names, **keys), rules)


def signed_as_ed25519(kid: str, **changes: object) -> str:
    """Sign with the name that RFC 9864 gives to the algorithm, which PyJWT has not yet."""
    message = f"{encoded({'alg': 'Ed25519', 'kid': kid})}.{encoded(claims(**changes))}"
    signature = urlsafe_b64encode(ED25519.sign(message.encode())).rstrip(b"=")
    return f"{message}.{signature.decode()}"


async def refusal(verifier: JwtVerifier, token: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        await verifier.verify(token)
    return str(refused.value)


def encoded(part: object) -> str:
    text = json.dumps(part).encode() if isinstance(part, dict) else b"signature"
    return urlsafe_b64encode(text).rstrip(b"=").decode()


def jwk_of(key: AllowedPrivateKeys, kid: str | None = None, **more: object) -> dict[str, object]:
    match key:
        case rsa.RSAPrivateKey():
            name = "RS256"
        case ec.EllipticCurvePrivateKey():
            name = "ES256"
        case _:
            name = "EdDSA"
    jwk = get_default_algorithms()[name].to_jwk(key.public_key(), as_dict=True)
    return {**jwk, **({"kid": kid} if kid else {}), **more}
