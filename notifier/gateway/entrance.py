"""The entrance: FastAPI dependencies, shared by every transport, that let a client in."""

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from notifier.core.access import Identity
from notifier.core.errors import Invalid, NotifierError, TokenExpired, Unauthorized, Unavailable
from notifier.core.header_lists import values_of
from notifier.core.names import checked_topic
from notifier.core.origins import Origins, is_https
from notifier.core.positions import Position, parse_cursor
from notifier.gateway.gateway import Caller, Gateway, Visitor

SUBPROTOCOL = "notifier.v1"
TOKEN_SUBPROTOCOL = "bearer."  # noqa: S105 - a prefix
COOKIE = "notifier_token"
_MOST_TOKENS = 4  # that are verified: each takes a signature
_BEARER = re.compile(r"(?:^|,)\s*bearer\s+([^\s,]+)\s*(?=,|$)", re.IGNORECASE)
_BARE_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]*")
_NO_QUERY: Mapping[str, str] = {}  # Starlette's raise and catch an error for each name they lack
_PARAMETERS = ("topics", "since")
_DIGITS = re.compile(r"[0-9]{1,9}")
_OWN_PARAMETERS = {
    "/v1/ws": ("marks", "presence"),
    "/v1/sse": ("marks", "presence"),
    "/v1/poll": ("wait", "marks"),
    "/v1/history": ("limit", "order", "before"),
}
# The marks that a poll knows already: the names of `notifier.gateway.poll`.
_KNOWN_MARKS = re.compile(r"true|[0-9a-f]{8}(?:,[0-9a-f]{8}){0,101}")
_MISNOMERS = {
    "topic": "topics here: one or several, separated by commas",  # as it is called everywhere else
    "lastEventId": "since here",  # as stand-ins for EventSource call it, unless told otherwise
}
_POSTED = ("/v1/marks", "/v1/publish")  # their bodies have it all
_ASK_ONCE = ("/v1/history", *_POSTED)  # connected clients need them, also of a full gateway
_LONGEST_SHOWN = 32


class WrongOrigin(NotifierError):
    """A page of another site asks for this user's stream."""

    code = "wrong_origin"


def check_origin(connection: HTTPConnection) -> None:
    """Raise WrongOrigin unless the request comes from an allowed page, or from no page."""
    if not (origin := header(connection, b"origin")):
        return
    origins: Origins = connection.app.state.origins
    if not origins.allow(origin, connection.scope["headers"]):
        raise WrongOrigin(f"origin {origin[:200]} is not among NOTIFIER_ALLOWED_ORIGINS")


def header(connection: HTTPConnection, name: bytes) -> str | None:
    """Return the value of a request's header, None without; `name` is in lower case.

    As Starlette's `headers`, which take more than twice as long to find that one is not there.
    """
    for each, value in connection.scope["headers"]:
        if each == name:
            return str(value, "latin-1")
    return None


def query_of(connection: HTTPConnection) -> Mapping[str, str]:
    """Return the query's parameters."""
    return connection.query_params if connection.scope["query_string"] else _NO_QUERY


def number_of(connection: HTTPConnection, name: str, usual: int, least: int, most: int) -> int:
    """Return a parameter that is a whole number, `usual` if it is left out; raises Invalid."""
    text = query_of(connection).get(name, str(usual))
    # At most so many digits: int refuses thousands of them by an error of its own.
    if not (_DIGITS.fullmatch(text) and least <= int(text) <= most):
        raise Invalid(name, f"must be a whole number from {least} to {most}")
    return int(text)


def gateway_of(connection: HTTPConnection) -> Gateway:
    """Return the gateway that the application was made for."""
    gateway: Gateway = connection.app.state.gateway
    return gateway


def check_admission(connection: HTTPConnection, gateway: Gateway, path: str) -> None:
    """Refuse while draining, unable to deliver or full, and refuse pages of other sites."""
    check_origin(connection)
    for part, trouble in gateway.trouble().items():
        if trouble is not None:  # which /readyz tells in full; strangers get no addresses
            raise Unavailable("gateway", f"{part} is not ready")
    gateway.admission.admit(stays=path not in _ASK_ONCE)


def credentials(connection: HTTPConnection, query: Mapping[str, str]) -> list[str]:
    """Return the token, from the header, a subprotocol or a cookie; none if it is still to come.

    Several cookies may have the name, for several paths or domains, and a proxy may add a token of
    its own to the header: any of them may be the one.
    """
    if "token" in query or "access_token" in query:
        raise Unauthorized("a token in the URL ends up in logs; use one of the other ways")
    if tokens := _bearers(connection):
        return tokens
    for offered in connection.scope.get("subprotocols", ()):
        if offered.startswith(TOKEN_SUBPROTOCOL):
            return [str(offered.removeprefix(TOKEN_SUBPROTOCOL))]
    return _cookies(connection)


def _bearers(connection: HTTPConnection) -> list[str]:
    # Another scheme is for a proxy on the way, such as Basic for that of a staging site.
    tokens: list[str] = []
    for line in values_of(connection.scope["headers"], b"authorization"):
        text = line.strip()
        found = _BEARER.findall(text)
        if not found and (text.lower().startswith("bearer") or _BARE_TOKEN.fullmatch(text)):
            raise Unauthorized("the Authorization header must be: Bearer <token>")
        tokens += found
    return list(dict.fromkeys(tokens))[:_MOST_TOKENS]


def _cookies(connection: HTTPConnection) -> list[str]:
    lines = values_of(connection.scope["headers"], b"cookie")
    tokens = [
        value.strip().strip('"')
        for line in lines
        for name, _, value in (each.partition("=") for each in line.split(";"))
        if name.strip() == COOKIE and value.strip()
    ]
    if tokens:
        _check_page_of_cookie(connection)
    return list(dict.fromkeys(tokens))[:_MOST_TOKENS]


def _check_page_of_cookie(connection: HTTPConnection) -> None:
    # Browsers attach cookies to any site's requests: only the origin tells whose page it is. To
    # their own site they send none with a GET, but say that it is their own.
    origin = header(connection, b"origin")
    if not origin and header(connection, b"sec-fetch-site") != "same-origin":
        raise Unauthorized("a token in a cookie is only taken together with an Origin header")
    if connection.app.state.origins.is_open:
        raise Unauthorized("a token in a cookie is not taken while NOTIFIER_ALLOWED_ORIGINS is *")
    # Anyone on the way can write such a page, and it is of the own host otherwise.
    is_plain = (origin or "").lower().startswith("http://")
    if is_plain and is_https(connection.scope["headers"]):
        raise Unauthorized("a token in a cookie is not taken over https from a page over http")


async def _verified(gateway: Gateway, tokens: list[str]) -> Identity | None:
    """Return the identity of the first good token, None without any; raises the mildest error."""
    failures: list[NotifierError] = []
    for token in tokens:
        try:
            return await gateway.verify(token)
        except NotifierError as error:
            failures.append(error)
    if failures:
        # An error that passes by itself allows the client to reconnect.
        raise min(failures, key=lambda each: not isinstance(each, Unavailable | TokenExpired))
    return None


async def visitor(connection: HTTPConnection) -> Visitor:
    """Authenticate the client: the dependency of every transport."""
    # Plain calls: FastAPI would run each dependency that does not wait in a thread of its own.
    gateway = gateway_of(connection)
    path = connection.scope["path"].rstrip("/")
    check_admission(connection, gateway, path)
    query = query_of(connection)
    tokens = credentials(connection, query)
    if query:
        _check_names(path, [name for name, _ in connection.query_params.multi_items()])
    topics, cursor = _topics(query.get("topics", "")), _cursor(connection, query)
    marks, presence = _wants_marks(path, query), _wants_presence(query)
    identity = await _verified(gateway, tokens)
    if identity is not None:
        connection.scope["state"]["user"] = identity.user  # for the log, if it is refused later
        gateway.terms.check_number(identity, (*topics, *cursor))
    if gateway.draining:  # it may have begun while the token was verified
        raise Unavailable("gateway", "draining")
    return Visitor(identity, topics, cursor, marks, presence)


async def caller(who: Annotated[Visitor, Depends(visitor)]) -> Caller:
    """Authenticate the client where no frame can: on all transports but WebSocket."""
    if who.identity is None:
        raise Unauthorized("a token is needed, in the header Authorization: Bearer <token>")
    return Caller(*who)


def _wants_marks(path: str, query: Mapping[str, str]) -> bool:
    if (given := query.get("marks")) is None:
        return False
    if given != "true" and not (path == "/v1/poll" and _KNOWN_MARKS.fullmatch(given)):
        raise Invalid("marks", "must be true; with long-poll, afterwards the marks of its answer")
    return True


def _wants_presence(query: Mapping[str, str]) -> bool:
    if (given := query.get("presence")) not in (None, "true"):
        raise Invalid("presence", "must be true")
    return given is not None


def _cursor(connection: HTTPConnection, query: Mapping[str, str]) -> dict[str, Position]:
    given = query.get("since", "")
    try:
        cursor = parse_cursor(given)
    except Invalid as error:
        raise Invalid("since", error.reason + _remedy(given)) from error
    if not (came_back := _last_event_id(connection)):
        return cursor
    try:
        # It is the newer one, but a topic may have a position in the other alone.
        return cursor | parse_cursor(came_back)
    except Invalid as error:
        raise Invalid("Last-Event-ID", error.reason) from error


def _last_event_id(connection: HTTPConnection) -> str:
    """Return all that the header says: proxies repeat one, and join several (RFC 9110, 5.3)."""
    lines = values_of(connection.scope["headers"], b"last-event-id")
    if not lines:
        return ""
    items = [item.strip(" \t") for line in lines for item in line.split(",") if line]
    return ",".join(dict.fromkeys(items))


def _remedy(text: str) -> str:
    return "; in a URL write + as %2B, as it stands for a space" if " " in text else ""


def _check_names(path: str, given: list[str]) -> None:
    own = _OWN_PARAMETERS.get(path, ())
    common = () if path in _POSTED else _PARAMETERS
    for name in given:
        if name.startswith("_"):
            continue
        if name in common or name in own:
            if given.count(name) > 1:
                raise Invalid(name, "is given more than once; separate several by commas")
            continue
        if common and name in _MISNOMERS:
            raise Invalid(name, f"is called {_MISNOMERS[name]}")
        there_are = ", ".join((*common, *own)) or "none"
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
