"""Content codings: bodies that came compressed, taken apart within the bound.

gzip is taken (RFC 1952; RFC 9110, section 8.4.1.3). Anything else is refused by its name.
"""

import re
import zlib

from notifier.core.errors import TooLarge, Unreadable, UnsupportedCoding

FIELD = "content_encoding"
# Beside `identity`: clients of AMQP write the character set there, or that a body is bytes.
_NONE = frozenset({"", "identity", "utf-8", "utf8", "us-ascii", "ascii", "binary", "7bit", "8bit"})
_GZIP_ONLY, _ZLIB_TOO = 16 + zlib.MAX_WBITS, 32 + zlib.MAX_WBITS
# The last is kombu's name for its gzip, which it writes as zlib (RFC 1950).
_GZIP = {"gzip": _GZIP_ONLY, "x-gzip": _GZIP_ONLY, "application/x-gzip": _ZLIB_TOO}
_MOST_CODINGS = 2
_MOST_MEMBERS = 1_000  # of one gzip file: as many as a batch has events
_PIECE = 4 * 1024  # bytes: zlib copies those that stand behind a member
_PADDING = re.compile(rb"\0*")
_SEPARATORS = re.compile(r"[\s,;:]+")  # Spring writes `gzip:UTF-8`
_LONGEST_SHOWN = 64


def decoded(body: bytes, codings: str, most: int) -> bytes:
    """Undo the codings of a body; raises UnsupportedCoding, Unreadable, or TooLarge past `most`.

    Never more than `most` bytes and one are unpacked, however small the body.
    """
    if not codings:
        return body
    named = [each for each in _SEPARATORS.split(codings.lower()) if each not in _NONE]
    for coding in named:
        if coding not in _GZIP:
            shown = coding[:_LONGEST_SHOWN]
            raise UnsupportedCoding(FIELD, f"{shown} is not taken; send gzip, or the body as it is")
    if len(named) > _MOST_CODINGS:
        raise UnsupportedCoding(FIELD, f"at most {_MOST_CODINGS} codings are taken; send one gzip")
    for coding in named:
        body = _unpacked(body, most, _GZIP[coding])
    return body


def _unpacked(body: bytes, most: int, kind: int) -> bytes:
    found, at = bytearray(), 0
    for _ in range(_MOST_MEMBERS):
        at = _add_member(found, body, at, most, kind)
        at += len(_PADDING.match(body, at)[0])  # type: ignore[index]  # it always matches
        if at == len(body):
            return bytes(found)
    raise Unreadable(FIELD, f"the body has more than {_MOST_MEMBERS} gzip members; send one")


def _add_member(found: bytearray, body: bytes, at: int, most: int, kind: int) -> int:
    """Unpack the member that begins at `at` into `found`, and return where it ends."""
    member = zlib.decompressobj(kind)
    while not member.eof:
        piece = body[at : at + _PIECE]
        if not piece:
            raise Unreadable(FIELD, "the body ends before its gzip does: send all of it")
        try:
            found += member.decompress(piece, most + 1 - len(found))
        except zlib.error as error:
            raise Unreadable(FIELD, "the body is not gzip, as its coding says it is") from error
        if len(found) > most:
            raise TooLarge("", f"at most {most} bytes are taken here, this unpacks to more")
        at += len(piece)
    return at - len(member.unused_data)
