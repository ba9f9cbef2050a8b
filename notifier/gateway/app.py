"""The gateway's public HTTP application."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.responses import JSONResponse, Response

from notifier.core import frames
from notifier.core.errors import (
    CloseCode,
    Invalid,
    NotifierError,
    TooMany,
    Unauthorized,
    Unavailable,
)
from notifier.gateway.entrance import SUBPROTOCOL, Origins, Visitor, WrongOrigin, visitor
from notifier.gateway.gateway import Gateway
from notifier.gateway.websocket import HANDOVER, WebSocketConnection

_log = structlog.get_logger("notifier.gateway")
_STATUSES = {
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    WrongOrigin: HTTPStatus.FORBIDDEN,
    TooMany: HTTPStatus.BAD_REQUEST,
    Invalid: HTTPStatus.BAD_REQUEST,
}
_RETRY_AFTER = "5"


def create_app(gateway: Gateway, allowed_origins: Iterable[str] = ()) -> FastAPI:
    """Make the application around a running gateway."""
    app = FastAPI(title="notifier gateway", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.gateway = gateway
    app.state.origins = Origins(frozenset(origin.lower() for origin in allowed_origins))
    app.add_api_websocket_route("/v1/ws", websocket)
    app.add_exception_handler(NotifierError, refuse)  # type: ignore[arg-type] # serves both kinds
    return app


async def websocket(socket: WebSocket, who: Annotated[Visitor, Depends(visitor)]) -> None:
    """Accept, and hand the connection over to a session; this ends before the connection does."""
    connection: WebSocketConnection = socket.scope["extensions"][HANDOVER]["to"]
    await socket.accept(subprotocol=_subprotocol(socket))
    gateway: Gateway = socket.app.state.gateway
    session = gateway.open(connection, who.identity, who.topics, who.cursor)
    connection.hand_over(session)


def _subprotocol(socket: WebSocket) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None


async def refuse(connection: Request | WebSocket, error: Exception) -> Response | None:
    """Answer what a dependency refused, as the transport allows.

    Browsers cannot read the status of a refused upgrade. A client that must change something
    before it comes back is therefore told in frames, and closed with 4500 or 4502.
    """
    assert isinstance(error, NotifierError)  # noqa: S101 - registered for this type
    connection.app.state.gateway.metrics.refusals.labels(error.code).inc()
    _log.info("refused", code=error.code, reason=str(error))
    if not isinstance(connection, WebSocket):
        return _problem(error)
    if isinstance(error, Unauthorized):
        await _close(connection, CloseCode.UNAUTHORIZED, error)
    elif isinstance(error, Invalid | TooMany):
        await _close(connection, CloseCode.PROTOCOL_ERROR, error)
    else:
        await connection.send_denial_response(_problem(error))
    return None


async def _close(socket: WebSocket, code: CloseCode, error: NotifierError) -> None:
    await socket.accept(subprotocol=_subprotocol(socket))
    for frame in (frames.Error(error.code, str(error)), frames.Bye(code, code.reason)):
        await socket.send_text(frames.encode(frame).decode())
    await socket.close(code, code.reason)


def _problem(error: NotifierError) -> Response:
    status = next(status for kind, status in _STATUSES.items() if isinstance(error, kind))
    headers = {"retry-after": _RETRY_AFTER} if isinstance(error, Unavailable) else {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status,
        "detail": str(error),
    }
    return JSONResponse(problem, status, headers, media_type="application/problem+json")
