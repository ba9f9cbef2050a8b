import asyncio
import gzip
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import AllowedPrivateKeys, get_default_algorithms
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from notifier.adapters.tokens.verifier import (
    LARGEST_KEY_SET,
    LONGEST_TOKEN,
    MOST_KEYS,
    IssuerKeys,
    JwtVerifier,
    Pacing,
    mint,
    verifier_of,
)
from notifier.core.access import Identity
from notifier.core.errors import Invalid, Unauthorized, Unavailable
from tests.support.tls import tls_in_front_of

SECRET = "a secret of more than thirty-two bytes"
RSA = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505  # to see it refused
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()
SOON = int(time()) + 3600
UNHURRIED = Pacing()
EAGER = Pacing(pause=0)
FORGETFUL = Pacing(pause=0, least=0, usual=0, most=0)


def claims(**changes: object) -> dict[str, Any]:
    every = {"sub": "42", "exp": SOON, **changes}
    return {name: value for name, value in every.items() if value is not None}


def signed(
    key: AllowedPrivateKeys | str, algorithm: str, kid: str | None = None, **changes: object
) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid} if kid else None)


def pem_of(key: AllowedPrivateKeys) -> str:
    form = PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(Encoding.PEM, form).decode()


async def refusal(verifier: JwtVerifier, token: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        await verifier.verify(token)
    return str(refused.value)


async def refusal_of(**changes: object) -> str:
    verifier = verifier_of(secret=SECRET, issuer="https://issuer.example", audience="notifier")
    named: dict[str, Any] = {"iss": "https://issuer.example", "aud": "notifier", **changes}
    return await refusal(verifier, signed(SECRET, "HS256", **named))


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
    verifier = verifier_of(secret=SECRET, issuer="dev", audience="notifier")
    before = int(time())

    token = mint(SECRET, "42", topics=["news"], issuer="dev", audience="notifier", lifetime=3600)
    identity = await verifier.verify(token)

    assert (identity.user, identity.patterns) == ("42", ("news",))
    assert before + 3600 <= identity.expires <= time() + 3600


def test_no_token_is_minted_for_what_is_not_a_user_id() -> None:
    with pytest.raises(Invalid, match=r"^user: must be 1 to 128"):
        mint(SECRET, "a b", topics=(), issuer=None, audience=None, lifetime=60)


@pytest.mark.parametrize("secret", ["", "too short", pem_of(RSA), pem_of(P256)])
def test_what_is_too_short_or_a_public_key_cannot_be_the_secret(secret: str) -> None:
    with pytest.raises(ValueError, match="the secret cannot be used"):
        verifier_of(secret=secret)
    with pytest.raises(ValueError, match="the secret cannot be used"):
        mint(secret, "42", topics=(), issuer=None, audience=None, lifetime=60)


# Public keys.


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (P256, "ES256"), (P384, "ES384"), (ED25519, "EdDSA")],
)
async def test_a_public_key_verifies_its_one_algorithm(
    key: AllowedPrivateKeys, algorithm: str
) -> None:
    verifier = verifier_of(public_key=pem_of(key))

    identity = await verifier.verify(signed(key, algorithm))

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
        (private_pem(), "a PEM block of the public key is something else"),
        (pem_of(WEAK), "below the minimum"),
        (pem_of(ec.generate_private_key(ec.SECP521R1())), "must be RSA, EC"),
        (pem_of(ED448), "must be RSA, EC"),
    ],
    ids=["empty", "no-pem", "private", "1024-bits", "p-521", "ed448"],
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


def encoded(part: object) -> str:
    text = json.dumps(part).encode() if isinstance(part, dict) else b"signature"
    return urlsafe_b64encode(text).rstrip(b"=").decode()


def signed_with_the_public_key_as_secret() -> str:
    hs256 = get_default_algorithms()["HS256"]
    message = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded(claims())}"
    signature = hs256.sign(message.encode(), pem_of(RSA).encode())
    return f"{message}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "token",
    [
        signed_with_the_public_key_as_secret(),
        signed(RSA, "PS256"),
        signed(RSA, "RS512"),
        signed(P256, "ES256"),
        f"{encoded({'alg': 'none'})}.{encoded(claims())}.",
        f"{encoded({'alg': 'RS256 '})}.{encoded(claims())}.{encoded(None)}",
        f"{encoded({'alg': ['RS256']})}.{encoded(claims())}.{encoded(None)}",
        f"{encoded({})}.{encoded(claims())}.{encoded(None)}",
    ],
    ids=["hs256-by-pem", "ps256", "rs512", "es256", "none", "almost", "list", "absent"],
)
async def test_a_token_of_another_algorithm_than_its_keys_is_refused(token: str) -> None:
    verifier = verifier_of(public_key=pem_of(RSA))

    reason = await refusal(verifier, token)

    assert reason == "the token's alg is not its key's: RS256"


async def test_a_token_signed_by_the_secret_with_another_hash_is_refused() -> None:
    verifier = verifier_of(secret=SECRET * 2)

    reason = await refusal(verifier, signed(SECRET * 2, "HS512"))

    assert reason == "the token's alg is not its key's: HS256"


# Claims.


async def test_the_time_when_a_token_expired_is_said() -> None:
    reason = await refusal_of(exp=1_700_000_000)

    assert reason == "the token expired at 2023-11-14T22:13:20Z"


async def test_a_token_that_expired_a_moment_ago_is_refused() -> None:
    reason = await refusal_of(exp=time() - 1)

    assert reason.startswith("the token expired at ")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": None}, "the token's claims are malformed: exp: is missing"),
        ({"nbf": 2_000_000_000}, "the token is not valid before 2033-05-18T03:33:20Z"),
        ({"iat": 2_000_000_000}, "the token is issued in the future, at 2033-05-18T03:33:20Z"),
        ({"iss": "https://other.example"}, "the token's iss is not https://issuer.example"),
        ({"iss": None}, "the token's iss is not https://issuer.example"),
        ({"aud": "other"}, "the token's aud is not notifier"),
        ({"aud": "notifiers"}, "the token's aud is not notifier"),
        ({"aud": ["other", "notifiers"]}, "the token's aud is not notifier"),
        ({"aud": None}, "the token's aud is not notifier"),
        ({"aud": []}, "the token's aud is not notifier"),
        ({"sub": None}, "the token's sub is not a user id that notifier can carry"),
        ({"sub": "a b"}, "the token's sub is not a user id that notifier can carry"),
        ({"sub": ""}, "the token's sub is not a user id that notifier can carry"),
        ({"topics": "news"}, "the token's topics must be a list of at most 100 patterns"),
        ({"topics": ["t"] * 101}, "the token's topics must be a list of at most 100 patterns"),
        ({"topics": [""]}, "a pattern in the token's topics is malformed"),
        ({"topics": ["t" * 129]}, "a pattern in the token's topics is malformed"),
        ({"topics": ["news", 7]}, "a pattern in the token's topics is malformed"),
    ],
)
async def test_a_token_with_an_unfit_claim_is_refused(
    changes: dict[str, object], reason: str
) -> None:
    assert await refusal_of(**changes) == reason


# 253402300800 is the first second of the year 10000, which no date of ours can say.
@pytest.mark.parametrize("moment", ["2000000000", True, -1, 253_402_300_800, 10**400, float("nan")])
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
async def test_a_time_that_is_no_time_is_refused(claim: str, moment: object) -> None:
    reason = await refusal_of(**{claim: moment})

    assert reason.startswith("the token's claims are malformed: ")


async def test_claims_that_are_not_utf8_are_refused() -> None:
    claims = b'{"sub": "\xff", "exp": 2000000000}'

    reason = await refusal(verifier_of(secret=SECRET), jwt.PyJWS().encode(claims, SECRET, "HS256"))

    assert reason.startswith("the token's claims are malformed: ")


@pytest.mark.parametrize("depth", [256, 2_900])
async def test_claims_nested_too_deeply_are_refused(depth: int) -> None:
    verifier = verifier_of(secret=SECRET)
    claims = b'{"sub": "42", "exp": 2000000000, "more": ' + b"[" * depth + b"]" * depth + b"}"

    reason = await refusal(verifier, jwt.PyJWS().encode(claims, SECRET, "HS256"))

    assert reason.startswith("the token's claims are malformed: JSON is nested too deeply")


async def test_an_issuers_clock_may_be_a_little_ahead() -> None:
    verifier = verifier_of(secret=SECRET)

    identity = await verifier.verify(signed(SECRET, "HS256", iat=time() + 5, nbf=time() + 5))

    assert identity.user == "42"


async def test_one_of_several_audiences_is_enough() -> None:
    verifier = verifier_of(secret=SECRET, audience="notifier")

    identity = await verifier.verify(signed(SECRET, "HS256", aud=["other", "notifier"]))

    assert identity.user == "42"


async def test_an_issuer_and_an_audience_that_are_not_asked_for_are_not_checked() -> None:
    verifier = verifier_of(secret=SECRET)

    identity = await verifier.verify(signed(SECRET, "HS256", iss="anyone", aud="anything"))

    assert identity.user == "42"


# Anything can be sent for a token.


async def test_a_token_is_bounded_before_it_is_read() -> None:
    verifier = verifier_of(secret=SECRET)

    reason = await refusal(verifier, "x" * (LONGEST_TOKEN + 1))

    assert reason == "the token is longer than 8192 bytes"


async def test_a_token_as_long_as_the_bound_is_read() -> None:
    verifier = verifier_of(secret=SECRET)

    reason = await refusal(verifier, "x" * LONGEST_TOKEN)

    assert reason == "the token is not a signed JWT: header.payload.signature"


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b", "a.b.c.d", "é.é.é", "\ud800.\ud800.\ud800"]
)
async def test_what_is_not_three_encoded_parts_is_refused(token: str) -> None:
    verifier = verifier_of(secret=SECRET)

    reason = await refusal(verifier, token)

    assert reason == "the token is not a signed JWT: header.payload.signature"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "HS256", "b64": False},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
        {"alg": "HS256", "kid": 7},
    ],
)
@pytest.mark.parametrize("payload", ["", encoded(claims())], ids=["empty", "claims"])
async def test_a_header_that_asks_for_more_than_a_signature_is_refused(
    header: dict[str, object], payload: str
) -> None:
    verifier = verifier_of(secret=SECRET)

    reason = await refusal(verifier, f"{encoded(header)}.{payload}.{encoded(None)}")

    assert reason.startswith(("the token is not a signed JWT", "the token's header asks for"))


PARTS = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda raw: urlsafe_b64encode(raw).decode()),
    st.dictionaries(
        st.sampled_from(["alg", "kid", "crit", "b64", "typ"]),
        st.one_of(
            st.none(), st.booleans(), st.sampled_from(["HS256", "none"]), st.lists(st.text())
        ),
    ).map(encoded),
)


@settings(deadline=None)  # a busy machine is no failure
@given(parts=st.lists(PARTS, max_size=4))
async def test_whatever_is_sent_for_a_token_is_refused_and_not_repeated(parts: list[str]) -> None:
    verifier = verifier_of(secret=SECRET)

    reason = await refusal(verifier, ".".join(parts))

    assert reason in {
        "the token is not a signed JWT: header.payload.signature",
        "the token's alg is not its key's: HS256",
        "the token's header asks for what is not supported",
        "the token's signature is not by a key that is known here",
    }


# The issuer's keys.


class Issuer:
    """An HTTP server on loopback that answers every request with a key set."""

    def __init__(self) -> None:
        self.keys: list[object] = []
        self.requests = 0
        self.request = b""
        self.status = "200 OK"
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self.asked = asyncio.Event()
        self.answering = asyncio.Event()
        self.answering.set()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.request = await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            self.asked.set()
            await self.answering.wait()
            writer.write(self._response())
            await writer.drain()
        finally:
            writer.close()

    def _response(self) -> bytes:
        body = key_set(self.keys) if self.body is None else self.body
        headers = {"Content-Length": str(len(body)), "Connection": "close", **self.headers}
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {headers[name]}" for name in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + body

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
            yield


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    async with issuer.serving():
        yield issuer


def verifier_for(issuer: Issuer, pacing: Pacing = UNHURRIED) -> JwtVerifier:
    return JwtVerifier(IssuerKeys(issuer.url, pacing), issuer=None, audience=None)


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


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (P256, "ES256"), (P384, "ES384"), (ED25519, "EdDSA")],
)
async def test_a_key_without_alg_is_for_the_usual_algorithm_of_its_kind(
    issuer: Issuer, key: AllowedPrivateKeys, algorithm: str
) -> None:
    issuer.keys = [jwk_of(key, "a")]

    async with verifier_for(issuer) as verifier:
        identity = await verifier.verify(signed(key, algorithm, "a"))

    assert identity.user == "42"


async def test_a_key_with_alg_is_for_that_algorithm_only(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(RSA, "a", alg="PS256", use="sig")]

    async with verifier_for(issuer) as verifier:
        identity = await verifier.verify(signed(RSA, "PS256", "a"))
        reason = await refusal(verifier, signed(RSA, "RS256", "a"))

    assert identity.user == "42"
    assert reason == "the token's alg is not its key's: PS256"


async def test_a_token_needs_the_key_of_its_kid(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(RSA, "a"), jwk_of(P256, "b")]

    async with verifier_for(issuer, EAGER) as verifier:
        reasons = [
            await refusal(verifier, signed(RSA, "RS256", "b")),
            await refusal(verifier, signed(RSA, "RS256", "c")),
            await refusal(verifier, signed(RSA, "RS256")),
        ]

    assert reasons == [
        "the token's alg is not its key's: ES256",
        "the token's kid is none of the issuer's",
        "the token's kid is none of the issuer's",
    ]


async def test_a_token_without_kid_is_verified_by_a_key_without_kid(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(RSA, "a"), jwk_of(P256)]

    async with verifier_for(issuer) as verifier:
        identity = await verifier.verify(signed(P256, "ES256"))

    assert identity.user == "42"


def oct_jwk(kid: str) -> dict[str, object]:
    return {"kty": "oct", "kid": kid, "k": urlsafe_b64encode(SECRET.encode()).decode()}


def private_jwk(kid: str) -> dict[str, object]:
    return {**get_default_algorithms()["EdDSA"].to_jwk(ED25519, as_dict=True), "kid": kid}


@pytest.mark.parametrize(
    ("jwk", "token"),
    [
        (jwk_of(RSA, "a", use="enc"), signed(RSA, "RS256", "a")),
        (jwk_of(RSA, "a", alg="RSA-OAEP"), signed(RSA, "RS256", "a")),
        (jwk_of(RSA, "a", alg="HS256"), signed(RSA, "RS256", "a")),
        (jwk_of(RSA, "a", alg="none"), signed(RSA, "RS256", "a")),
        (jwk_of(RSA, "a", alg=["RS256"]), signed(RSA, "RS256", "a")),
        (jwk_of(RSA, "a", n=7), signed(RSA, "RS256", "a")),
        (jwk_of(RSA, "a", kty="EC"), signed(RSA, "RS256", "a")),
        (jwk_of(P256, "a", alg="ES384"), signed(P256, "ES256", "a")),
        (private_jwk("a"), signed(ED25519, "EdDSA", "a")),
        (oct_jwk("a"), signed(SECRET, "HS256", "a")),
        ({**oct_jwk("a"), "alg": "HS256"}, signed(SECRET, "HS256", "a")),
        ({}, signed(RSA, "RS256", "a")),
    ],
)
async def test_a_key_that_is_not_for_verifying_signatures_is_passed_over(
    issuer: Issuer, jwk: dict[str, object], token: str
) -> None:
    issuer.keys = [jwk, jwk_of(P384, "good")]

    async with verifier_for(issuer, EAGER) as verifier:
        reason = await refusal(verifier, token)
        identity = await verifier.verify(signed(P384, "ES384", "good"))

    assert reason == "the token's kid is none of the issuer's"
    assert identity.user == "42"


async def test_the_keys_are_fetched_once_and_kept(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]

    async with verifier_for(issuer, EAGER) as verifier:
        for _ in range(5):
            await verifier.verify(signed(P256, "ES256", "a"))

    assert issuer.requests == 1


@pytest.mark.parametrize(
    ("pacing", "cache_control", "requests"),
    [
        (Pacing(pause=0, usual=0), None, 2),
        (Pacing(pause=0, usual=0), "public, max-age=600", 1),
        (Pacing(pause=0, usual=0), "max-age=0", 1),
        (Pacing(pause=0, least=0), "max-age=0", 2),
        (Pacing(pause=0, least=0), "no-store", 1),
        (Pacing(pause=0, least=0, most=0), "max-age=999999999", 2),
    ],
)
async def test_keys_stay_fresh_as_long_as_the_issuer_says_within_bounds(
    issuer: Issuer, pacing: Pacing, cache_control: str | None, requests: int
) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    issuer.headers = {"Cache-Control": cache_control} if cache_control else {}

    async with verifier_for(issuer, pacing) as verifier:
        await verifier.verify(signed(P256, "ES256", "a"))

    assert issuer.requests == requests


async def test_a_token_of_a_new_key_is_verified_after_a_rotation(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "old")]

    async with verifier_for(issuer, EAGER) as verifier:
        issuer.keys = [jwk_of(RSA, "new")]
        identity = await verifier.verify(signed(RSA, "RS256", "new"))
        reason = await refusal(verifier, signed(P256, "ES256", "old"))

    assert identity.user == "42"
    assert reason == "the token's kid is none of the issuer's"


async def test_invented_kids_do_not_make_us_hammer_the_issuer(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]

    async with verifier_for(issuer) as verifier:
        for number in range(20):
            with pytest.raises(Unavailable):
                await verifier.verify(signed(P256, "ES256", f"invented-{number}"))

    assert issuer.requests == 1


async def test_the_outcome_of_each_fetch_is_told(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(ED25519, "a")]
    heard: list[str] = []
    keys = IssuerKeys(issuer.url, Pacing(pause=0), on_fetch=heard.append)
    await keys.candidates("a")
    issuer.status = "500 Internal Server Error"

    with pytest.raises(Unavailable):
        await keys.candidates("b")

    await keys.close()
    assert heard == ["fetched", "failed"]


async def test_a_new_kid_cannot_be_judged_between_two_fetches(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]

    async with verifier_for(issuer) as verifier:
        issuer.keys = [jwk_of(RSA, "new")]
        with pytest.raises(Unavailable, match="issuer is unavailable: its keys were fetched a mo"):
            await verifier.verify(signed(RSA, "RS256", "new"))


async def test_a_kid_that_a_fetch_did_not_bring_is_judged_until_the_next_one(
    issuer: Issuer,
) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    verifier = verifier_for(issuer)

    reasons = [await refusal(verifier, signed(RSA, "RS256", "none")) for _ in range(3)]
    await verifier.__aexit__()

    assert reasons == ["the token's kid is none of the issuer's"] * 3
    assert issuer.requests == 1


async def test_a_token_verified_once_is_known(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    token = signed(P256, "ES256", "a")

    async with verifier_for(issuer) as verifier:
        first = await verifier.verify(token)
        again = await verifier.verify(token)
        other = await verifier.verify(signed(P256, "ES256", "a", sub="43"))

    assert again is first
    assert other.user == "43"


async def test_a_token_is_known_no_longer_once_a_fetch_has_not_brought_its_key(
    issuer: Issuer,
) -> None:
    issuer.keys = [jwk_of(P256, "old")]
    token = signed(P256, "ES256", "old")

    async with verifier_for(issuer, EAGER) as verifier:
        await verifier.verify(token)
        issuer.keys = [jwk_of(RSA, "new")]
        await verifier.verify(signed(RSA, "RS256", "new"))  # for which the keys are fetched
        reason = await refusal(verifier, token)

    assert reason == "the token's kid is none of the issuer's"


async def test_a_token_of_a_key_that_was_withdrawn_is_known_no_longer(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "old")]
    token = signed(P256, "ES256", "old")

    async with verifier_for(issuer, FORGETFUL) as verifier:
        await verifier.verify(token)
        issuer.keys = [jwk_of(RSA, "new")]
        reason = await refusal(verifier, token)

    assert reason == "the token's kid is none of the issuer's"


async def test_a_token_is_not_known_by_keys_that_came_while_it_was_verified(
    issuer: Issuer,
) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    token = signed(P256, "ES256", "a")

    async with verifier_for(issuer, FORGETFUL) as verifier:
        await asyncio.gather(*(verifier.verify(token) for _ in range(5)))
        issuer.keys = [jwk_of(P384, "a")]
        reasons = await asyncio.gather(*(refusal(verifier, token) for _ in range(5)))

    assert set(reasons) == {"the token's alg is not its key's: ES384"}


async def test_a_known_token_ends_when_it_expires(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]

    async with verifier_for(issuer) as verifier:
        await verifier.verify(signed(P256, "ES256", "a"))  # has fetched the keys
        token = signed(P256, "ES256", "a", exp=time() + 1)
        known = await verifier.verify(token)
        await asyncio.sleep(known.expires - time())
        reason = await refusal(verifier, token)

    assert reason.startswith("the token expired at")


async def test_all_who_wait_for_keys_share_one_fetch(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    verifier = verifier_for(issuer, EAGER)
    tokens = [signed(P256, "ES256", "a", sub=str(user)) for user in range(10)]

    identities = await asyncio.gather(*map(verifier.verify, tokens))
    await verifier.__aexit__()

    assert [identity.user for identity in identities] == [str(user) for user in range(10)]
    assert issuer.requests == 1


async def test_one_who_gives_up_waiting_does_not_take_the_fetch_from_the_others(
    issuer: Issuer,
) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    issuer.answering.clear()
    verifier = verifier_for(issuer)
    first, second = (
        asyncio.create_task(verifier.verify(signed(P256, "ES256", "a"))) for _ in range(2)
    )
    await issuer.asked.wait()

    first.cancel()
    await asyncio.wait({first})
    issuer.answering.set()
    identity = await second
    await verifier.__aexit__()

    assert first.cancelled()
    assert identity.user == "42"
    assert issuer.requests == 1


async def test_leaving_ends_a_fetch_under_way(issuer: Issuer) -> None:
    issuer.answering.clear()
    verifier = verifier_for(issuer)
    entering = asyncio.create_task(verifier.__aenter__())
    await issuer.asked.wait()

    await verifier.__aexit__()
    await asyncio.wait({entering})
    issuer.answering.set()

    assert entering.cancelled()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "issuer keys"]


# The issuer is away.


async def test_the_keys_at_hand_serve_on_while_the_issuer_is_away(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]

    async with verifier_for(issuer, FORGETFUL) as verifier:
        issuer.status = "500 Internal Server Error"
        with capture_logs() as logs:
            identity = await verifier.verify(signed(P256, "ES256", "a"))
        trouble = verifier.trouble

    assert identity.user == "42"
    assert trouble is None
    assert logs == [
        {
            "event": "issuer_keys_not_fetched",
            "log_level": "warning",
            "reason": "it answered 500",
            "held": 1,
        }
    ]


async def test_a_failed_fetch_is_not_logged_as_the_callers_doing(issuer: Issuer) -> None:
    issuer.status = "500 Internal Server Error"

    with capture_logs(processors=[merge_contextvars]) as logs, bound_contextvars(user="7"):
        async with verifier_for(issuer):
            pass

    assert [sorted(line) for line in logs] == [["event", "held", "log_level", "reason"]]


async def test_a_new_kid_cannot_be_judged_while_the_issuer_is_away(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]

    async with verifier_for(issuer, EAGER) as verifier:
        issuer.status = "503 Service Unavailable"
        with pytest.raises(Unavailable, match="issuer is unavailable: it answered 503"):
            await verifier.verify(signed(RSA, "RS256", "new"))


async def test_no_token_can_be_judged_before_there_are_keys() -> None:
    issuer = Issuer()
    async with issuer.serving():
        pass  # now nobody listens at its address

    async with verifier_for(issuer) as verifier:
        trouble = verifier.trouble
        with pytest.raises(Unavailable) as unavailable:
            await verifier.verify(signed(P256, "ES256", "a"))

    assert trouble == "the token issuer's keys are missing: All connection attempts failed"
    assert unavailable.value.backend == "issuer"


async def test_an_issuer_that_does_not_answer_is_not_waited_for(issuer: Issuer) -> None:
    issuer.answering.clear()

    async with verifier_for(issuer, Pacing(timeout=0.05)) as verifier:
        trouble = verifier.trouble
    issuer.answering.set()

    assert trouble == "the token issuer's keys are missing: it did not answer in time"


async def test_an_issuer_that_was_never_there_is_asked_once_in_a_while_only(issuer: Issuer) -> None:
    issuer.status = "500 Internal Server Error"

    async with verifier_for(issuer) as verifier:
        for _ in range(5):
            with pytest.raises(Unavailable):
                await verifier.verify(signed(P256, "ES256", "a"))

    assert issuer.requests == 1


async def test_asking_for_the_trouble_ends_it_once_the_issuer_is_back(issuer: Issuer) -> None:
    issuer.status = "500 Internal Server Error"

    async with verifier_for(issuer, EAGER) as verifier:
        issuer.keys = [jwk_of(P256, "a")]
        issuer.status = "200 OK"
        issuer.asked.clear()
        before = verifier.trouble
        await issuer.asked.wait()
        await verifier.verify(signed(P256, "ES256", "a"))
        after = verifier.trouble

    assert before == "the token issuer's keys are missing: it answered 500"
    assert after is None
    assert issuer.requests == 2


def key_set(keys: Sequence[object], padding: int = 0) -> bytes:
    return json.dumps({"keys": keys}).encode() + b" " * padding


def redirects(issuer: Issuer) -> None:
    issuer.status = "302 Found"
    issuer.headers = {"Location": issuer.url}


def compresses(issuer: Issuer) -> None:
    issuer.body = gzip.compress(key_set(issuer.keys))
    issuer.headers = {"Content-Encoding": "gzip"}


def answers(body: bytes) -> Callable[[Issuer], None]:
    def spoil(issuer: Issuer) -> None:
        issuer.body = body

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (redirects, "it answered 302"),
        (answers(key_set([jwk_of(P256, "a")], LARGEST_KEY_SET)), "larger than 262144 bytes"),
        (
            answers(key_set([jwk_of(P256, "a")] * (MOST_KEYS + 1))),
            "keys: must be a list of at most 100 keys",
        ),
        (answers(key_set([])), "holds no public key"),
        (answers(key_set([oct_jwk("a")])), "holds no public key"),
        (compresses, "malformed"),
        (answers(b"<html>"), "malformed"),
        (answers(b"\xff"), "malformed"),
        (answers(b'{"keys":[{"n":' + b"[" * 100_000), "JSON is nested too deeply"),
        (answers(b"{}"), "keys: is missing"),
    ],
    ids=["redirect", "large", "many", "empty", "oct", "gzip", "html", "bytes", "deep", "no-keys"],
)
async def test_an_answer_that_is_no_key_set_is_no_answer(
    issuer: Issuer, spoil: Callable[[Issuer], None], reason: str
) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    spoil(issuer)

    async with verifier_for(issuer) as verifier:
        with pytest.raises(Unavailable, match=reason):
            await verifier.verify(signed(P256, "ES256", "a"))

    assert issuer.requests == 1


async def test_the_issuer_is_asked_not_to_compress(issuer: Issuer) -> None:
    async with verifier_for(issuer):
        pass

    assert b"accept-encoding: identity\r\n" in issuer.request.lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks",
        "http://127.0.0.1.issuer.example/jwks",
        "http://localhost@issuer.example/jwks",
        "ftp://127.0.0.1/jwks",
        "file:///etc/passwd",
        "https://",
        "https://issuer.example:port",
        "jwks",
        "",
    ],
)
def test_keys_are_only_fetched_by_https_or_from_this_machine(url: str) -> None:
    with pytest.raises(ValueError, match="the key set's"):
        verifier_of(jwks_url=url)


async def test_an_issuer_is_named_by_its_url(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]

    async with verifier_of(jwks_url=issuer.url) as verifier:
        identity = await verifier.verify(signed(P256, "ES256", "a"))

    assert identity.user == "42"


@pytest.mark.parametrize("issuer_has", ["public", "private"])
async def test_a_private_authority_is_trusted_beside_the_public_ones(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, issuer_has: str
) -> None:
    issuer.keys = [jwk_of(ED25519, "a")]
    files = {name: tmp_path / f"{name}.pem" for name in ("public", "private")}
    port = httpx.URL(issuer.url).port or 0
    async with (
        tls_in_front_of(port, files["public"]) as public,
        tls_in_front_of(port, files["private"]) as private,
    ):
        monkeypatch.setattr("certifi.where", lambda: str(files["public"]))
        monkeypatch.setenv("SSL_CERT_FILE", str(files["private"]))
        at = {"public": public, "private": private}[issuer_has]

        keys = IssuerKeys(f"https://127.0.0.1:{at}/", EAGER)

        assert await keys.candidates("a")
