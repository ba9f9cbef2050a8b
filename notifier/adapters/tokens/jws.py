"""The compact form of a signed token (RFC 7515, section 7.1), taken apart.

Only the form: signatures are PyJWT's to verify. PyJWT could take tokens apart as well, but takes as
long for it as for all the rest of a token's verification together, which thousands of clients need
at once when they come back. What is accepted here is what it accepts, but for numbers in headers
that have thousands of digits; a test holds the two against each other.
"""

from base64 import b64decode, urlsafe_b64encode
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from notifier.core.errors import Unauthorized
from notifier.core.reading import TOO_DEEP, is_too_deep

_NO_TOKEN = "the token is not a signed JWT: header.payload.signature"  # noqa: S105 - a sentence
_LONGEST_PADDING = 2


class _Header(Struct):
    alg: Any = None
    kid: str | UnsetType = UNSET
    crit: Any = UNSET
    b64: bool | UnsetType = UNSET


_headers = msgspec.json.Decoder(_Header)


class Jws(NamedTuple):
    """A signed token: `signature` is of `message`. Nothing of it is verified."""

    alg: object
    kid: str | None
    message: bytes
    payload: bytes
    signature: bytes


def parse(token: str) -> Jws:
    """Take a token apart; raises Unauthorized for what is none, or asks for more than its `alg`."""
    try:
        message, _, signature = token.encode().rpartition(b".")
        encoded_header, _, payload = message.partition(b".")
        header = _headers.decode(_shallow(_decoded(encoded_header)).decode())
        kid = None if header.kid is UNSET else header.kid
        jws = Jws(header.alg, kid, message, _decoded(payload), _decoded(signature))
    except (ValueError, RecursionError):  # those of base64, msgspec and UTF-8 are ValueErrors
        raise Unauthorized(_NO_TOKEN) from None
    # What is critical is to be refused by whoever does not know it, section 4.1.11; RFC 7797.
    if header.crit is not UNSET or header.b64 is False:
        raise Unauthorized("the token's header asks for what is not supported")
    return jws


def _shallow(text: bytes) -> bytes:
    if is_too_deep(text):
        raise ValueError(TOO_DEEP)
    return text


def _decoded(segment: bytes) -> bytes:
    """Decode base64url (RFC 4648, section 5) in its one canonical form, padded or not."""
    bare = segment.rstrip(b"=")
    padding = len(segment) - len(bare)
    if padding and (padding > _LONGEST_PADDING or len(segment) % 4):
        raise ValueError("padding")
    decoded = b64decode(bare + b"=" * (-len(bare) % 4), b"-_")
    if urlsafe_b64encode(decoded).rstrip(b"=") != bare:  # foreign characters, or stray bits
        raise ValueError("encoding")
    return decoded
