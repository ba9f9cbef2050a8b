from base64 import urlsafe_b64encode

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.adapters.tokens.signed_token import LONGEST_TOKEN, Jws, SignedToken, decoded
from notifier.core.errors import Unauthorized
from tests.support.tokens import (
    SECRET,
    claims,
    encoded,
    refusal,
    verifier_of,
)

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
async def test_a_token_that_is_not_three_encoded_parts_is_refused(token: str) -> None:
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


@given(parts=st.lists(PARTS, max_size=4))
async def test_any_bytes_in_place_of_a_token_are_refused_and_not_repeated(parts: list[str]) -> None:
    verifier = verifier_of(secret=SECRET)

    reason = await refusal(verifier, ".".join(parts))

    assert reason in {
        "the token is not a signed JWT: header.payload.signature",
        "the token's alg is not its key's: HS256",
        "the token's header asks for an unsupported feature",
        "the token's header asks for an unsupported feature, or has a kid that is no text",
        "the token's signature is not by a key that is known here",
    }


@pytest.mark.parametrize(
    "header", [{"alg": "HS256", "crit": ["b64"], "b64": True}, {"alg": "HS256", "crit": None}]
)
def test_a_header_with_critical_extensions_is_refused(header: dict[str, object]) -> None:
    with pytest.raises(Unauthorized, match="asks for an unsupported feature"):
        decoded(f"{encoded(header)}.{encoded(claims())}.{encoded(None)}")


@pytest.mark.parametrize("kid", [None, 5, ["a"]])
def test_a_kid_that_is_no_text_is_told(kid: object) -> None:
    with pytest.raises(Unauthorized, match="or has a kid that is no text"):
        decoded(f"{encoded({'alg': 'HS256', 'kid': kid})}.{encoded(claims())}.{encoded(None)}")


@pytest.mark.parametrize("part", [b"[" * 4000, b'{"a":' * 1000, b"9" * 5000])
def test_a_header_that_no_json_parser_bears_is_no_token(part: bytes) -> None:
    header = urlsafe_b64encode(part).rstrip(b"=").decode()

    with pytest.raises(Unauthorized, match="not a signed JWT"):
        decoded(f"{header}.{encoded(claims())}.{encoded(None)}")


def test_a_token_is_decoded_into_its_parts() -> None:
    header, payload = encoded({"alg": "ES256", "kid": "k1"}), encoded({"sub": "42"})

    assert decoded(f"{header}.{payload}.{encoded(None)}") == SignedToken(
        alg="ES256",
        kid="k1",
        message=f"{header}.{payload}".encode(),
        payload=b'{"sub": "42"}',
        signature=b"signature",
    )


# The check of base64url is ours; PyJWT's is the measure of it.

SEGMENTS = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(urlsafe_b64encode),
    st.text("AZaz09+/-_= !", max_size=12).map(str.encode),
    st.binary(max_size=40).map(lambda raw: urlsafe_b64encode(raw).rstrip(b"=")),
)


def data_of(decoder: type[jwt.PyJWS], segment: bytes) -> bytes | None:
    try:
        return decoder._decode_base64url_segment(segment, "part")  # noqa: SLF001 - replaced
    except jwt.DecodeError:
        return None


@given(segment=SEGMENTS)
@example(b"")
@example(b"YQ")  # "a"
@example(b"YR")  # with a surplus bit
@example(b"YQ==")
@example(b"YQ=")
@example(b"YWJj====")
@example(b"=YQ=")
@example(b"Y Q")
@example(b"++//")
def test_base64url_is_taken_and_refused_as_pyjwt_does(segment: bytes) -> None:
    assert data_of(Jws, segment) == data_of(jwt.PyJWS, segment)


def test_a_header_that_tokens_share_says_nothing_of_their_other_parts() -> None:
    header = encoded({"alg": "HS256", "kid": "shared"})
    one, other = (f"{header}.{encoded({'sub': sub})}" for sub in ("one", "other"))

    assert decoded(f"{one}.{encoded(None)}").payload == b'{"sub": "one"}'
    assert decoded(f"{other}.").signature == b""
    with pytest.raises(Unauthorized, match="not a signed JWT"):
        decoded(f"{header}.!.{encoded(None)}")
    assert decoded(f"{other}.{encoded(None)}").payload == b'{"sub": "other"}'


def test_a_refused_header_is_refused_each_time() -> None:
    token = f"{encoded({'alg': 'HS256', 'crit': ['exp']})}.{encoded(claims())}.{encoded(None)}"

    for _ in range(2):
        with pytest.raises(Unauthorized, match="asks for an unsupported feature"):
            decoded(token)


def test_pyjwt_still_decodes_each_part_by_the_method_that_is_replaced() -> None:
    """A canary: a release that decodes elsewhere would check each character again."""
    names: list[str] = []

    class Seen(jwt.PyJWS):
        @staticmethod
        def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
            names.append(name)
            return super(Seen, Seen)._decode_base64url_segment(segment, name)

    token = f"{encoded({'alg': 'HS256'})}.{encoded(claims())}.{encoded(None)}"
    Seen().decode_complete(token, options={"verify_signature": False})

    assert names == ["header", "payload", "crypto"]
