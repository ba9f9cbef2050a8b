"""A WebSocket client by hand, on a plain socket: it shares no code with the service."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_PATIENCE = 15.0
_FIN_AND_TEXT, _MASKED, _TWO_BYTES, _CLOSE = 0x81, 0x80, 126, 8


@dataclass(frozen=True)
class ForeignClient:
    """An open connection; `subprotocol` is what the server chose."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    subprotocol: str | None

    async def next_frame(self) -> dict[str, Any]:
        """The next text frame; a close frame as `{"type": "closed", "code": …}`."""
        async with asyncio.timeout(_PATIENCE):
            first, length = await self.reader.readexactly(2)
            if length == _TWO_BYTES:
                length = int.from_bytes(await self.reader.readexactly(2))
            payload = await self.reader.readexactly(length)
        if first & 0x0F == _CLOSE:
            return {"type": "closed", "code": int.from_bytes(payload[:2])}
        frame: dict[str, Any] = json.loads(payload)
        return frame

    async def send(self, **frame: object) -> None:
        """Send a text frame, masked as RFC 6455 wants it of clients (section 5.3)."""
        text, mask = json.dumps(frame).encode(), os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(text))
        header = bytes((_FIN_AND_TEXT, _MASKED | _TWO_BYTES)) + len(text).to_bytes(2) + mask
        self.writer.write(header + masked)
        await self.writer.drain()


@asynccontextmanager
async def foreign_client(url: str, headers: Mapping[str, str]) -> AsyncIterator[ForeignClient]:
    """Connect to /v1/ws with these headers beside those of the upgrade itself."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        lines = {
            "Host": address.netloc,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **headers,
        }
        request = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET /v1/ws HTTP/1.1\r\n{request}\r\n".encode())
        async with asyncio.timeout(_PATIENCE):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert answer[0].startswith("HTTP/1.1 101 "), answer[0]
        given = {name.lower(): value for name, _, value in (a.partition(": ") for a in answer)}
        yield ForeignClient(reader, writer, given.get("sec-websocket-protocol"))
    finally:
        writer.close()
        await writer.wait_closed()
