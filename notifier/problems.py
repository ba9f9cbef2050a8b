"""Problems (RFC 9457): the form of a refusal over HTTP, by every role alike."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from notifier.core.errors import Invalid, NotifierError, TooManyEvents, Unauthorized, Unavailable

RETRY_AFTER = {"retry-after": "5"}  # seconds
MEDIA_TYPE = "application/problem+json"
SCHEMA = {
    "title": "Problem",
    "description": "The reason for a refusal (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "The rule that was broken, and the remedy."},
        "code": {"type": "string", "description": "The kind of refusal, for programs."},
        "field": {"type": "string", "description": "The member or parameter to correct."},
    },
}


# RFC 9110's names, which Python has since 3.13: a title is the same on every Python.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


def title_of(status: HTTPStatus) -> str:
    """Return the name of a status (RFC 9110, section 15)."""
    return _TITLES.get(status, status.phrase)


def problem_of(error: NotifierError, status: HTTPStatus) -> dict[str, Any]:
    """Describe an error, with the member `field` where there is one."""
    field = {"field": error.field} if isinstance(error, Invalid) and error.field else {}
    return _problem(status, code=error.code, detail=str(error)) | field


def problem(
    status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with a problem that is no error of ours."""
    return JSONResponse(_problem(status, code=code, detail=detail), status, headers, MEDIA_TYPE)


def refusal(
    error: NotifierError, status: HTTPStatus, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with the problem of an error, and with the headers that go with it."""
    more = dict(headers or {})
    if isinstance(error, Unavailable | TooManyEvents):
        more |= RETRY_AFTER
    if isinstance(error, Unauthorized):
        more["www-authenticate"] = "Bearer"
    return JSONResponse(problem_of(error, status), status, more, media_type=MEDIA_TYPE)


def no_route(there_is: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Make the handler of requests that lead nowhere; it names `there_is` instead."""

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
        status = HTTPStatus(error.status_code)
        asked = f"{request.method} {request.url.path}: {title_of(status).lower()}"
        answer = _problem(status, detail=f"{asked}; there is {there_is}")
        return JSONResponse(answer, status, error.headers, media_type=MEDIA_TYPE)

    return answer


def _problem(status: HTTPStatus, **members: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": title_of(status), "status": status.value, **members}
