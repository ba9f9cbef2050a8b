"""permessage-deflate (RFC 7692): what is agreed on, and messages made smaller and whole again.

Each message is compressed by itself, in both directions (`no_context_takeover`). One compressed
frame therefore serves all clients of a window, and a connection keeps no state of zlib's.
"""

import zlib
from collections.abc import Iterable

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)

from notifier.gateway.framing import FramingError

# 4 KiB. A larger window seldom finds more in an event, and costs us and each client memory. Only
# clients that ask for a smaller one get frames of their own.
WINDOW = 12
# Bytes. Below, a message travels in one packet anyhow, and compressing it would cost as much as
# delivering it to a client does.
SMALLEST = 1024
EXTENSIONS = (
    ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=WINDOW,
    ),
)

_LARGEST_WINDOW = 15
_MEMORY = 5  # of 1 to 9: what a window of 4 KiB can use
_END = b"\x00\x00\xff\xff"  # is not sent: section 7.2.1


def window_of(extensions: Iterable[Extension]) -> int:
    """Return the window that was agreed on, in bits; 0 for no compression."""
    for extension in extensions:
        if isinstance(extension, PerMessageDeflate):
            return extension.local_max_window_bits
    return 0


def deflated(payload: bytes, window: int) -> bytes:
    """Compress a message for clients of a window."""
    compressor = zlib.compressobj(wbits=-window, memLevel=_MEMORY)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -len(_END)]


class Inflater:
    """Decompresses one message of a client's, fragment by fragment. Fulfils Inflating."""

    __slots__ = ("_inflater",)

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=-_LARGEST_WINDOW)

    def add(self, fragment: bytes, room: int, *, last: bool) -> bytes:
        """See Inflating."""
        compressed = fragment + _END if last else fragment
        try:
            data = self._inflater.decompress(compressed, room + 1)
        except zlib.error as error:
            raise FramingError(1002, "a compressed message cannot be read") from error
        if len(data) > room:
            raise FramingError(1009, "a message is too large once it is decompressed")
        return data
