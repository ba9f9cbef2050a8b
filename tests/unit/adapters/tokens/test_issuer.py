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
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import AllowedPrivateKeys, get_default_algorithms
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from notifier.adapters.tokens.issuer import LARGEST_ANSWER, FetchIntervals, IssuerKeys
from notifier.adapters.tokens.keys import MOST_KEYS
from notifier.adapters.tokens.signed_token import decoded
from notifier.adapters.tokens.verifier import Issuer as Trusted
from notifier.adapters.tokens.verifier import JwtVerifier
from notifier.core.errors import Unavailable
from tests.support.tls import authorities_read_anew, tls_in_front_of
from tests.support.tokens import (
    ANY,
    EAGER,
    ED25519,
    FORGETFUL,
    P256,
    P384,
    P521,
    RSA,
    SECRET,
    UNHURRIED,
    jwk_of,
    refusal,
    signed,
    signed_as_ed25519,
    verifier_of,
)

# The issuer's keys.


class Issuer:
    """An HTTP server on loopback that has a key set at /jwks, and metadata at all other paths."""

    def __init__(self) -> None:
        self.keys: list[object] = []
        self.requests = 0
        self.request = b""
        self.status = "200 OK"
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self.metadata = b""
        self.asked = asyncio.Event()
        self.answering = asyncio.Event()
        self.answering.set()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.request = await reader.readuntil(b"\r\n\r\n")
            path = self.request.split(b" ", 2)[1]
            self.requests += path == b"/jwks"
            self.asked.set()
            await self.answering.wait()
            writer.write(self._response(path == b"/jwks"))
            await writer.drain()
        finally:
            writer.close()

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/jwks")

    def _response(self, of_keys: bool) -> bytes:  # noqa: FBT001  # one caller
        body = key_set(self.keys) if self.body is None else self.body
        body = body if of_keys else self.metadata
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


def verifier_for(issuer: Issuer, pacing: FetchIntervals = UNHURRIED) -> JwtVerifier:
    return JwtVerifier([Trusted(IssuerKeys(issuer.url, pacing))], ANY)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        *((RSA, f"{kind}{bits}") for kind in ("RS", "PS") for bits in (256, 384, 512)),
        *((P256, "ES256"), (P384, "ES384"), (P521, "ES512"), (ED25519, "EdDSA")),
    ],
)
async def test_a_key_without_alg_is_for_every_algorithm_of_its_kind(
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


@pytest.mark.parametrize("members", [{"use": None, "alg": None}, {"key_ops": ["verify"]}])
async def test_a_member_that_is_null_counts_as_left_out(
    issuer: Issuer, members: dict[str, object]
) -> None:
    issuer.keys = [jwk_of(RSA, "a", **members)]

    async with verifier_for(issuer) as verifier:
        identity = await verifier.verify(signed(RSA, "RS256", "a"))

    assert identity.user == "42"


async def test_a_token_needs_the_key_of_its_kid(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(RSA, "a"), jwk_of(P256, "b")]

    async with verifier_for(issuer, EAGER) as verifier:
        reasons = [
            await refusal(verifier, signed(RSA, "RS256", "b")),
            await refusal(verifier, signed(RSA, "RS256", "c")),
        ]

    assert reasons == [
        "the token's alg is not its key's: ES256",
        "the token's kid is none of the issuer's",
    ]


@pytest.mark.parametrize(
    ("of_key", "of_token"), [("a", None), (None, "a"), (None, None)], ids=["token", "key", "both"]
)
async def test_where_no_kid_tells_each_key_is_tried(
    issuer: Issuer, of_key: str | None, of_token: str | None
) -> None:
    others = [jwk_of(ec.generate_private_key(ec.SECP256R1()), of_key), jwk_of(RSA, "b")]
    issuer.keys = [*others, jwk_of(P256, of_key)]

    async with verifier_for(issuer) as verifier:
        identity = await verifier.verify(signed(P256, "ES256", of_token))

    assert identity.user == "42"
    assert issuer.requests == 1


async def test_a_token_without_kid_is_verified_after_a_rotation(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256)]

    async with verifier_for(issuer, EAGER) as verifier:
        await verifier.verify(signed(P256, "ES256"))
        issuer.keys = [jwk_of(RSA)]
        identity = await verifier.verify(signed(RSA, "RS256"))
        reason = await refusal(verifier, signed(P256, "ES256", sub="43"))

    assert identity.user == "42"
    assert reason.startswith("the token's alg is not its key's")


async def test_a_token_without_kid_of_a_foreign_key_is_refused_once_a_fetch_has_told(
    issuer: Issuer,
) -> None:
    issuer.keys = [jwk_of(P256)]
    foreign = signed(ec.generate_private_key(ec.SECP256R1()), "ES256")

    async with verifier_for(issuer, EAGER) as verifier:
        reason = await refusal(verifier, foreign)
    async with verifier_for(issuer) as unhurried:
        with pytest.raises(Unavailable):
            await unhurried.verify(foreign)

    assert reason == "the token's signature is not by a key that is known here"


async def test_an_ed25519_key_is_known_by_both_names_of_its_algorithm(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(ED25519, "a", alg="Ed25519")]

    async with verifier_for(issuer) as verifier:
        users = [
            (await verifier.verify(signed(ED25519, "EdDSA", "a", sub="1"))).user,
            (await verifier.verify(signed_as_ed25519("a", sub="2"))).user,
        ]

    assert users == ["1", "2"]


def oct_jwk(kid: str) -> dict[str, object]:
    return {"kty": "oct", "kid": kid, "k": urlsafe_b64encode(SECRET.encode()).decode()}


def private_jwk(kid: str) -> dict[str, object]:
    return {**get_default_algorithms()["EdDSA"].to_jwk(ED25519, as_dict=True), "kid": kid}


@pytest.mark.parametrize(
    ("jwk", "token"),
    [
        (jwk_of(RSA, "a", use="enc"), signed(RSA, "RS256", "a")),
        (jwk_of(RSA, "a", key_ops=["encrypt", "wrapKey"]), signed(RSA, "RS256", "a")),
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
        (FetchIntervals(pause=0, usual=0), None, 2),
        (FetchIntervals(pause=0, usual=0), "public, max-age=600", 1),
        (FetchIntervals(pause=0, usual=0), 'Max-Age="600"', 1),
        (FetchIntervals(pause=0, usual=0), "x-max-age=600", 2),
        (FetchIntervals(pause=0, usual=0), "max-age=0", 1),
        (FetchIntervals(pause=0, least=0), "max-age=0", 2),
        (FetchIntervals(pause=0, least=0), "no-store", 1),
        (FetchIntervals(pause=0, least=0, most=0), "max-age=999999999", 2),
    ],
)
async def test_keys_stay_fresh_as_long_as_the_issuer_says_within_bounds(
    issuer: Issuer, pacing: FetchIntervals, cache_control: str | None, requests: int
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
    keys = IssuerKeys(issuer.url, FetchIntervals(pause=0), on_fetch=heard.append)
    await keys.check(decoded(signed(ED25519, "EdDSA", "a")))
    issuer.status = "500 Internal Server Error"

    with pytest.raises(Unavailable):
        await keys.check(decoded(signed(ED25519, "EdDSA", "b")))

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


async def test_all_callers_that_wait_for_keys_share_one_fetch(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    verifier = verifier_for(issuer, EAGER)
    tokens = [signed(P256, "ES256", "a", sub=str(user)) for user in range(10)]

    identities = await asyncio.gather(*map(verifier.verify, tokens))
    await verifier.__aexit__()

    assert [identity.user for identity in identities] == [str(user) for user in range(10)]
    assert issuer.requests == 1


async def test_a_cancelled_caller_does_not_take_the_fetch_from_the_others(
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

    async with verifier_for(issuer, FetchIntervals(timeout=0.05)) as verifier:
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
        (answers(key_set([jwk_of(P256, "a")], LARGEST_ANSWER)), "larger than 262144 bytes"),
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
    with pytest.raises(ValueError, match="the keys"):
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

        with authorities_read_anew():
            keys = IssuerKeys(f"https://127.0.0.1:{at}/jwks", EAGER)

        await keys.check(decoded(signed(ED25519, "EdDSA", "a")))


# Discovery.


def metadata(issuer: Issuer, name: str) -> bytes:
    return json.dumps({"issuer": name, "jwks_uri": issuer.url, "more": {}}).encode()


WELL_KNOWN = "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (WELL_KNOWN, ""),
        (WELL_KNOWN, "/"),
        ("/realms/main" + WELL_KNOWN, "/realms/main"),
        ("/.well-known/oauth-authorization-server/tenant", "/tenant"),
        (WELL_KNOWN + "/tenant", "/tenant"),
        ("/realms/main", "/realms/main"),
        ("", ""),
        ("/", "/"),
    ],
)
async def test_the_keys_of_an_issuer_are_found_by_its_metadata(
    issuer: Issuer, path: str, name: str
) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    its_name = issuer.origin + name
    issuer.metadata = metadata(issuer, its_name)

    async with verifier_of(discovery_urls=[issuer.origin + path]) as verifier:
        identity = await verifier.verify(signed(P256, "ES256", "a", iss=its_name))
        reason = await refusal(verifier, signed(P256, "ES256", "a", iss="https://other.example"))

    assert identity.user == "42"
    assert reason.startswith("the token's iss is not ")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b'{"issuer":"https://other.example","jwks_uri":"https://a/"}', "https://other.example"),
        (b'{"issuer":"https://other.example"}', "jwks_uri: is missing"),
        (b'{"issuer":7,"jwks_uri":"https://a/"}', "issuer: must be a string"),
        (b"<html>", "malformed: not JSON"),
        (b'{"issuer":' + b"[" * 1000, "nested too deeply"),
    ],
    ids=["other", "no-keys", "number", "html", "deep"],
)
async def test_metadata_that_is_not_the_issuers_is_no_answer(
    issuer: Issuer, answer: bytes, reason: str
) -> None:
    issuer.metadata = answer

    async with verifier_of(discovery_urls=[issuer.origin]) as verifier:
        trouble = verifier.trouble

    assert reason in (trouble or "")


async def test_metadata_does_not_lead_to_keys_without_tls(issuer: Issuer) -> None:
    its = {"issuer": issuer.origin, "jwks_uri": "http://issuer.example/keys"}
    issuer.metadata = json.dumps(its).encode()

    async with verifier_of(discovery_urls=[issuer.origin]) as verifier:
        trouble = verifier.trouble

    assert "must begin with https://" in (trouble or "")


async def test_an_issuer_may_be_named_beside_its_discovery_url(issuer: Issuer) -> None:
    issuer.keys = [jwk_of(P256, "a")]
    issuer.metadata = metadata(issuer, "https://sts.example/tenant/")
    kinds: dict[str, Any] = {"discovery_urls": [issuer.origin]}

    async with verifier_of(names=["https://sts.example/tenant/"], **kinds) as verifier:
        token = signed(P256, "ES256", "a", iss="https://sts.example/tenant/")
        identity = await verifier.verify(token)

    assert identity.user == "42"


async def test_each_of_several_issuers_verifies_its_own_tokens_only(issuer: Issuer) -> None:
    other = Issuer()
    async with other.serving():
        for each, key in ((issuer, P256), (other, RSA)):
            each.keys, each.metadata = [jwk_of(key, "a")], metadata(each, each.origin)
        async with verifier_of(discovery_urls=[issuer.origin, other.origin]) as verifier:
            tokens = [
                signed(P256, "ES256", "a", iss=issuer.origin, sub="1"),
                signed(RSA, "RS256", "a", iss=other.origin, sub="2"),
            ]
            users = [(await verifier.verify(token)).user for token in tokens]
            crossed = await refusal(verifier, signed(P256, "ES256", "a", iss=other.origin))
            unknown = await refusal(verifier, signed(P256, "ES256", "a"))

    assert users == ["1", "2"]
    assert crossed.startswith("the token's alg is not its key's")
    assert unknown.startswith("the token's iss is not ")


async def test_one_issuer_that_is_away_does_not_take_the_others_with_it(issuer: Issuer) -> None:
    issuer.keys, issuer.metadata = [jwk_of(P256, "a")], metadata(issuer, issuer.origin)
    away = Issuer()
    async with away.serving():
        pass  # now nobody listens at its address

    async with verifier_of(discovery_urls=[away.origin, issuer.origin]) as verifier:
        trouble = verifier.trouble
        identity = await verifier.verify(signed(P256, "ES256", "a", iss=issuer.origin))
        with pytest.raises(Unavailable):
            await verifier.verify(signed(P256, "ES256", "a", iss=away.origin))

    assert trouble is None
    assert identity.user == "42"


def test_issuers_are_named_for_each_discovery_url_or_for_none() -> None:
    with pytest.raises(ValueError, match="2 discovery URLs and 1 issuers: name one issuer"):
        verifier_of(discovery_urls=["https://a.example", "https://b.example"], names=["a"])
