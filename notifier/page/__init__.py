"""The developer page that `notifier dev` serves on the gateway's port, and nobody else does.

It hands a token for any user to any caller, so it must never face the public.
"""

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel
from starlette.types import ASGIApp

from notifier.core.errors import Invalid
from notifier.core.names import checked_name, checked_topic
from notifier.problems import refusal

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class TokenRequest(BaseModel):
    """The body of `POST /dev/token`."""

    user: str


def create_page(
    *,
    mint: Callable[[str], str],
    is_followed: Callable[[str], bool],
    api: ASGIApp,
    public_api: dict[str, object],
) -> FastAPI:
    """Serve the page, and below `/dev` the parts of the server that it needs.

    These are tokens made by `mint(user)`, whether `is_followed(topic)`, the producer API for the
    page alone, and the facts about the one for everybody else: its `port`, and whether it
    `needs_key`.
    """
    page = FastAPI(openapi_url=None)
    page.add_exception_handler(RequestValidationError, refuse)
    page.add_exception_handler(Invalid, refuse)
    for file in STATIC.iterdir():
        serve_file(page, file)

    @page.post("/dev/token")
    async def token(asked: TokenRequest) -> dict[str, str]:
        return {"token": mint(checked_name(asked.user, "user"))}

    @page.get("/dev/followed")
    async def followed(topic: str = "") -> dict[str, bool]:
        return {"followed": is_followed(checked_topic(topic, "topic"))}

    @page.get("/dev/api-port")
    async def api_port() -> dict[str, object]:
        return public_api

    page.mount("/dev/api", api)
    return page


def serve_file(page: FastAPI, file: Path) -> None:
    """Answer GET and HEAD of one static file, of `index.html` at `/`."""
    path = "/" if file.name == "index.html" else f"/{file.name}"

    async def answer() -> FileResponse:
        return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=HEADERS)

    page.add_api_route(path, answer, methods=["GET", "HEAD"])


def refuse(_request: Request, error: Exception) -> Response:
    """Answer a bad request with a problem (RFC 9457)."""
    body = Invalid("user", 'the body must be {"user": "..."}')
    refused = error if isinstance(error, Invalid) else body
    return refusal(refused, HTTPStatus.UNPROCESSABLE_ENTITY)
