"""The entrance: who may come in, as FastAPI dependencies that every transport shares."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection

from notifier.core.access import Identity
from notifier.core.errors import Invalid, NotifierError, Unauthorized, Unavailable
from notifier.core.names import checked_topic
from notifier.core.positions import Position, parse_cursor
from notifier.gateway.gateway import Gateway

SUBPROTOCOL = "notifier.v1"
TOKEN_SUBPROTOCOL = "bearer."  # noqa: S105 - a prefix
COOKIE = "notifier_token"
_NO_QUERY = QueryParams()
_PARAMETERS = ("topics", "since")
_OWN_PARAMETERS = {"/v1/poll": ("wait",), "/v1/history": ("limit",)}
_MISNOMERS = {
    "topic": "topics here: one or several, separated by commas",  # as it is called everywhere else
    "lastEventId": "since here",  # as stand-ins for EventSource call it, unless told otherwise
}
_LONGEST_SHOWN = 32


class WrongOrigin(NotifierError):
    """A page of another site asks for this user's stream."""

    code = "wrong_origin"


@dataclass(frozen=True, slots=True)
class Origins:
    """The allow-list of origins; empty allows only pages from the gateway's own host."""

    allowed: frozenset[str] = frozenset()

    def check(self, connection: HTTPConnection) -> None:
        """Raise WrongOrigin unless the request comes from an allowed page, or from no page."""
        origin = header(connection, b"origin")
        if origin is None or "*" in self.allowed or origin.lower() in self.allowed:
            return
        if not self.allowed and origin.partition("://")[2] == header(connection, b"host"):
            return
        raise WrongOrigin(f"origin {origin[:200]} is not among NOTIFIER_ALLOWED_ORIGINS")

    def headers(self, connection: HTTPConnection) -> dict[str, str]:
        """Return what lets the page that asks read the answer (Fetch standard, section 3.3)."""
        origin = header(connection, b"origin") or ""
        if origin.lower() in self.allowed:
            return {
                "access-control-allow-origin": origin,
                "access-control-allow-credentials": "true",
                "vary": "origin",
            }
        return {"access-control-allow-origin": "*"} if origin and "*" in self.allowed else {}


def header(connection: HTTPConnection, name: bytes) -> str | None:
    """Return the value of a request's header, None without; `name` is in lower case.

    As Starlette's `headers`, which take more than twice as long to find that one is not there.
    """
    for each, value in connection.scope["headers"]:
        if each == name:
            return str(value, "latin-1")
    return None


def query_of(connection: HTTPConnection) -> QueryParams:
    """Return the query's parameters."""
    return connection.query_params if connection.scope["query_string"] else _NO_QUERY


def gateway_of(connection: HTTPConnection) -> Gateway:
    """Return the gateway that the application was made for."""
    gateway: Gateway = connection.app.state.gateway
    return gateway


def admission(connection: HTTPConnection) -> None:
    """Refuse while draining, unable to deliver or full, and refuse pages of other sites."""
    gateway = gateway_of(connection)
    connection.app.state.origins.check(connection)
    for part, trouble in gateway.trouble().items():
        if trouble is not None:  # which /readyz tells in full; strangers get no addresses
            raise Unavailable("gateway", f"{part} is not ready")
    gateway.admit()


def credential(connection: HTTPConnection) -> str | None:
    """Return the token, from the header, a subprotocol or a cookie; None if there is none yet."""
    query = query_of(connection)
    if "token" in query or "access_token" in query:
        raise Unauthorized("a token in the URL ends up in logs; use one of the other ways")
    scheme, _, token = (header(connection, b"authorization") or "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("the Authorization header must be: Bearer <token>")
        return token.strip()
    for offered in connection.scope.get("subprotocols", ()):
        if offered.startswith(TOKEN_SUBPROTOCOL):
            return str(offered.removeprefix(TOKEN_SUBPROTOCOL))
    return _cookie(connection)


def _cookie(connection: HTTPConnection) -> str | None:
    # Browsers attach cookies to any site's requests: only the origin tells whose page it is. To
    # their own site they send none with a GET, but say that it is their own.
    token = connection.cookies.get(COOKIE) if header(connection, b"cookie") else None
    own = header(connection, b"sec-fetch-site") == "same-origin"
    if token and header(connection, b"origin") is None and not own:
        raise Unauthorized("a token in a cookie is only taken together with an Origin header")
    if token and "*" in connection.app.state.origins.allowed:
        raise Unauthorized("a token in a cookie is not taken while NOTIFIER_ALLOWED_ORIGINS is *")
    return token or None


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who came in, and what they want. `identity` is None when the token is still to come."""

    identity: Identity | None
    topics: tuple[str, ...]
    cursor: dict[str, Position]


async def visitor(connection: HTTPConnection) -> Visitor:
    """Establish who came in: the dependency of every transport."""
    # Plain calls: FastAPI would run each dependency that does not wait in a thread of its own.
    admission(connection)
    token = credential(connection)
    gateway = gateway_of(connection)
    query = query_of(connection)
    _check_names(connection.scope["path"], query)
    topics, cursor = _topics(query.get("topics", "")), _cursor(connection)
    identity = None if token is None else await gateway.verifier.verify(token)
    if identity is not None:
        connection.state.user = identity.user  # of whoever is refused from here on
    if identity is not None:
        gateway.terms.check_number(identity, (*topics, *cursor))
    if gateway.draining:  # it may have begun while the token was verified
        raise Unavailable("gateway", "draining")
    return Visitor(identity, topics, cursor)


@dataclass(frozen=True, slots=True)
class Caller:
    """A visitor whose identity is known."""

    identity: Identity
    topics: tuple[str, ...]
    cursor: dict[str, Position]


async def caller(who: Annotated[Visitor, Depends(visitor)]) -> Caller:
    """Establish who came in where no frame can tell: on all transports but WebSocket."""
    if who.identity is None:
        raise Unauthorized("a token is needed, in the header Authorization: Bearer <token>")
    return Caller(who.identity, who.topics, who.cursor)


def _cursor(connection: HTTPConnection) -> dict[str, Position]:
    given = query_of(connection).get("since", "")
    try:
        cursor = parse_cursor(given)
    except Invalid as error:
        raise Invalid("since", error.reason + _remedy(given)) from error
    if not (came_back := header(connection, b"last-event-id")):
        return cursor
    try:
        # It is the newer one, but a topic may have a position in the other alone.
        return cursor | parse_cursor(came_back)
    except Invalid as error:
        raise Invalid("Last-Event-ID", error.reason) from error


def _remedy(text: str) -> str:
    return "; in a URL write + as %2B, as it stands for a space" if " " in text else ""


def _check_names(path: str, query: QueryParams) -> None:
    own = _OWN_PARAMETERS.get(path, ())
    given = [name for name, _ in query.multi_items()]
    for name in given:
        if name.startswith("_"):
            continue
        if name in _PARAMETERS or name in own:
            if given.count(name) > 1:
                raise Invalid(name, "is given more than once; separate several by commas")
            continue
        if name in _MISNOMERS:
            raise Invalid(name, f"is called {_MISNOMERS[name]}")
        there_are = ", ".join((*_PARAMETERS, *own))
        # Cut off, as it may be a token that stands there without a name.
        raise Invalid(name[:_LONGEST_SHOWN], f"is no parameter here; there are {there_are}")


def _topics(text: str) -> tuple[str, ...]:
    topics = tuple(dict.fromkeys(text.split(","))) if text else ()
    for topic in topics:
        try:
            checked_topic(topic, "topics")
        except Invalid as error:
            raise Invalid(
                "topics", f"{error.reason}, separated by commas{_remedy(text)}"
            ) from error
    return topics
