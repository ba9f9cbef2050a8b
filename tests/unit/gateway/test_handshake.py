from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from notifier.gateway.deflate import EXTENSIONS, window_of
from notifier.gateway.handshake import Agreement, Fault, HandshakeRequest
from notifier.http.port import Header

KEY = (b"sec-websocket-key", b"x3JJHMbDL1EzLkh9GBhXDw==")
GOOD = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]

lines = st.sampled_from(
    [
        *GOOD,
        KEY,
        (b"connection", b"keep-alive, Upgrade"),
        (b"connection", b"close"),
        (b"connection", b"Upgrade; x"),
        (b"upgrade", b"WebSocket"),
        (b"upgrade", b"h2c"),
        (b"sec-websocket-version", b"8"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=!"),
        (b"sec-websocket-key", b"c2hvcnQ="),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits"),
        (b"sec-websocket-extensions", b"permessage-deflate; server_max_window_bits=10"),
        (b"sec-websocket-extensions", b"permessage-deflate; server_max_window_bits=99"),
        (b"sec-websocket-extensions", b"x-other"),
        (b"sec-websocket-extensions", b"; ;"),
        (b"sec-websocket-protocol", b"notifier.v1, bearer.abc"),
        (b"host", b"x"),
        (b"upgrade", b"x" * 600),
    ]
)


def by_the_library(headers: list[Header]) -> tuple[int, str | None, int]:
    protocol = ServerProtocol(extensions=EXTENSIONS)
    # HTTP has chosen among the offers; the library takes a single one.
    others = [(name.decode(), value.decode()) for name, value in headers if name != b"upgrade"]
    pairs = [("upgrade", "websocket"), *others]
    response = protocol.accept(Request("/", Headers(pairs)))
    said = response.headers.get("Sec-WebSocket-Extensions")
    return response.status_code, said, window_of(protocol.extensions or ())


def by_us(headers: list[Header]) -> tuple[int, str | None, int]:
    answer = HandshakeRequest(b"/", b"", headers).answer()
    if isinstance(answer, Fault):
        return answer.status, None, 0
    said = dict(answer.headers).get(b"Sec-WebSocket-Extensions")
    return 101, None if said is None else said.decode(), answer.window


@given(st.lists(lines, max_size=3), st.permutations([*GOOD, KEY]), st.integers(0, 4))
def test_each_request_is_answered_as_the_library_would(
    more: list[Header], plain: list[Header], left: int
) -> None:
    headers = [*plain[:left], *more, *plain[left + (left % 2) :]]

    assert by_us(headers) == by_the_library(headers)
    assert by_us(headers) == by_the_library(headers)  # from memory, too


def test_the_response_proves_that_the_key_was_read() -> None:
    request = HandshakeRequest(
        b"/", b"", [*GOOD, (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")]
    )

    head = request.acceptance([(b"Sec-WebSocket-Protocol", b"notifier.v1")])

    # RFC 6455, section 1.3
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert head.endswith(b"\r\nSec-WebSocket-Protocol: notifier.v1\r\n\r\n")


def test_a_kind_that_was_agreed_on_says_nothing_of_a_bad_key() -> None:
    good, bad = [*GOOD, KEY], [*GOOD, (b"sec-websocket-key", b"short")]

    assert isinstance(HandshakeRequest(b"/", b"", good).answer(), Agreement)
    assert isinstance(HandshakeRequest(b"/", b"", bad).answer(), Fault)
