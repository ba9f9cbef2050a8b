"""Problems (RFC 9457) that no endpoint is asked about."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


def no_route(there_is: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Make the handler of requests that lead nowhere; it says what `there_is` instead."""

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
        phrase = HTTPStatus(error.status_code).phrase
        problem = {
            "type": "about:blank",
            "title": phrase,
            "status": error.status_code,
            "detail": f"{request.method} {request.url.path}: {phrase.lower()}; there is {there_is}",
        }
        media_type = "application/problem+json"
        return JSONResponse(problem, error.status_code, error.headers, media_type=media_type)

    return answer
