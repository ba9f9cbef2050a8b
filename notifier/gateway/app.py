"""The gateway's public HTTP application."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import WebSocketRoute

from notifier.bodies import plain_content_of
from notifier.core import frames
from notifier.core.errors import (
    CloseCode,
    Forbidden,
    Invalid,
    NotifierError,
    Refused,
    TokenExpired,
    TooLarge,
    TooMany,
    TooManyConnections,
    TooManyEvents,
    Unauthorized,
    Unavailable,
    UnsupportedCoding,
)
from notifier.core.mark_frames import move_of
from notifier.core.origins import Origins
from notifier.core.positions import Position
from notifier.core.publishing import client_event_of, published
from notifier.gateway import description, sse
from notifier.gateway.cors import Cors, cors_lines
from notifier.gateway.direct_route import DirectApplication
from notifier.gateway.entrance import (
    SUBPROTOCOL,
    WrongOrigin,
    caller,
    gateway_of,
    number_of,
    visitor,
)
from notifier.gateway.gateway import Caller, Gateway, Visitor
from notifier.gateway.history import LARGEST_LIMIT, USUAL_LIMIT, HistoryPage
from notifier.gateway.listing import USUAL_LISTED, HistoryListing, listed_topic
from notifier.gateway.open_response import Respond, TakenOver, exchange_of
from notifier.gateway.poll import POLL
from notifier.gateway.sse import SSE
from notifier.gateway.websocket import WebSocketConnection
from notifier.http.accept import prefers
from notifier.http.port import HANDOVER
from notifier.http.proxies import Proxies, client_of
from notifier.problems import MEDIA_TYPE as PROBLEM
from notifier.problems import no_route, problem, refusal

_log = structlog.get_logger("notifier.gateway")
_STATUSES = {
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    Refused: HTTPStatus.INTERNAL_SERVER_ERROR,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    WrongOrigin: HTTPStatus.FORBIDDEN,
    TooManyConnections: HTTPStatus.TOO_MANY_REQUESTS,
    TooManyEvents: HTTPStatus.TOO_MANY_REQUESTS,
    TooMany: HTTPStatus.BAD_REQUEST,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedCoding: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Invalid: HTTPStatus.BAD_REQUEST,
}
# Of an upgrade, by the first match too. For any other error the upgrade is refused.
_CLOSE_CODES: Mapping[type[NotifierError], CloseCode] = {
    TokenExpired: CloseCode.TOKEN_EXPIRED,
    Unauthorized: CloseCode.UNAUTHORIZED,
    WrongOrigin: CloseCode.FORBIDDEN,
    TooManyConnections: CloseCode.TOO_MANY_CONNECTIONS,
    TooMany: CloseCode.PROTOCOL_ERROR,
    Invalid: CloseCode.PROTOCOL_ERROR,
}
_PASSING = {Unavailable: CloseCode.UNAVAILABLE, TokenExpired: CloseCode.TOKEN_EXPIRED}
_NOT_STORED = {"cache-control": "no-store"}
_NO_UPGRADE = (
    "GET /v1/ws opens a WebSocket, and this request has no Upgrade: websocket. If the client sent "
    "it, a proxy dropped it: let the proxy pass Upgrade and Connection on, over HTTP/1.1"
)
TRANSPORTS = (SSE, POLL)  # over HTTP
OFFERS = (
    f"a WebSocket at /v1/ws, GET {', '.join(f'/v1/{each.name}' for each in TRANSPORTS)} and "
    "/v1/history, and POST /v1/marks and /v1/publish"
)


def create_app(
    gateway: Gateway,
    allowed_origins: Iterable[str] = (),
    trusted_proxies: Iterable[str] = (),
    *,
    docs: bool = True,
) -> FastAPI:
    """Make the application around a running gateway.

    With `docs` it describes itself, to anybody.

    Tests replace `entrance.visitor` by `app.dependency_overrides`.
    """
    title = "notifier gateway"
    app = DirectApplication(title, description.GATEWAY, description.SECURITY, docs=docs)
    app.state.gateway = gateway
    app.state.proxies = Proxies(trusted_proxies)
    app.state.origins = origins = Origins(allowed_origins)
    for path in ("/v1/ws", "/v1/ws/"):
        app.add_direct_websocket_route(path, websocket)
    app.add_endpoint("GET", "/v1/ws", upgrade_required, name="ws", **description.WEBSOCKET)
    app.add_endpoint("GET", "/v1/history", history, **description.HISTORY)
    for name, response_to, described in TRANSPORTS:
        app.add_endpoint("GET", f"/v1/{name}", _following(response_to), name=name, **described)
    app.add_endpoint("POST", "/v1/marks", mark, **description.MARKS)
    app.add_endpoint("POST", "/v1/publish", publish, **description.PUBLISH)
    app.router.routes.append(WebSocketRoute("/{path:path}", nowhere))
    app.add_exception_handler(NotifierError, refuse)  # type: ignore[arg-type] # serves both kinds
    app.add_exception_handler(HTTPException, no_route(OFFERS))
    app.add_exception_handler(Exception, fail)
    app.add_middleware(Cors, origins=origins)
    return app


async def websocket(socket: WebSocket, who: Annotated[Visitor, Depends(visitor)]) -> None:
    """Accept, and hand the connection over to a session; this ends before the connection does."""
    connection: WebSocketConnection = socket.scope["extensions"][HANDOVER]["to"]
    gateway = gateway_of(socket)
    await gateway.admission.seat(who.identity)
    await socket.accept(subprotocol=_subprotocol(socket))
    connection.hand_over(gateway.open(connection, who, partial(client_of, socket)))


async def nowhere(socket: WebSocket) -> None:
    """Say where there is a WebSocket; Starlette would say that it is forbidden here."""
    detail = f"GET {socket.scope['path']}: not found; there is {OFFERS}"
    await socket.send_denial_response(problem(HTTPStatus.NOT_FOUND, "not_found", detail))


async def upgrade_required() -> Response:
    """Open a WebSocket. A request that does not ask for the upgrade gets an answer that says so."""
    headers = {"upgrade": "websocket", "connection": "upgrade"}
    return problem(HTTPStatus.UPGRADE_REQUIRED, "upgrade_required", _NO_UPGRADE, headers)


Who = Annotated[Caller, Depends(caller)]


def _following(response_to: Callable[[Request], Respond]) -> Callable[..., Awaitable[Response]]:
    """Make the endpoint of a transport: it hands the connection over, as `websocket` does."""

    async def follow(request: Request, who: Who) -> Response:
        gateway = gateway_of(request)
        exchange, respond = exchange_of(request), response_to(request)
        await gateway.admission.seat(who.identity)
        if exchange.is_gone:
            gateway.admission.unseat(who.identity)
        else:
            connection = respond(exchange, who.cursor, cors_lines(request))
            connection.hand_over(gateway.open(connection, who))
        return TakenOver()

    return follow


async def history(request: Request, who: Who) -> Response:
    """Read the events that topics still hold, without following them."""
    order = request.query_params.get("order", "oldest")
    if order not in ("oldest", "newest"):
        raise Invalid("order", "must be oldest or newest")
    newest = order == "newest"
    page = await _newest_first(request, who) if newest else _oldest_first(request, who)
    gateway = gateway_of(request)
    return _json(await page.answer(gateway.read, gateway.broker_now))


def _oldest_first(request: Request, who: Caller) -> HistoryPage:
    if "before" in request.query_params:
        raise Invalid("before", "is for order=newest; oldest first, give since")
    limit = number_of(request, "limit", USUAL_LIMIT, 1, LARGEST_LIMIT)
    return HistoryPage(who.identity, who.topics, who.cursor, limit)


async def _newest_first(request: Request, who: Caller) -> HistoryListing:
    if who.cursor:
        raise Invalid("since", "is for order=oldest; newest first, give before")
    limit = number_of(request, "limit", USUAL_LISTED, 1, LARGEST_LIMIT)
    before = request.query_params.get("before")
    position = None if before is None else Position.parse(before, "before")
    topic = listed_topic(who.identity, who.topics)
    marked = await gateway_of(request).mark(who.identity.user, topic)
    return HistoryListing(topic, position, limit, marked)


async def mark(request: Request, who: Who) -> Response:
    """Move a user's mark forward: all up to a position is read or received, or single events are.

    The answer says how far the topic is read, and how much of it is unread.
    """
    frame = frames.decode_mark(await _paid_body(request, who))
    answer = await gateway_of(request).badges.moved(move_of(who.identity, frame))
    return _json(frames.encode(answer))


async def publish(request: Request, who: Who) -> Response:
    """Publish an event to a topic, as the token's claim `publish` allows.

    The answer has the event's position; the same event again has the same position.
    """
    frame = frames.decode_publish(await _paid_body(request, who))
    gateway = gateway_of(request)
    event = client_event_of(who.identity, frame, gateway.now())
    return _json(frames.encode(published(await gateway.publishing.published(event))))


async def _paid_body(request: Request, who: Caller) -> bytes:
    """Read a frame that is posted, and have its user pay for it; raises TooManyEvents too."""
    body = await plain_content_of(request, frames.LARGEST_FRAME)
    gateway_of(request).admission.pay_post(who.identity.user, len(body))
    return body


def _json(body: bytes) -> Response:
    return Response(body, headers=_NOT_STORED, media_type="application/json")


def _subprotocol(socket: WebSocket) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None


async def refuse(connection: Request | WebSocket, error: Exception) -> Response | None:
    """Answer a client that a dependency refused, as the transport allows.

    Browsers cannot read the status of a refused upgrade. A client that must change something
    before it reconnects therefore gets frames, and is closed: 4001, 4500, 4501, 4502 or 4504.
    """
    assert isinstance(error, NotifierError)  # noqa: S101 - registered for this type
    gateway_of(connection).metrics.refusals.labels(error.code).inc()
    user = connection.scope["state"].get("user", "")
    _log.info(
        "refused", user=user, client=client_of(connection), code=error.code, reason=str(error)
    )
    if not isinstance(connection, WebSocket):
        return _refusal(connection, error)
    code = next((code for kind, code in _CLOSE_CODES.items() if isinstance(error, kind)), None)
    if code is None:
        await connection.send_denial_response(_problem(error))
    else:
        await _close(connection, code, error)
    return None


async def _close(socket: WebSocket, code: CloseCode, error: NotifierError) -> None:
    await socket.accept(subprotocol=_subprotocol(socket))
    for frame in (frames.Error(error.code, str(error)), frames.Bye(code, code.reason)):
        await socket.send_text(frames.encode(frame).decode())
    await socket.close(code, code.reason)


def _refusal(request: Request, error: NotifierError) -> Response:
    # EventSource gives up for good on any status but 200: a stream of events tells it to retry.
    passing = next((code for kind, code in _PASSING.items() if isinstance(error, kind)), None)
    if passing and prefers(request.headers.getlist("accept"), sse.MEDIA_TYPE, PROBLEM):
        return Response(sse.farewell(passing), media_type=sse.MEDIA_TYPE)
    return _problem(error)


def _problem(error: NotifierError) -> Response:
    status = next(status for kind, status in _STATUSES.items() if isinstance(error, kind))
    return refusal(error, status)


async def fail(request: Request, _error: Exception) -> Response:
    """Answer a request that met a defect of ours, so that a page of another site may read it."""
    headers = {name.decode(): value.decode("latin-1") for name, value in cors_lines(request)}
    detail = "the gateway failed; its log says why"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "failed", detail, headers)
