"""A shop's web site, with the package for browsers in its pages."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.roles import token

# As strict as a policy gets: no inline script, no inline style, no eval, no markup made of text.
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self' http: ws:; base-uri 'none'; "
    "frame-src 'self'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_TYPES = {".js": "text/javascript", ".html": "text/html", ".map": "application/json"}
PAGE = '<!doctype html><title>Shop</title><script type="module" src="/page.js"></script>'
SCRIPT = """
import { Notifier } from "./index.js";
const asked = new URLSearchParams(location.search);
const user = asked.get("user"), seconds = asked.get("seconds") ?? 600;
window.got = []; window.gaps = []; window.states = [];
const getToken = async () => (await fetch(`/token?user=${user}&seconds=${seconds}`)).text();
const notifier = window.notifier = new Notifier({
  url: asked.get("url"),
  getToken,
  topics: asked.getAll("topic"),
  shared: asked.has("shared"),
  presence: asked.has("presence"),
  persist: asked.has("persist"),
  timing: { retry: [20, 50, 200], upgrade: [300, 600], patience: 8000, pong: 3000 },
});
notifier.on("event", ({ event }) => window.got.push(event.id));
notifier.on("gap", (gap) => window.gaps.push(gap));
notifier.on("state", (state) => window.states.push(state));
notifier.on("stopped", (stopped) => { window.stopped = stopped; });
"""


@asynccontextmanager
async def shop(package: Path, pages: Path) -> AsyncIterator[str]:
    """Serve its page, those of a folder, and tokens for anybody, and yield the address."""

    def answer(head: str) -> tuple[str, bytes]:
        target = head.split(" ")[1]
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path == "/token":
            signed_in = re.search(r"(?im)^cookie:.*\buser=([\w-]+)", head)
            user = signed_in[1] if signed_in else query["user"][0]
            life = float(query.get("seconds", ["600"])[0])
            return "text/plain", token(user, "*", seconds=life, presence=["room:*"]).encode()
        made = {"/": ("text/html", PAGE), "/page.js": ("text/javascript", SCRIPT)}
        if path in made:
            return made[path][0], made[path][1].encode()
        name = path.removeprefix("/")
        file = next(file for file in (pages / name, package / "dist" / name) if file.is_file())
        return _TYPES[file.suffix], file.read_bytes()

    def reply(request: str) -> bytes:
        try:
            kind, body = answer(request)
            status = "200 OK"
        except (KeyError, StopIteration):
            status, kind, body = "404 Not Found", "text/plain", b""
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
            f"content-security-policy: {POLICY}\r\nconnection: close\r\n"
            "access-control-allow-origin: *\r\n\r\n"  # a sandboxed frame is another site
        )
        return head.encode() + body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            request = await reader.readuntil(b"\r\n\r\n")  # browsers connect ahead, and ask nothing
            writer.write(reply(request.decode()))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
