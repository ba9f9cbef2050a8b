"""Keeps other sites out of `notifier dev`, which hands tokens to any caller."""

import ipaddress
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from notifier.core.origins import Origins, is_own
from notifier.problems import problem

LOOPBACK_ORIGINS = tuple(
    f"{scheme}://{host}:*"
    for scheme in ("http", "https")
    for host in ("localhost", "*.localhost", "127.0.0.1", "[::1]")
)
_SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Middleware that answers to the server's own names alone, and to no other site's posts.

    A page of another site reaches a loopback port under a name of its own, which resolves to
    127.0.0.1 the second time it is asked for (DNS rebinding): it is then the same origin, and only
    the name is not ours. A server that listens on all addresses is reached by addresses
    and by names without a dot as well; neither can be rebound.
    """

    def __init__(self, app: ASGIApp, host: str, origins: Origins) -> None:
        self._app = app
        self._host = host.lower()
        self._listens_everywhere = _is_address(host) and ipaddress.ip_address(host).is_unspecified
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(refusal)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if "host" in headers and not self._is_own_name(headers["host"]):
            detail = "dev answers to localhost and the address that it listens on, not to this Host"
            return problem(HTTPStatus.MISDIRECTED_REQUEST, "wrong_host", detail)
        if scope["type"] == "http" and scope["method"] not in _SAFE and self._is_foreign(headers):
            detail = "dev takes posts from its own page, this machine's pages, and no browser"
            return problem(HTTPStatus.FORBIDDEN, "wrong_origin", detail)
        return None

    def _is_own_name(self, host: str) -> bool:
        address, is_bracketed, _ = host.lower().removeprefix("[").partition("]")
        bare = address if is_bracketed else address.partition(":")[0]
        if bare in ("localhost", self._host) or bare.endswith(".localhost"):
            return True
        if _is_address(bare):
            return self._listens_everywhere or ipaddress.ip_address(bare).is_loopback
        return self._listens_everywhere and "." not in bare

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site") == "cross-site"
        return not (self._origins.lists(origin) or is_own(origin, headers.raw))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
