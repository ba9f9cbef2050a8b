"""The opening handshake of a WebSocket (RFC 6455, section 4.2), judged by the `websockets` library.

The requests of one kind of client differ in their key only, so the library judges each kind
once. The plain case then costs a lookup and a hash; any other is the library's own.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from http import HTTPStatus
from itertools import chain
from typing import NamedTuple

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from notifier.core.errors import Invalid
from notifier.core.header_lists import values_of
from notifier.gateway.deflate import EXTENSIONS, window_of
from notifier.http.port import Header

_EXTENSIONS = b"sec-websocket-extensions"
_TERMS = frozenset({b"connection", b"upgrade", b"sec-websocket-version", _EXTENSIONS})
_KEY = b"sec-websocket-key"
_LONGEST_TERMS = 512  # bytes that are worth remembering
_GOOD_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # sixteen bytes
_EXAMPLE_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n"
)
# Of RFC 6455, section 4.2.1.
_RULES = {
    "Connection": "must be Upgrade",
    "Sec-WebSocket-Key": "must be sixteen bytes in base64, given once",
    "Sec-WebSocket-Version": "must be 13",
    "Sec-WebSocket-Extensions": "must name extensions, separated by commas, and their parameters "
    "behind semicolons (RFC 6455, section 9.1)",
}


class Agreement(NamedTuple):
    """The agreement with a client: the window of compression, 0 for none, and its header."""

    window: int
    headers: tuple[Header, ...]


class Fault(NamedTuple):
    """The fault of an upgrade request, and the status that answers it."""

    status: HTTPStatus
    reason: Invalid


class HandshakeRequest(NamedTuple):
    """An upgrade request; names of headers are in lower case."""

    path: bytes
    query: bytes
    headers: list[Header]

    def answer(self) -> Agreement | Fault:
        """Return the agreement, or the fault that refuses the request."""
        terms = tuple([header for header in self.headers if header[0] in _TERMS])
        keys = [value for name, value in self.headers if name == _KEY]
        if len(keys) == 1 and _GOOD_KEY.fullmatch(keys[0]) and _is_short(terms):
            answer = _answer_of_kind(terms)
            if isinstance(answer, Agreement):
                return answer
        return _answer(self.headers)

    def acceptance(self, more: Iterable[Header]) -> bytes:
        """Return the head of the response that accepts the request, which has one key."""
        [key] = values_of(self.headers, _KEY)
        lines = [_ACCEPTED % accept_key(key).encode()]
        lines += [b"%s: %s\r\n" % header for header in more]
        return b"".join([*lines, b"\r\n"])


def _is_short(headers: tuple[Header, ...]) -> bool:
    return sum(map(len, chain.from_iterable(headers))) <= _LONGEST_TERMS


@lru_cache(maxsize=256)
def _answer_of_kind(terms: tuple[Header, ...]) -> Agreement | Fault:
    return _answer([*terms, (_KEY, _EXAMPLE_KEY)])


def _answer(headers: list[Header]) -> Agreement | Fault:
    protocol = ServerProtocol(extensions=EXTENSIONS)
    response = protocol.accept(_request(headers))
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        return Fault(HTTPStatus(response.status_code), _reason_of(protocol.handshake_exc))
    agreed = response.headers.get(_EXTENSIONS.decode())
    said = () if agreed is None else ((b"Sec-WebSocket-Extensions", agreed.encode()),)
    return Agreement(window_of(protocol.extensions), said)


def _reason_of(error: Exception | None) -> Invalid:
    """Say in our own words what the library says in its own."""
    name = error.name if isinstance(error, InvalidHeader) else ""
    return Invalid(name, _RULES.get(name, "the request for a WebSocket is malformed"))


def _request(headers: list[Header]) -> Request:
    # websockets takes no other offer beside it; HTTP has chosen this one.
    chosen = ("Upgrade", "websocket")
    return Request("/", Headers([chosen, *_decoded(headers)]))


def _decoded(headers: list[Header]) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        if name != b"upgrade" and value:  # an empty list says nothing (RFC 9110, section 5.6.1)
            yield name.decode("latin-1"), value.decode("latin-1")
