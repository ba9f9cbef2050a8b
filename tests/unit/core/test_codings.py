import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.codings import decoded
from notifier.core.errors import Invalid, TooLarge, Unreadable, UnsupportedCoding

MOST = 100_000


@given(st.binary(max_size=200), st.sampled_from(["gzip", "GZIP", "x-gzip", "gzip:UTF-8", " gzip "]))
def test_gzip_is_undone(body: bytes, coding: str) -> None:
    assert decoded(gzip.compress(body), coding, MOST) == body


@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress], ids=["zlib", "gzip"])
def test_kombus_gzip_is_undone_which_is_zlib(compress: Callable[[bytes], bytes]) -> None:
    assert decoded(compress(b"a" * 100), "application/x-gzip", MOST) == b"a" * 100
    with pytest.raises(TooLarge):
        decoded(compress(b"a" * 100), "application/x-gzip", 99)


@pytest.mark.parametrize("coding", ["", "identity", "utf-8", "UTF-8", "binary", "identity, utf8"])
def test_a_coding_that_encodes_nothing_changes_nothing(coding: str) -> None:
    assert decoded(b"\x1f\x8b", coding, MOST) == b"\x1f\x8b"


def test_a_body_that_was_compressed_twice_is_unpacked_twice() -> None:
    assert decoded(gzip.compress(gzip.compress(b"a")), "gzip, gzip", MOST) == b"a"


def test_a_body_of_several_members_is_one() -> None:
    assert decoded(gzip.compress(b"a") + gzip.compress(b"b") + b"\0\0", "gzip", MOST) == b"ab"


def test_a_body_may_be_a_thousand_members_each_longer_than_a_piece_or_shorter() -> None:
    noise = random.Random(1).randbytes(20_000)
    packed = gzip.compress(noise) + (gzip.compress(b"a") + b"\0") * 999

    assert decoded(packed, "gzip", 30_000) == noise + b"a" * 999


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "compress", "gzip, br", "x" * 1000])
def test_another_coding_is_refused_by_its_name(coding: str) -> None:
    with pytest.raises(
        UnsupportedCoding, match=r"^content_encoding: (br|deflate|zstd|compress|x+) "
    ):
        decoded(b"", coding, MOST)


def test_codings_are_bounded_in_number() -> None:
    with pytest.raises(UnsupportedCoding, match="at most 2"):
        decoded(b"", "gzip," * 3, MOST)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain",
        gzip.compress(b"cut off", mtime=0)[:-3],
        zlib.compress(b"no gzip"),
        gzip.compress(b"a", mtime=0) + b"more",
        gzip.compress(b"wrong sum", mtime=0)[:-8] + bytes(8),
        gzip.compress(b"", mtime=0) * 1_001,
    ],
)
def test_bytes_that_are_no_gzip_are_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable, match=r"^content_encoding: "):
        decoded(body, "gzip", MOST)


@given(body=st.binary(max_size=60), is_framed=st.booleans())
def test_any_bytes_are_unpacked_or_invalid(body: bytes, *, is_framed: bool) -> None:
    whole = gzip.compress(b"")[:10] + body if is_framed else body

    try:
        assert isinstance(decoded(whole, "gzip", MOST), bytes)
    except Invalid as error:
        assert error.reason  # noqa: PT017  # either way is right


def test_the_bound_is_on_the_unpacked_bytes() -> None:
    assert len(decoded(gzip.compress(bytes(MOST)), "gzip", MOST)) == MOST
    with pytest.raises(TooLarge):
        decoded(gzip.compress(bytes(MOST + 1)), "gzip", MOST)


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip"])
def test_a_bomb_is_not_kept(coding: str) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    bomb = gzip.compress(bomb) if "," in coding else bomb
    tracemalloc.start()

    with pytest.raises(TooLarge):
        decoded(bomb, coding, MOST)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * MOST
