"""Reads the body of a request within a bound, for every role that takes one."""

from fastapi import Request

from notifier.core.errors import TooLarge, UnsupportedCoding


async def content_of(request: Request, most: int) -> bytes:
    """Read a body of at most so many bytes; raises TooLarge and UnsupportedCoding."""
    _check_transfer(request)
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise TooLarge("", f"a body has at most {most} bytes")
    return bytes(content)


async def plain_content_of(request: Request, most: int) -> bytes:
    """Read a body that may not be compressed, as `content_of` does."""
    codings = request.headers.getlist("content-encoding")
    if any(each not in ("", "identity") for each in _named(codings)):
        raise UnsupportedCoding("content_encoding", "none is taken here; send the body as it is")
    return await content_of(request, most)


def _check_transfer(request: Request) -> None:
    """Refuse bytes that came compressed on their way: nobody undoes that here."""
    codings = request.headers.getlist("transfer-encoding")
    if any(each not in ("", "chunked") for each in _named(codings)):
        rule = "only chunked is taken; compress the body by Content-Encoding: gzip"
        raise UnsupportedCoding("transfer_encoding", rule)


def _named(lines: list[str]) -> list[str]:
    return [each.strip().lower() for each in ",".join(lines).split(",")]
