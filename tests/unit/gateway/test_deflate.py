import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from notifier.gateway.deflate import EXTENSIONS, WINDOW, Inflater, deflated, window_of
from notifier.gateway.framing import FramingError

NO_CONTEXT = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def negotiate(*offers: str) -> tuple[str | None, int]:
    """Return what is answered to offers, and the window that is then ours."""
    headers = Headers(Host="x", Upgrade="websocket", Connection="Upgrade")
    headers["Sec-WebSocket-Version"] = "13"
    headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    for offer in offers:
        headers["Sec-WebSocket-Extensions"] = offer
    protocol = ServerProtocol(extensions=EXTENSIONS)
    response = protocol.accept(Request("/", headers))
    return response.headers.get("Sec-WebSocket-Extensions"), window_of(protocol.extensions)


# The agreement.


@pytest.mark.parametrize(
    ("offer", "said", "window"),
    [
        ("permessage-deflate", "", 12),
        ("permessage-deflate; client_max_window_bits", "", 12),  # as browsers offer it
        (NO_CONTEXT, "", 12),
        ("permessage-deflate; server_max_window_bits=15", "; server_max_window_bits=12", 12),
        ("permessage-deflate; server_max_window_bits=9", "; server_max_window_bits=9", 9),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", "", 12),
        ("x-webkit-deflate-frame, permessage-deflate", "", 12),
    ],
)
def test_no_context_is_kept_and_a_window_only_answered_where_one_is_offered(
    offer: str, said: str, window: int
) -> None:
    assert negotiate(offer) == (NO_CONTEXT + said, window)


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; server_max_window_bits=8",  # which zlib cannot make
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; nonsense",
        "x-webkit-deflate-frame",
    ],
)
def test_unsupported_parameters_are_not_agreed_on(offer: str) -> None:
    assert negotiate(offer) == (None, 0)


def test_without_an_offer_nothing_is_compressed() -> None:
    assert negotiate() == (None, 0)


# Messages.


def inflated(message: bytes, limit: int) -> bytes:
    return Inflater().add(message, limit, last=True)


@given(st.binary(max_size=20_000), st.integers(9, WINDOW))
def test_a_client_reads_a_compressed_frame(payload: bytes, window: int) -> None:
    client = PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=window,
        local_max_window_bits=15,
    )
    sent = Frame(Opcode.TEXT, deflated(payload, window), rsv1=True)

    assert bytes(client.decode(sent).data) == payload


@given(st.binary(max_size=2_000))
def test_a_message_comes_back_as_it_was(payload: bytes) -> None:
    assert inflated(deflated(payload, WINDOW), len(payload)) == payload


def test_a_message_may_end_in_a_final_block() -> None:  # RFC 7692, section 7.2.3.4
    compressor = zlib.compressobj(wbits=-15)

    assert inflated(compressor.compress(b"hello") + compressor.flush() + b"\0", 5) == b"hello"


def test_a_message_that_inflates_over_the_limit_is_too_big() -> None:
    bomb = deflated(b"\0" * 50_000_000, WINDOW)

    with pytest.raises(FramingError) as error:
        inflated(bomb, 65_536)

    assert len(bomb) < 65_536
    assert error.value.code == 1009


def test_uncompressed_bytes_cannot_be_inflated() -> None:
    with pytest.raises(FramingError) as error:
        inflated(b"\xff\xff\xff", 100)

    assert error.value.code == 1002


def final(text: bytes) -> bytes:
    """Compress so that the last block is a final one, as where there is no other way to flush."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(text) + compressor.flush()


def test_blocks_may_follow_a_final_one() -> None:  # RFC 7692, section 7.2.1
    assert inflated(final(b"hel") + final(b"lo") + b"\0", 5) == b"hello"


def test_fragments_may_each_end_in_a_final_block() -> None:
    inflater = Inflater()

    parts = [inflater.add(final(b"hel"), 5, last=False), inflater.add(final(b"lo"), 2, last=True)]

    assert parts == [b"hel", b"lo"]


def test_bytes_behind_a_final_block_count_towards_the_limit() -> None:
    with pytest.raises(FramingError) as error:
        inflated(final(b"hel") + final(b"lo!"), 5)

    assert error.value.code == 1009


def test_bytes_behind_a_final_block_are_not_passed_over() -> None:
    with pytest.raises(FramingError) as error:
        inflated(final(b"hello") + b"\xff" * 1_000, 100)

    assert error.value.code == 1002


def test_a_final_block_may_reach_into_the_end_that_is_not_sent() -> None:  # section 7.2.2
    assert inflated(b"c", 1) == b"\0"


def test_the_end_that_is_not_sent_counts_towards_the_limit() -> None:
    with pytest.raises(FramingError) as error:
        inflated(b"c", 0)

    assert error.value.code == 1009


def test_final_blocks_are_bounded_in_number() -> None:
    assert inflated(final(b"a") * 16, 100) == b"a" * 16

    with pytest.raises(FramingError) as error:
        inflated(final(b"a") * 17, 100)

    assert error.value.code == 1009


@given(st.lists(st.binary(max_size=50), max_size=20), st.binary(max_size=20))
def test_nothing_is_kept_behind_a_final_block(fragments: list[bytes], text: bytes) -> None:
    inflater = Inflater()
    inflater.add(final(text), 100_000, last=False)
    try:
        for fragment in fragments:
            inflater.add(fragment, 100_000, last=False)
    except FramingError:
        return

    assert inflater._inflater.unused_data == b""  # noqa: SLF001  # which grows without a bound
