import pytest
from fastapi import Request
from starlette.types import Message

from notifier.bodies import content_of, plain_content_of
from notifier.core.errors import TooLarge, UnsupportedCoding


def request_with(*headers: tuple[bytes, bytes], body: bytes = b"hello") -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "headers": headers}, receive)


async def test_a_body_within_its_bound_is_read() -> None:
    assert await content_of(request_with(), 5) == b"hello"


async def test_a_body_over_its_bound_is_refused() -> None:
    with pytest.raises(TooLarge, match="at most 4 bytes"):
        await content_of(request_with(), 4)


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip,chunked", b"deflate, Chunked"])
async def test_a_body_compressed_on_its_way_is_refused(coding: bytes) -> None:
    with pytest.raises(UnsupportedCoding, match="transfer_encoding: only chunked"):
        await content_of(request_with((b"transfer-encoding", coding)), 5)


@pytest.mark.parametrize("coding", [b"gzip", b"identity, br"])
async def test_a_compressed_body_is_refused_where_none_is_undone(coding: bytes) -> None:
    with pytest.raises(UnsupportedCoding, match="content_encoding: none is taken"):
        await plain_content_of(request_with((b"content-encoding", coding)), 5)


async def test_a_body_that_says_it_is_not_compressed_is_read() -> None:
    request = request_with((b"content-encoding", b"identity"), (b"transfer-encoding", b"chunked"))

    assert await plain_content_of(request, 5) == b"hello"
