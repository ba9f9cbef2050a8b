"""PyJWT is the oracle: it takes tokens apart too, and judges their signatures here."""

from base64 import urlsafe_b64encode

import jwt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jwt.algorithms import HMACAlgorithm

from notifier.adapters.tokens.jws import Jws, parse
from notifier.core.errors import Unauthorized

SECRET = b"0123456789abcdef0123456789abcdef"
HS256 = HMACAlgorithm(HMACAlgorithm.SHA256)


def accepted_by_pyjwt(token: str) -> bytes | None:
    try:
        return bytes(jwt.PyJWS(algorithms=["HS256"]).decode(token, SECRET, ["HS256"]))
    except jwt.InvalidTokenError:
        return None


def accepted_here(token: str) -> bytes | None:
    try:
        jws = parse(token)
    except Unauthorized:
        return None
    verified = jws.alg == "HS256" and HS256.verify(jws.message, SECRET, jws.signature)
    return jws.payload if verified else None


def encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: str, payload: str) -> str:
    message = f"{header}.{payload}"
    return f"{message}.{encoded(HS256.sign(message.encode(), SECRET))}"


HEADERS = st.sampled_from(
    [
        b'{"alg":"HS256"}',
        b' {"typ":"JWT" , "alg":"HS256"}\n',
        b'{"alg":"none","alg":"HS256"}',
        b'{"alg":"HS256","alg":"none"}',
        b'{"alg":"HS256","kid":"k"}',
        b'{"alg":"HS256","kid":7}',
        b'{"alg":"HS256","kid":null}',
        b'{"alg":"HS256","x":"\xff"}',
        b'{"alg":"HS256","b64":true}',
        b'{"alg":"HS256","b64":false}',
        b'{"alg":"HS256","crit":[]}',
        b'{"alg":"HS256","crit":["exp"],"exp":1}',
        b'{"alg":["HS256"]}',
        b'{"alg":"HS512"}',
        b"[]",
        b"{}",
        b"",
        b"\xff",
    ]
).map(encoded)
SEGMENTS = st.one_of(st.binary(max_size=12).map(encoded), st.text("AZaz09-_=+/ .\né", max_size=8))
PADDING = st.sampled_from(["", "=", "==", "===", "===="])


@settings(max_examples=400, deadline=None)  # a busy machine is no failure
@given(header=HEADERS, payload=SEGMENTS, more=st.tuples(PADDING, PADDING, PADDING))
@example(header=encoded(b'{"alg":"HS256"}'), payload="AB", more=("", "", ""))  # stray bits
@example(header=encoded(b'{"alg":"HS256"}'), payload="AA", more=("", "==", ""))
@example(header=encoded(b'{"alg":"HS256"}'), payload="AAAA", more=("", "====", ""))
def test_a_signed_token_is_taken_as_the_library_takes_it(
    header: str, payload: str, more: tuple[str, str, str]
) -> None:
    token = signed(header + more[0], payload + more[1]) + more[2]

    assert accepted_here(token) == accepted_by_pyjwt(token)


@settings(max_examples=400, deadline=None)
@given(at=st.integers(0, 90), cut=st.integers(0, 3), put=st.text("A.-_=+ é\n", max_size=3))
def test_a_damaged_token_is_taken_as_the_library_takes_it(at: int, cut: int, put: str) -> None:
    whole = signed(encoded(b'{"alg":"HS256"}'), encoded(b'{"sub":"42"}'))
    token = whole[:at] + put + whole[at + cut :]

    assert accepted_here(token) == accepted_by_pyjwt(token)


@pytest.mark.parametrize("header", [b'{"crit":["b64"],"b64":true}', b'{"crit":null}'])
def test_whatever_is_critical_is_refused(header: bytes) -> None:
    with pytest.raises(Unauthorized, match="asks for what is not supported"):
        parse(f"{encoded(header)}.{encoded(b'{}')}.{encoded(b's')}")


def test_a_token_comes_apart() -> None:
    header, payload = encoded(b'{"alg":"ES256","kid":"k1"}'), encoded(b'{"sub":"42"}')

    assert parse(f"{header}.{payload}.{encoded(b'signature')}") == Jws(
        alg="ES256",
        kid="k1",
        message=f"{header}.{payload}".encode(),
        payload=b'{"sub":"42"}',
        signature=b"signature",
    )


@pytest.mark.parametrize("depth", [256, 2_900])
def test_a_header_nested_too_deeply_is_refused(depth: int) -> None:
    header = b'{"alg":"HS256","x":' + b"[" * depth + b"]" * depth + b"}"

    with pytest.raises(Unauthorized):
        parse(signed(encoded(header), encoded(b"{}")))
