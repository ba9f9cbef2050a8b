"""The developer page that `notifier dev` serves on the gateway's port, and nobody else does.

It hands a token for any user to whoever asks, so it must never face the public.
"""

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from starlette.types import ASGIApp

from notifier.core.errors import Invalid
from notifier.core.names import checked_name

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


class Minted(BaseModel):
    """The answer to `POST /dev/token`: a token that the gateway takes."""

    token: str


def create_page(*, mint: Callable[[str], str], api: ASGIApp) -> FastAPI:
    """Serve the page, tokens made by `mint(user)`, and the producer API below `/dev/api`."""
    page = FastAPI(openapi_url=None)
    page.add_exception_handler(RequestValidationError, refuse)
    page.add_exception_handler(Invalid, refuse)
    for file in STATIC.iterdir():
        serve_file(page, file)

    @page.post("/dev/token")
    async def token(asked: TokenRequest) -> Minted:
        return Minted(token=mint(checked_name(asked.user, "user")))

    page.mount("/dev/api", api)
    return page


def serve_file(page: FastAPI, file: Path) -> None:
    """Answer GET and HEAD of one static file, of `index.html` at `/`."""
    path = "/" if file.name == "index.html" else f"/{file.name}"

    async def answer() -> FileResponse:
        return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=HEADERS)

    page.add_api_route(path, answer, methods=["GET", "HEAD"])


def refuse(_request: Request, error: Exception) -> JSONResponse:
    """Answer a bad token request with a problem (RFC 9457); `user` is its only field."""
    problem = {
        "type": "about:blank",
        "title": "That is not a user id",
        "status": 422,
        "detail": str(error) if isinstance(error, Invalid) else 'the body must be {"user": "..."}',
        "field": "user",
    }
    return JSONResponse(problem, status_code=422, media_type="application/problem+json")
