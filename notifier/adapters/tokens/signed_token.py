"""A signed token in its compact form (RFC 7515, section 7.1), decoded.

PyJWT decodes it too, and looks at each character by itself: more steps than all the rest of a
connect.
"""

import re
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct

from notifier.core.errors import Invalid, Unauthorized
from notifier.core.reading import read_json

LONGEST_TOKEN = 8 * 1024

# Some issuers pad each part, such as AWS' load balancer, though the standard has no padding.
_PART = r"([A-Za-z0-9_-]*={0,2})"
_FORM = re.compile(rf"{_PART}\.{_PART}\.{_PART}")
_NO_TOKEN = "the token is not a signed JWT: header.payload.signature"  # noqa: S105 - a sentence
_UNSUPPORTED = "the token's header asks for an unsupported feature"


class SignedToken(NamedTuple):
    """The parts of a token: `signature` is of `message`. No part has been verified."""

    alg: object
    kid: str | None
    message: bytes
    payload: bytes
    signature: bytes


class _Header(Struct):
    alg: Any = None
    kid: Any = None
    crit: Any = UNSET
    b64: Any = True  # RFC 7797: the payload stands elsewhere


_header = msgspec.json.Decoder(_Header)


def decoded(token: str) -> SignedToken:
    """Decode a token of at most LONGEST_TOKEN characters; raises Unauthorized.

    A header with `crit` is refused, as RFC 7515, section 4.1.11 demands: no extension is supported.
    """
    if len(token) > LONGEST_TOKEN:
        raise Unauthorized(f"the token is longer than {LONGEST_TOKEN} bytes")
    if (form := _FORM.fullmatch(token)) is None:
        raise Unauthorized(_NO_TOKEN)
    try:
        head, payload, signature = map(_bytes_of, form.groups())
        header = read_json(head, _header, LONGEST_TOKEN)
    except (NotBase64, Invalid):
        raise Unauthorized(_NO_TOKEN) from None
    if header.crit is not UNSET or header.b64 is not True:
        raise Unauthorized(_UNSUPPORTED)
    if not isinstance(header.kid, str | None):
        raise Unauthorized(_UNSUPPORTED)
    message = token[: form.start(3) - 1].encode("ascii")
    return SignedToken(header.alg, header.kid, message, payload, signature)


def _bytes_of(part: str) -> bytes:
    if part.endswith("=") and len(part) % 4:
        raise NotBase64("a part is padded to another length")
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
