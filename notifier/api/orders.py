"""Control: the routes by which backends and operators end sessions and revoke tokens."""

from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import Depends, FastAPI, Path, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from notifier.api import description
from notifier.api.keys import granted
from notifier.api.requests import check_parameters
from notifier.core.control import Act
from notifier.core.dates import iso
from notifier.core.errors import NotifierError, Unavailable
from notifier.core.grants import Grant, Scope
from notifier.core.names import PATTERN, checked_name, personal_topic
from notifier.core.ports import SharedPorts
from notifier.http.proxies import client_of
from notifier.problems import refusal
from notifier.telemetry.metrics import Metrics

_audit = structlog.get_logger("notifier.audit")
_LONGEST_SHOWN = 200
_SLASHES = 4  # of an order's path; one within the user's id is sent as %2F


def add_routes(app: FastAPI) -> None:
    """Add the routes of control to the api's application."""
    for act, endpoint in ((Act.DISCONNECT, disconnect), (Act.REVOKE, revoke)):
        # A user's id may have a slash, which a URL has as %2F.
        path = f"/v1/users/{{user:path}}/{act}"
        app.add_api_route(path, endpoint, methods=["POST"], **description.ORDERS[act])


Granted = Annotated[Grant, Depends(granted)]
User = Annotated[
    str,
    # Only described, as `_give` names the rule in our own words.
    Path(description="The user's id.", json_schema_extra={"pattern": f"^{PATTERN}$"}),
]


async def disconnect(request: Request, user: User, grant: Granted) -> Response:
    """End the connections that a user has now, on every gateway; they may come back."""
    return await _give(request, Act.DISCONNECT, user, grant)


async def revoke(request: Request, user: User, grant: Granted) -> Response:
    """Refuse the tokens that a user was issued until now, and end the sessions that they opened."""
    return await _give(request, Act.REVOKE, user, grant)


async def _give(request: Request, act: Act, user: str, grant: Grant) -> Response:
    """Give an order, log it with the key that gave it, and answer with its moment."""
    check_parameters(request)
    if request.scope["raw_path"].count(b"/") != _SLASHES:  # else it is not this user's
        raise HTTPException(HTTPStatus.NOT_FOUND)
    grant.check(Scope.CONTROL)
    grant.check_topic(personal_topic(checked_name(user, "user")))
    order = await shared_of(request).control.give(act, user)
    metrics: Metrics = request.app.state.metrics
    metrics.orders.labels(act).inc()
    _audit.info("ordered", act=act, user=user, key=grant.name, client=client_of(request))
    answer = {"user": user, "act": act, "time": iso(order.moment)}
    return JSONResponse(answer, HTTPStatus.ACCEPTED)


def shared_of(request: Request) -> SharedPorts:
    """Return the ports of the api that is asked; raises Unavailable where it has none."""
    shared: SharedPorts | None = request.app.state.shared
    if shared is None:
        raise Unavailable("redis", "this api has none; set NOTIFIER_REDIS_URL")
    return shared


def refuse(request: Request, error: NotifierError, status: HTTPStatus) -> Response:
    """Answer a request about a user that is refused, and tell the log by whom it was."""
    named = getattr(request.state, "key", "")
    path, client = request.url.path[:_LONGEST_SHOWN], client_of(request)
    _audit.warning("refused", path=path, key=named, client=client, reason=str(error))
    return refusal(error, status)
