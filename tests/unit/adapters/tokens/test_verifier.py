import json
import re
from time import time
from typing import Any

import jwt
import pytest

from notifier.adapters.tokens.verifier import ClaimRules
from notifier.core.access import Identity
from notifier.core.errors import TokenExpired, Unauthorized
from tests.support.tokens import (
    FOR_US,
    SECRET,
    SOON,
    refusal,
    signed,
    verifier_of,
)


async def refusal_of(**changes: object) -> str:
    verifier = verifier_of(secret=SECRET, names=["https://issuer.example"], rules=FOR_US)
    named: dict[str, Any] = {"iss": "https://issuer.example", "aud": "notifier", **changes}
    return await refusal(verifier, signed(SECRET, "HS256", **named))


# Claims.


async def test_the_time_when_a_token_expired_is_said() -> None:
    reason = await refusal_of(exp=1_700_000_000)

    assert reason == "the token expired at 2023-11-14T22:13:20Z (exp)"


async def test_a_token_that_expired_a_moment_ago_is_refused() -> None:
    reason = await refusal_of(exp=time() - 1)

    assert reason.startswith("the token expired at ")


MALFORMED = "the token's claims are malformed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": None}, f"{MALFORMED}: exp: is missing"),
        (
            {"exp": 2_000_000_000_000},  # milliseconds
            f"{MALFORMED}: exp: must be a number of seconds since 1970 (NumericDate)",
        ),
        ({"nbf": 2_000_000_000}, "the token is not valid before 2033-05-18T03:33:20Z (nbf)"),
        (
            {"iat": 2_000_000_000},
            "the token is issued in the future, at 2033-05-18T03:33:20Z (iat)",
        ),
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


@pytest.mark.parametrize(("iat", "issued"), [(None, 0), (1_700_000_000, 1_700_000_000), (99.9, 99)])
async def test_the_second_in_which_a_token_was_issued_is_known(
    iat: float | None, issued: int
) -> None:
    verifier = verifier_of(secret=SECRET)

    assert (await verifier.verify(signed(SECRET, "HS256", iat=iat))).issued == issued


# 253402300800 is the first second of the year 10000, which no date of ours can say.
@pytest.mark.parametrize("moment", ["2000000000", True, -1, 253_402_300_800, 10**400, float("nan")])
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
async def test_a_time_that_is_no_time_is_refused(claim: str, moment: object) -> None:
    reason = await refusal_of(**{claim: moment})

    assert reason.startswith("the token's claims are malformed: ")


_ODD = ["-1", "-1e400", "1e400", "9" * 400, "1.5e300", '"x"', '""', "[]", "[null]", "{}", "true"]
_CLAIMS = ("exp", "nbf", "iat", "sub", "aud", "iss", "topics", "publish", "presence")
_GOOD = {("sub", "-1"), ("sub", '"x"'), *((name, "[]") for name in _CLAIMS[-3:])}


@pytest.mark.parametrize(
    ("claim", "value"),
    [(name, value) for name in _CLAIMS for value in _ODD if (name, value) not in _GOOD],
)
async def test_a_claim_of_another_kind_is_refused_by_its_name(claim: str, value: str) -> None:
    verifier = verifier_of(secret=SECRET, names=["https://issuer.example"], rules=FOR_US)

    assert re.search(rf"\b{claim}\b", await refusal(verifier, token_with(claim, value)))


@pytest.mark.parametrize("claim", ["nbf", "iat", "topics", "publish", "presence", "jti"])
async def test_a_claim_of_null_counts_as_left_out(claim: str) -> None:
    identity = await verifier_of(secret=SECRET).verify(token_with(claim, "null"))

    assert identity == Identity("42", SOON)


@pytest.mark.parametrize("claim", ["exp", "sub", "aud", "iss"])
async def test_a_claim_that_is_needed_may_not_be_null(claim: str) -> None:
    verifier = verifier_of(secret=SECRET, names=["https://issuer.example"], rules=FOR_US)

    assert re.search(rf"\b{claim}\b", await refusal(verifier, token_with(claim, "null")))


def token_with(claim: str, value: str) -> str:
    """Sign a token with a claim of any JSON."""
    others = {"sub": "42", "exp": SOON, "iss": "https://issuer.example", "aud": "notifier"}
    members = {name: json.dumps(each) for name, each in others.items()} | {claim: value}
    text = ",".join(f'"{name}":{each}' for name, each in members.items())
    return jwt.PyJWS().encode(f"{{{text}}}".encode(), SECRET, "HS256")


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
    verifier = verifier_of(secret=SECRET, rules=FOR_US)

    identity = await verifier.verify(signed(SECRET, "HS256", aud=["other", "notifier"]))

    assert identity.user == "42"


async def test_an_issuer_and_an_audience_that_are_not_asked_for_are_not_checked() -> None:
    verifier = verifier_of(secret=SECRET)

    identity = await verifier.verify(signed(SECRET, "HS256", iss="anyone", aud="anything"))

    assert identity.user == "42"


# Claims of other names.


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("uid", {"uid": "7"}),
        ("https://app.example/uid", {"https://app.example/uid": "7"}),
        ("app_metadata.uid", {"app_metadata": {"uid": "7"}}),
        ("https://app.example/claims.uid", {"https://app.example/claims": {"uid": "7"}}),
        ("a.b.c", {"a": {"b": {"c": "7"}}}),
        ("a.b", {"a.b": "7", "a": {"b": "8"}}),
    ],
)
async def test_the_user_id_may_be_in_another_claim(name: str, member: dict[str, Any]) -> None:
    verifier = verifier_of(secret=SECRET, rules=ClaimRules(user_claim=name))

    identity = await verifier.verify(signed(SECRET, "HS256", None, **member))

    assert identity.user == "7"


@pytest.mark.parametrize("member", [{}, {"uid": None}, {"uid": {"id": "7"}}, {"uid": ["7"]}])
async def test_a_token_without_the_claim_of_its_user_is_refused(member: dict[str, Any]) -> None:
    verifier = verifier_of(secret=SECRET, rules=ClaimRules(user_claim="uid"))

    reason = await refusal(verifier, signed(SECRET, "HS256", None, **member))

    assert reason == "the token's uid is not a user id that notifier can carry"


async def test_topics_may_be_in_another_claim() -> None:
    name = "https://app.example/topics"
    verifier = verifier_of(secret=SECRET, rules=ClaimRules(topics_claim=name))

    good, bad = ({"topics": ["no"], name: topics} for topics in (["news"], "news"))
    identity = await verifier.verify(signed(SECRET, "HS256", None, **good))
    reason = await refusal(verifier, signed(SECRET, "HS256", None, **bad))

    assert identity.patterns == ("news",)
    assert reason == f"the token's {name} must be a list of at most 100 patterns"


@pytest.mark.parametrize(("number", "user"), [(42, "42"), (0, "0"), (10**40, "1" + 40 * "0")])
async def test_a_number_identifies_its_user_by_its_digits(number: int, user: str) -> None:
    token = jwt.PyJWS().encode(b'{"exp":%d,"sub":%d}' % (SOON, number), SECRET, "HS256")

    identity = await verifier_of(secret=SECRET).verify(token)

    assert identity.user == user


@pytest.mark.parametrize("sub", [True, 4.5, 1e40, [42], {}])
async def test_a_sub_that_is_neither_text_nor_a_whole_number_is_no_user_id(sub: object) -> None:
    token = jwt.PyJWS().encode(json.dumps({"exp": SOON, "sub": sub}).encode(), SECRET, "HS256")

    reason = await refusal(verifier_of(secret=SECRET), token)

    assert reason == "the token's sub is not a user id that notifier can carry"


# Clocks.


async def test_an_expired_token_is_refused_as_one_that_was_good() -> None:
    verifier = verifier_of(secret=SECRET)

    with pytest.raises(TokenExpired):
        await verifier.verify(signed(SECRET, "HS256", exp=time() - 1))


async def test_a_foreign_token_that_expired_is_refused_for_its_signature() -> None:
    verifier = verifier_of(secret=SECRET)

    with pytest.raises(Unauthorized) as refused:
        await verifier.verify(signed(SECRET + "!", "HS256", exp=time() - 1))

    assert not isinstance(refused.value, TokenExpired)


async def test_an_expired_token_of_another_audience_is_refused_for_that() -> None:
    verifier = verifier_of(secret=SECRET, rules=FOR_US)

    reason = await refusal(verifier, signed(SECRET, "HS256", exp=time() - 1, aud="other"))

    assert reason == "the token's aud is not notifier"


@pytest.mark.parametrize("claim", ["iat", "nbf"])
async def test_a_leeway_is_for_clocks_that_differ(claim: str) -> None:
    early = signed(SECRET, "HS256", None, **{claim: time() + 60})

    identity = await verifier_of(secret=SECRET, rules=ClaimRules(leeway=90)).verify(early)
    reason = await refusal(verifier_of(secret=SECRET, rules=ClaimRules(leeway=0)), early)

    assert identity.user == "42"
    assert reason.startswith("the token is ")


async def test_a_leeway_delays_the_expiry() -> None:
    expired = int(time()) - 60
    verifier = verifier_of(secret=SECRET, rules=ClaimRules(leeway=90))

    identity = await verifier.verify(signed(SECRET, "HS256", exp=expired))

    assert identity.expires == expired + 90


async def test_one_of_several_audiences_of_ours_is_enough() -> None:
    verifier = verifier_of(secret=SECRET, rules=ClaimRules(audiences=["web", "app"]))

    identity = await verifier.verify(signed(SECRET, "HS256", aud="app"))
    reason = await refusal(verifier, signed(SECRET, "HS256", aud="admin"))

    assert identity.user == "42"
    assert reason == "the token's aud is not app or web"


async def test_one_of_several_names_of_an_issuer_is_enough() -> None:
    verifier = verifier_of(secret=SECRET, names=["https://a.example", "https://b.example"])

    identity = await verifier.verify(signed(SECRET, "HS256", iss="https://b.example"))

    assert identity.user == "42"
