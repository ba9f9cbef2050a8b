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
from notifier.core.ports import Control
from notifier.http.proxies import client_of
from notifier.problems import problem_of, refusal
from notifier.telemetry.metrics import Metrics

_audit = structlog.get_logger("notifier.audit")
_LONGEST_SHOWN = 200
_SLASHES = 4  # of an order's path; one within the user's id is sent as %2F
NO_REDIS = Unavailable("redis", "this api has none; set NOTIFIER_REDIS_URL")


class OrderGiver:
    """Gives orders about users, and logs each with the key that gave it."""

    def __init__(self, control: Control | None, metrics: Metrics) -> None:
        self._control = control
        self._metrics = metrics

    async def give(self, act: Act, user: str, grant: Grant, client: str) -> Response:
        """Give an order and answer with its moment; raises Invalid, Forbidden, Unavailable."""
        grant.check(Scope.CONTROL)
        grant.check_topic(personal_topic(checked_name(user, "user")))
        if self._control is None:
            raise NO_REDIS
        order = await self._control.give(act, user)
        self._metrics.orders.labels(act).inc()
        _audit.info("ordered", act=act, user=user, key=grant.name, client=client)
        answer = {"user": user, "act": act, "time": iso(order.moment)}
        return JSONResponse(answer, HTTPStatus.ACCEPTED)


def add_routes(app: FastAPI, control: Control | None, metrics: Metrics) -> None:
    """Add the routes of control to the api's application."""
    app.state.order_giver = OrderGiver(control, metrics)
    for act, endpoint in ((Act.DISCONNECT, disconnect), (Act.REVOKE, revoke)):
        # A user's id may have a slash, which a URL has as %2F.
        path = f"/v1/users/{{user:path}}/{act}"
        app.add_api_route(path, endpoint, methods=["POST"], **description.ORDERS[act])


Granted = Annotated[Grant, Depends(granted)]
User = Annotated[
    str,
    # Only described, as `give` names the rule in our own words.
    Path(description="The user's id.", json_schema_extra={"pattern": f"^{PATTERN}$"}),
]


async def disconnect(request: Request, user: User, grant: Granted) -> Response:
    """End the connections that a user has now, on every gateway; they may come back."""
    return await _give(request, Act.DISCONNECT, user, grant)


async def revoke(request: Request, user: User, grant: Granted) -> Response:
    """Refuse the tokens that a user was issued until now, and end the sessions that they opened."""
    return await _give(request, Act.REVOKE, user, grant)


async def _give(request: Request, act: Act, user: str, grant: Grant) -> Response:
    check_parameters(request)
    if request.scope["raw_path"].count(b"/") != _SLASHES:  # else it is not this user's
        raise HTTPException(HTTPStatus.NOT_FOUND)
    order_giver: OrderGiver = request.app.state.order_giver
    return await order_giver.give(act, user, grant, client_of(request))


def refuse(request: Request, error: NotifierError, status: HTTPStatus) -> Response:
    """Answer a request about a user that is refused, and tell the log by whom it was."""
    named = getattr(request.state, "key", "")
    path, client = request.url.path[:_LONGEST_SHOWN], client_of(request)
    _audit.warning("refused", path=path, key=named, client=client, reason=str(error))
    return refusal(error, problem_of(error, status), {})
