"""How tests start Chromium, and a page of another origin than the gateway's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Without a sandbox, which root has none of, and silent on the network.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@asynccontextmanager
async def empty_page(port: int) -> AsyncIterator[str]:
    """Serve an empty page; a real server, as Chromium lets no made-up page ask this machine."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n"
        writer.write(head + b"connection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"
