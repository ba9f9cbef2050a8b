"""Cross-origin answers (Fetch standard, sections 3.3 and 4.8): allowed pages may read them all."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notifier.core.origins import Origins
from notifier.http.port import Header
from notifier.problems import problem

_ALWAYS_ALLOWED = ("authorization", "last-event-id", "cache-control", "content-type")
_LONGEST_ASKED = 1024  # characters of header names that a page asks for
_REFUSED_PREFIXES = ("forwarded", "x-forwarded-")  # are the proxies', see `is_own`
_KEEPS = "600"  # seconds that a browser keeps the answer


class Cors:
    """Middleware that marks each answer for the page that asks, and answers preflights.

    The lines are kept in the scope for answers that do not go through ASGI: `cors_lines`.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        lines = scope["state"]["cors"] = self._lines(headers.get("origin"))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *lines]
            await send(message)

        if scope["method"] == "OPTIONS" and "origin" in headers:
            await self._preflight(headers)(scope, receive, marked)
        else:
            await self._app(scope, receive, marked)

    def _lines(self, origin: str | None) -> list[Header]:
        if origin is None or not (self._origins.is_open or self._origins.lists(origin)):
            return []
        exposed = (b"access-control-expose-headers", b"retry-after")
        if not self._origins.lists(origin):
            return [(b"access-control-allow-origin", b"*"), exposed]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            exposed,
            (b"vary", b"origin"),
        ]

    def _preflight(self, headers: Headers) -> Response:
        """Allow a listed page to send its token, and the headers of tracing."""
        if not self._origins.allow(headers["origin"], headers.raw):
            detail = f"origin {headers['origin'][:200]} is not among NOTIFIER_ALLOWED_ORIGINS"
            return problem(HTTPStatus.FORBIDDEN, "wrong_origin", detail)
        asked = headers.get("access-control-request-headers", "")[:_LONGEST_ASKED].lower()
        names = dict.fromkeys((*_ALWAYS_ALLOWED, *(each.strip() for each in asked.split(","))))
        allowed = [name for name in names if name and not name.startswith(_REFUSED_PREFIXES)]
        answered = {
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": ", ".join(allowed),
            "access-control-max-age": _KEEPS,
        }
        return Response(None, HTTPStatus.NO_CONTENT, answered)


def cors_lines(connection: HTTPConnection) -> list[Header]:
    """Return the header lines that let the page read the answer."""
    lines: list[Header] = connection.scope["state"].get("cors", [])
    return lines
