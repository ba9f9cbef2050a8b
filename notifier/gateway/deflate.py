"""permessage-deflate (RFC 7692): the negotiation, and compressing and decompressing messages.

Each message is compressed by itself, in both directions (`no_context_takeover`). One compressed
frame therefore serves all clients of a window, and a connection keeps no state of zlib's.
"""

import zlib
from collections.abc import Iterable, Sequence

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.typing import ExtensionParameter

from notifier.gateway.framing import FramingError

# 4 KiB. A larger window seldom finds more in an event, and costs us and each client memory. Only
# clients that ask for a smaller one get frames of their own.
WINDOW = 12
# Bytes. Below, a message travels in one packet anyhow, and compressing it would cost as much as
# delivering it to a client does.
SMALLEST = 1024
# Any client understands these without having offered them, and the second has to be said.
_UNASKED = {"server_no_context_takeover", "client_no_context_takeover"}


class _OnlyOffered(ServerPerMessageDeflateFactory):
    """Answers the window only to clients that offer one: others may not know it (section 7.1.2.1).

    Clients without have a window of 32 KiB, which takes messages of any smaller one.
    """

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """See ServerExtensionFactory."""
        answer, extension = super().process_request_params(params, accepted_extensions)
        offered = {name for name, _ in params}
        return [each for each in answer if each[0] in offered | _UNASKED], extension


EXTENSIONS = (
    _OnlyOffered(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=WINDOW,
    ),
)

_LARGEST_WINDOW = 15
_MEMORY = 5  # of 1 to 9: a window of 4 KiB can use no more
_END = b"\x00\x00\xff\xff"  # is not sent: section 7.2.1
_MOST_FINAL_BLOCKS = 16  # of one message; each costs a decompressor and a copy of the rest


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

    __slots__ = ("_final_blocks", "_inflater")

    def __init__(self) -> None:
        self._final_blocks = 0
        self._begin()

    def _begin(self) -> None:
        self._inflater = zlib.decompressobj(wbits=-_LARGEST_WINDOW)

    def add(self, fragment: bytes, room: int, *, last: bool) -> bytes:
        """See Inflating."""
        pieces = []
        while fragment:
            pieces.append(self._inflated(fragment, room))
            room -= len(pieces[-1])
            fragment = self._behind_final_block()
        if last:  # the rest of the end, where a final block took only part of it, is no block
            pieces.append(self._inflated(_END, room))
        return b"".join(pieces)

    def _inflated(self, compressed: bytes, room: int) -> bytes:
        try:
            data = self._inflater.decompress(compressed, room + 1)
        except zlib.error as error:
            raise FramingError(1002, "a compressed message cannot be read") from error
        if len(data) > room:
            raise FramingError(1009, "a message is too large once it is decompressed")
        return data

    def _behind_final_block(self) -> bytes:
        """Return the bytes that follow a final block: more blocks may (section 7.2.1).

        A decompressor that has read its final block would keep all that it is given from then on,
        and copy it each time.
        """
        if not self._inflater.eof:
            return b""
        self._final_blocks += 1
        if self._final_blocks > _MOST_FINAL_BLOCKS:
            raise FramingError(1009, f"a message has at most {_MOST_FINAL_BLOCKS} final blocks")
        behind = self._inflater.unused_data
        self._begin()
        return behind
