"""The producers' HTTP application: it validates events, and answers 202 once they are confirmed."""

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import structlog
from fastapi import Depends, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from notifier.api import description, fate, orders, presence
from notifier.api.keys import ApiKeys, granted
from notifier.api.requests import body_of
from notifier.core import entries, events, ingress
from notifier.core.errors import (
    Forbidden,
    Invalid,
    NotifierError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreadable,
    Unsupported,
    UnsupportedCoding,
)
from notifier.core.events import Event
from notifier.core.grants import Grant, Scope
from notifier.core.ingress import Body, Parts
from notifier.core.ports import EventQueue, SharedPorts
from notifier.http.proxies import Proxies, client_of
from notifier.openapi import Application
from notifier.problems import RETRY_AFTER, no_route, problem_of, refusal
from notifier.telemetry.metrics import Metrics

_log = structlog.get_logger("notifier.api")
_logged = logging.getLogger("notifier.api")  # to ask it once rather than for each event
# The first match counts, so special ones stand before general ones.
_STATUSES: Mapping[type[NotifierError], HTTPStatus] = {
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Unsupported: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Unreadable: HTTPStatus.BAD_REQUEST,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
# The accepted types and codings (RFC 9110, sections 12.5.3 and 15.5.16).
_TAKEN = {
    UnsupportedCoding: {"accept-encoding": "gzip"},
    Unsupported: {
        "accept": "application/json, application/cloudevents+json, "
        "application/cloudevents-batch+json"
    },
}
_OFFERS = (
    "POST /v1/events, POST /v1/users/{id}/disconnect and revoke, GET /v1/users/{id} and "
    "/v1/users/{id}/events/{event id}, and POST /v1/presence"
)
_ORIGIN = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Producer:
    """The producer of a post: its grant, and the defaults for members that an event leaves out."""

    grant: Grant
    traceparent: str | None

    def complete(self, event: Event, now: float) -> Event:
        """Complete an event that this producer may post; raises Invalid, Forbidden."""
        if not event.has_audience:
            raise Invalid("users", "is missing: name users, topic or everyone")
        self.grant.check_audience(event)
        traced = events.with_traceparent(event, self.traceparent)
        return events.completed(traced, source=self.grant.name, now=now)


class EventAcceptor:
    """Takes events in: completes them, puts them on the event queue, and counts."""

    def __init__(self, queue: EventQueue, metrics: Metrics) -> None:
        self._queue = queue
        self._metrics = metrics

    async def accept(self, event: Event, producer: Producer) -> str:
        """Return the event's id once it is confirmed by the event queue.

        Raises Invalid, Forbidden, Unavailable.
        """
        now = time.time()
        complete = producer.complete(event, now)
        await self._queue.put(entries.entry_of(complete, now))
        self._count([complete], now)
        return str(complete.id)

    async def accept_each(
        self, read: Callable[[bytes], Event], bodies: list[bytes], producer: Producer
    ) -> list[dict[str, Any]]:
        """Accept a batch's events together; the answers stand in the order of the events."""
        now = time.time()
        understood = [_understood(read, body, producer, now) for body in bodies]
        complete = [each for each in understood if isinstance(each, Event)]
        outcomes = await self._queue.put_each([entries.entry_of(each, now) for each in complete])
        accepted = [each for each, failure in zip(complete, outcomes, strict=True) if not failure]
        self._count(accepted, now)
        failures = iter(outcomes)
        return [
            self._answer(each, next(failures)) if isinstance(each, Event) else self._problem(each)
            for each in understood
        ]

    def _answer(self, event: Event, failure: NotifierError | None) -> dict[str, Any]:
        return self._problem(failure) if failure else {"status": 202, "id": event.id}

    def _count(self, accepted: Sequence[Event], now: float) -> None:
        self._metrics.events.labels("accepted").inc(len(accepted))
        self._metrics.reached("confirmed", [now] * len(accepted))
        if _logged.isEnabledFor(logging.DEBUG):
            for event in accepted:
                _log.debug("accepted", event_id=event.id, source=event.source)

    def _problem(self, error: NotifierError) -> dict[str, Any]:
        self._metrics.rejections.labels(error.code).inc()
        return problem_of(error, _status_of(error))


def _understood(
    read: Callable[[bytes], Event], body: bytes, producer: Producer, now: float
) -> Event | NotifierError:
    try:
        return producer.complete(read(body), now)
    except (Invalid, Forbidden) as error:
        return error


def create_app(  # noqa: PLR0913 - the parts of an api
    queue: EventQueue,
    metrics: Metrics,
    keys: ApiKeys,
    trusted_proxies: Iterable[str] = (),
    *,
    shared: SharedPorts | None = None,
    docs: bool = True,
) -> FastAPI:
    """Make the application around an event queue.

    Without `shared` ports it takes events alone. With `docs` it describes itself, to anybody.
    """
    app = Application("notifier producer API", description.API, description.SECURITY, docs=docs)
    app.state.acceptor = EventAcceptor(queue, metrics)
    app.state.metrics, app.state.keys, app.state.shared = metrics, keys, shared
    app.state.proxies = Proxies(trusted_proxies)
    app.add_endpoint("POST", "/v1/events", post_events, **description.POST_EVENTS)
    app.add_endpoint("OPTIONS", "/v1/events", validate_webhook, **description.VALIDATE_WEBHOOK)
    app.add_exception_handler(NotifierError, _refuse)
    orders.add_routes(app)
    fate.add_routes(app)
    presence.add_routes(app)
    app.add_exception_handler(HTTPException, no_route(_OFFERS))
    return app


async def post_events(request: Request, grant: Annotated[Grant, Depends(granted)]) -> Response:
    """Accept one event, or a batch of up to 1,000.

    202 says that the event queue has confirmed all of it. A batch is answered item by item, with
    207 when the items did not all end alike.
    """
    acceptor: EventAcceptor = request.app.state.acceptor
    producer = Producer(grant, request.headers.get("traceparent"))
    grant.check(Scope.POST)
    body = request.state.body = await body_of(request)
    parts = ingress.parts_of(body)
    if parts.is_batch:
        return await _batch(request, parts, producer)
    [content] = parts.bodies
    return JSONResponse({"id": await acceptor.accept(parts.read(content), producer)}, 202)


async def validate_webhook(request: Request) -> Response:
    """Agree to events of any sender that asks first (CloudEvents' web hooks 1.0.2, section 4).

    That needs no key: each event does.
    """
    headers = {"allow": "OPTIONS, POST"}
    if (origin := request.headers.get("webhook-request-origin")) is not None:
        if not _ORIGIN.fullmatch(origin):
            raise Invalid("WebHook-Request-Origin", "must be the name of a host")
        headers |= {"webhook-allowed-origin": origin, "webhook-allowed-rate": "*"}
    return Response(None, HTTPStatus.OK, headers)


async def _batch(request: Request, parts: Parts, producer: Producer) -> Response:
    acceptor: EventAcceptor = request.app.state.acceptor
    results = await acceptor.accept_each(parts.read, parts.bodies, producer)
    _log_refused(request, parts, results)
    statuses = {result["status"] for result in results}
    status = statuses.pop() if len(statuses) == 1 else HTTPStatus.MULTI_STATUS
    headers = RETRY_AFTER if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return JSONResponse({"results": results}, status, headers)


def _log_refused(request: Request, parts: Parts, results: list[dict[str, Any]]) -> None:
    """Log the first refused event and the number of them: one line a request."""
    bad = [index for index, result in enumerate(results) if "id" not in result]
    if bad:
        first = results[bad[0]]
        event_id = ingress.id_in(parts.bodies[bad[0]], {})
        said = {"code": first["code"], "reason": first["detail"], "event_id": event_id}
        _log.info("events_refused", count=len(bad), **_who(request), **said)


def _who(request: Request) -> dict[str, str]:
    named = getattr(request.state, "key", "")
    return {"producer": named, "client": client_of(request)}


def _status_of(error: NotifierError) -> HTTPStatus:
    return next(status for kind, status in _STATUSES.items() if isinstance(error, kind))


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotifierError)  # noqa: S101 - registered for this type
    if not request.url.path.startswith("/v1/events"):
        return orders.refuse(request, error, _status_of(error))
    body: Body = getattr(request.state, "body", Body(b""))
    said = _who(request) | {"event_id": ingress.id_in(body.content, body.attributes)}
    if isinstance(error, Unavailable):
        _log.warning("event_not_accepted", reason=str(error), **said)
    else:
        _log.info("event_refused", code=error.code, reason=str(error), **said)
    request.app.state.metrics.rejections.labels(error.code).inc()
    taken = next((more for kind, more in _TAKEN.items() if isinstance(error, kind)), None)
    return refusal(error, _status_of(error), taken)
