"""Presence: the routes by which backends ask who is connected."""

from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from notifier.api import description
from notifier.api.orders import Granted, User, shared_of
from notifier.api.requests import check_parameters
from notifier.bodies import plain_content_of
from notifier.core.bounded_json import read_json
from notifier.core.control import Act
from notifier.core.errors import Invalid, TooLarge
from notifier.core.grants import Grant, Scope
from notifier.core.names import LONGEST_NAME, checked_name, personal_topic
from notifier.core.presence import MOST_USERS, Presence

_LARGEST_BODY = MOST_USERS * (LONGEST_NAME + 16)
_RULES = {"users": f"must be a list of 1 to {MOST_USERS} ids of users"}


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    users: list[str]


_asked = msgspec.json.Decoder(_Asked)


def add_routes(app: FastAPI) -> None:
    """Add the routes of presence to the api's application."""
    app.add_api_route(
        "/v1/users/{user:path}", of_user, methods=["GET"], **description.PRESENCE_OF_USER
    )
    app.add_api_route("/v1/presence", of_users, methods=["POST"], **description.PRESENCE)


async def of_user(request: Request, user: User, grant: Granted) -> Response:
    """Tell a user's connections: where, since when, and how far each topic is served."""
    _check_path(request.scope["raw_path"])
    check_parameters(request)
    found = await _ask(request, [user], grant, "user", detailed=True)
    answer = {
        "user": user,
        "count": found.counts[user],
        "connections": found.connections,
        "complete": found.complete,
    }
    return answer_of(answer)


def _check_path(raw: bytes) -> None:
    """Refuse a path that is of an order, or of nothing: a slash within an id is sent as %2F."""
    match raw.decode("latin-1").split("/")[3:]:
        case [_]:
            pass
        case [_, act] if act in tuple(Act):
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": "POST"})
        case _:
            raise HTTPException(HTTPStatus.NOT_FOUND)


async def of_users(request: Request, grant: Granted) -> Response:
    """Tell how many connections each of up to 1,000 users has."""
    grant.check(Scope.READ)
    check_parameters(request)
    body = await plain_content_of(request, _LARGEST_BODY)
    users = read_json(body, _asked, _LARGEST_BODY, _RULES).users
    if not users:
        raise Invalid("users", "must name at least one user")
    if len(users) > MOST_USERS:
        raise TooLarge("users", f"at most {MOST_USERS} users a question; this has {len(users)}")
    found = await _ask(request, list(dict.fromkeys(users)), grant, "users[{}]")
    return answer_of({"users": found.counts, "complete": found.complete})


async def _ask(
    request: Request, users: Sequence[str], grant: Grant, field: str, *, detailed: bool = False
) -> Presence:
    grant.check(Scope.READ)
    for index, user in enumerate(users):
        grant.check_topic(personal_topic(checked_name(user, field.format(index))))
    return await shared_of(request).presence_queries.ask(users, detailed=detailed)


def answer_of(answer: object) -> Response:
    """Return the response with this as its JSON."""
    return Response(msgspec.json.encode(answer), media_type="application/json")
