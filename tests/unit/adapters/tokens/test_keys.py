import warnings
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509 import NameOID
from jwt.algorithms import AllowedPrivateKeys, get_default_algorithms

from notifier.adapters.tokens.keys import FixedKeys, key_of_secret
from notifier.adapters.tokens.minting import mint
from notifier.adapters.tokens.verifier import Issuer, JwtVerifier, issuers_of
from notifier.core.access import Identity
from notifier.core.errors import Invalid, Unauthorized
from tests.support.tokens import (
    ANY,
    ED448,
    ED25519,
    FOR_US,
    P256,
    P256K,
    P384,
    P521,
    RSA,
    SECRET,
    SOON,
    WEAK,
    claims,
    encoded,
    pem_of,
    refusal,
    signed,
    signed_as_ed25519,
    verifier_of,
)

# A secret.


async def test_a_token_signed_with_the_secret_identifies_its_user() -> None:
    verifier = verifier_of(secret=SECRET)

    identity = await verifier.verify(signed(SECRET, "HS256", topics=["news", "team:7:*"]))

    assert identity == Identity("42", SOON, ("news", "team:7:*"))


async def test_a_token_signed_with_another_secret_is_refused() -> None:
    verifier = verifier_of(secret=SECRET)

    reason = await refusal(verifier, signed(SECRET + "!", "HS256"))

    assert reason == "the token's signature is not by a key that is known here"


async def test_a_minted_token_is_verified() -> None:
    verifier = verifier_of(secret=SECRET, names=["dev"], rules=FOR_US)
    before = int(time())

    token = mint(SECRET, "42", topics=["news"], issuer="dev", audience="notifier", lifetime=3600)
    identity = await verifier.verify(token)

    assert (identity.user, identity.patterns) == ("42", ("news",))
    assert before + 3600 <= identity.expires <= time() + 3600


async def test_a_minted_token_says_where_its_clients_may_publish() -> None:
    verifier = verifier_of(secret=SECRET)

    token = mint(
        SECRET, "42", topics=(), issuer=None, audience=None, lifetime=60, publish=["room:*"]
    )
    identity = await verifier.verify(token)

    assert identity.may_publish("room:7")
    assert not identity.may_publish("news")


def test_no_token_is_minted_for_a_text_that_is_no_user_id() -> None:
    with pytest.raises(Invalid, match=r"^user: must be 1 to 128"):
        mint(SECRET, "a b", topics=(), issuer=None, audience=None, lifetime=60)


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "fewer than 32 bytes"),
        ("too short", "fewer than 32 bytes"),
        (pem_of(RSA), "it is a public key or a certificate"),
        (pem_of(P256), "it is a public key or a certificate"),
    ],
)
def test_a_short_text_or_a_public_key_cannot_be_the_secret(secret: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"the secret cannot be used: .*{reason}$"):
        verifier_of(secret=secret)
    with pytest.raises(ValueError, match="the secret cannot be used"):
        mint(secret, "42", topics=(), issuer=None, audience=None, lifetime=60)


# Public keys.


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (RSA, ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        (P256, ["ES256"]),
        (P384, ["ES384"]),
        (P521, ["ES512"]),
        (ED25519, ["EdDSA"]),
    ],
)
async def test_a_public_key_verifies_the_algorithms_of_its_kind(
    key: AllowedPrivateKeys, algorithms: list[str]
) -> None:
    verifier = verifier_of(public_key=pem_of(key))

    users = [
        (await verifier.verify(signed(key, algorithm, sub=algorithm))).user
        for algorithm in algorithms
    ]

    assert users == algorithms


async def test_a_pem_key_verifies_ed25519_by_its_newer_name_and_any_kid() -> None:
    verifier = verifier_of(public_key=pem_of(ED25519))

    identity = await verifier.verify(signed_as_ed25519("a"))

    assert identity.user == "42"


def certificate_of(key: rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(lambda pem: pem, id="as it is"),
        pytest.param(lambda pem: pem.replace("\n", "\\n"), id="one line with \\n"),
        pytest.param(lambda pem: pem.replace("\n", "\\r\\n"), id="one line with \\r\\n"),
        pytest.param(lambda pem: pem.replace("\n", "\\\\n"), id="escaped twice"),
        pytest.param(lambda pem: pem.replace("\n", "\r\n"), id="Windows"),
        pytest.param(lambda pem: pem.replace("\n", " "), id="spaces"),
        pytest.param(lambda pem: pem.replace("\n", ""), id="nothing"),
        pytest.param(lambda pem: "\n".join("  " + line for line in pem.split("\n")), id="indented"),
    ],
)
@pytest.mark.parametrize("kind", [pem_of, certificate_of], ids=["key", "certificate"])
async def test_line_breaks_of_pem_may_have_suffered(
    kind: Callable[[rsa.RSAPrivateKey], str], written: Callable[[str], str]
) -> None:
    verifier = verifier_of(public_key=written(kind(RSA)))

    identity = await verifier.verify(signed(RSA, "RS256"))

    assert identity.user == "42"


async def test_each_of_several_public_keys_verifies() -> None:
    first, second = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
    verifier = verifier_of(public_key=pem_of(first) + pem_of(RSA) + pem_of(second))

    users = [
        (await verifier.verify(signed(first, "EdDSA", sub="1"))).user,
        (await verifier.verify(signed(second, "EdDSA", sub="2"))).user,
        (await verifier.verify(signed(RSA, "RS256", sub="3"))).user,
    ]

    assert users == ["1", "2", "3"]


def private_pem() -> str:
    return RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        ("", "there is no PEM block"),
        (SECRET, "there is no PEM block"),
        (private_pem(), "is a private key: keep that to the issuer"),
        (pem_of(RSA).replace("A", "B"), "a PEM block of the public key is something else"),
        (pem_of(WEAK), "^an RSA public key must have at least 2048 bits"),
        (pem_of(P256K), "must be RSA, EC"),
        (pem_of(ED448), "must be RSA, EC"),
    ],
    ids=["empty", "no-pem", "private", "damaged", "1024-bits", "secp256k1", "ed448"],
)
def test_an_unfit_public_key_is_refused_with_the_reason(pem: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        verifier_of(public_key=pem)


@pytest.mark.parametrize(
    "sources",
    [
        {},
        {"secret": SECRET, "public_key": pem_of(RSA)},
        {"secret": SECRET, "jwks_url": "https://issuer.example/jwks"},
        {"public_key": pem_of(RSA), "jwks_url": "https://issuer.example/jwks"},
    ],
)
def test_a_verifier_has_exactly_one_source_of_keys(sources: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        verifier_of(**sources)


# The algorithm is the key's.


def signed_with_the_public_key_as_secret() -> str:
    hs256 = get_default_algorithms()["HS256"]
    message = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded(claims())}"
    signature = hs256.sign(message.encode(), pem_of(RSA).encode())
    return f"{message}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "token",
    [
        signed_with_the_public_key_as_secret(),
        signed(P256, "ES256"),
        f"{encoded({'alg': 'none'})}.{encoded(claims())}.",
        f"{encoded({'alg': 'RS256 '})}.{encoded(claims())}.{encoded(None)}",
        f"{encoded({'alg': ['RS256']})}.{encoded(claims())}.{encoded(None)}",
        f"{encoded({})}.{encoded(claims())}.{encoded(None)}",
    ],
    ids=["hs256-by-pem", "es256", "none", "almost", "list", "absent"],
)
async def test_a_token_of_another_algorithm_than_its_keys_is_refused(token: str) -> None:
    verifier = verifier_of(public_key=pem_of(RSA))

    reason = await refusal(verifier, token)

    assert reason.startswith("the token's alg is not its key's: PS256 or PS384 or ")


@pytest.mark.parametrize(
    ("length", "algorithms"),
    [
        (32, ["HS256"]),
        (47, ["HS256"]),
        (48, ["HS256", "HS384"]),
        (63, ["HS256", "HS384"]),
        (64, ["HS256", "HS384", "HS512"]),
    ],
)
async def test_a_secret_verifies_the_algorithms_that_it_is_long_enough_for(
    length: int, algorithms: list[str]
) -> None:
    secret = "x" * length
    verifier = verifier_of(secret=secret)

    taken = []
    for algorithm in ("HS256", "HS384", "HS512"):
        with suppress(Unauthorized), warnings.catch_warnings(action="ignore"):
            await verifier.verify(signed(secret, algorithm))
            taken.append(algorithm)

    assert taken == algorithms


async def test_each_of_several_secrets_verifies() -> None:
    verifier = JwtVerifier(issuers_of(secrets=[SECRET, "another " + SECRET]), ANY)

    users = [
        (await verifier.verify(signed(SECRET, "HS256", sub="1"))).user,
        (await verifier.verify(signed("another " + SECRET, "HS256", sub="2"))).user,
    ]

    assert users == ["1", "2"]


async def test_a_token_of_a_key_that_was_replaced_is_known_no_longer() -> None:
    keys = FixedKeys([key_of_secret(SECRET)])
    verifier = JwtVerifier([Issuer(keys)], ANY)
    token = signed(SECRET, "HS256")
    await verifier.verify(token)

    keys.replace([key_of_secret("another " + SECRET)])
    reason = await refusal(verifier, token)

    assert reason == "the token's signature is not by a key that is known here"
