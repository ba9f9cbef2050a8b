"""The producers' HTTP application: it validates events, and answers 202 once they are confirmed."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import unquote

import structlog
from fastapi import Depends, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from notifier.api.keys import ApiKeys
from notifier.core import cloudevents, events, ingress
from notifier.core.errors import (
    Invalid,
    NotifierError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreadable,
)
from notifier.core.events import Event
from notifier.core.ports import EventQueue
from notifier.problems import RETRY_AFTER, no_route, problem_of, refusal
from notifier.telemetry.metrics import Metrics

_log = structlog.get_logger("notifier.api")
_logged = logging.getLogger("notifier.api")  # to ask it once rather than for each event
# The first that matches, so what is special stands before what is general.
_STATUSES: Mapping[type[NotifierError], HTTPStatus] = {
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Unreadable: HTTPStatus.BAD_REQUEST,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
_UNSUPPORTED = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class UnsupportedType(NotifierError):
    """The content type is not one that can carry an event."""

    code = "unsupported_type"


@dataclass(frozen=True, slots=True)
class Unsaid:
    """What stands for what an event does not say: its producer's name, and a header."""

    source: str
    traceparent: str | None


class Accepting:
    """Takes events in: completes them, puts them on the event queue, and counts."""

    def __init__(self, queue: EventQueue, metrics: Metrics) -> None:
        self._queue = queue
        self._metrics = metrics

    async def accept(self, event: Event, unsaid: Unsaid) -> str:
        """Return the event's id once it is confirmed by the event queue.

        Raises Invalid, Unavailable.
        """
        now = time.time()
        complete = _complete(event, unsaid, now)
        await self._queue.put(ingress.entry_of(complete, now))
        self._count([complete], now)
        return str(complete.id)

    async def accept_each(
        self, read: Callable[[bytes], Event], bodies: list[bytes], unsaid: Unsaid
    ) -> list[dict[str, Any]]:
        """Accept a batch's events together; the answers stand in the order of the events."""
        now = time.time()
        understood = [_understood(read, body, unsaid, now) for body in bodies]
        complete = [each for each in understood if isinstance(each, Event)]
        outcomes = await self._queue.put_each([ingress.entry_of(each, now) for each in complete])
        accepted = [each for each, failure in zip(complete, outcomes, strict=True) if not failure]
        self._count(accepted, now)
        failures = iter(outcomes)
        return [
            self._answer(each, next(failures)) if isinstance(each, Event) else self.problem(each)
            for each in understood
        ]

    def _answer(self, event: Event, failure: NotifierError | None) -> dict[str, Any]:
        return self.problem(failure) if failure else {"status": 202, "id": event.id}

    def _count(self, accepted: Sequence[Event], now: float) -> None:
        self._metrics.events.labels("accepted").inc(len(accepted))
        self._metrics.reached("confirmed", [now] * len(accepted))
        if _logged.isEnabledFor(logging.DEBUG):
            for event in accepted:
                _log.debug("accepted", event_id=event.id, source=event.source)

    def problem(self, error: NotifierError) -> dict[str, Any]:
        """Return the problem (RFC 9457) that answers a refused event, and count it."""
        self._metrics.rejections.labels(error.code).inc()
        return problem_of(error, _status_of(error))


def _understood(
    read: Callable[[bytes], Event], body: bytes, unsaid: Unsaid, now: float
) -> Event | NotifierError:
    try:
        return _complete(read(body), unsaid, now)
    except Invalid as error:
        return error


def _complete(event: Event, unsaid: Unsaid, now: float) -> Event:
    if not event.has_audience:
        raise Invalid("users", "is missing: name users, topic or everyone")
    traced = events.with_traceparent(event, unsaid.traceparent)
    return events.completed(traced, source=unsaid.source, now=now)


def create_app(queue: EventQueue, metrics: Metrics, keys: ApiKeys) -> FastAPI:
    """Make the application around an event queue."""
    # No pages of FastAPI's: bodies are read here, so they would show none, with scripts of others.
    app = FastAPI(title="notifier producer API", openapi_url=None)
    app.state.accepting = Accepting(queue, metrics)
    app.state.keys = keys
    app.add_api_route("/v1/events", post_events, methods=["POST"], status_code=202)
    app.add_exception_handler(NotifierError, _refuse)
    app.add_exception_handler(HTTPException, no_route("POST /v1/events"))
    return app


def producer(request: Request) -> str:
    """Return the name of the producer whose API key came along; raises Unauthorized."""
    keys: ApiKeys = request.app.state.keys
    return keys.name_of(request.headers.get("authorization", ""))


async def body_of(request: Request) -> bytes:
    """Read the body, at most a batch's bytes of it; raises TooLarge."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > events.LARGEST_BATCH:
            raise TooLarge("", f"a body has at most {events.LARGEST_BATCH} bytes")
    return bytes(body)


async def post_events(request: Request, name: Annotated[str, Depends(producer)]) -> Response:
    """Accept one event, or a batch of up to 1,000.

    202 says that the event queue has confirmed all of it. A batch is answered item by item, with
    207 when the items did not all end alike.
    """
    accepting: Accepting = request.app.state.accepting
    body = await body_of(request)
    unsaid = Unsaid(name, request.headers.get("traceparent"))
    media = cloudevents.media_type(request.headers.get("content-type", "application/json"))
    attributes = _attributes_in(request.headers)
    if attributes and not media.startswith("application/cloudevents"):
        event = cloudevents.binary(attributes, request.headers.get("content-type", ""), body)
    elif media == cloudevents.STRUCTURED:
        event = cloudevents.structured(body)
    elif media == cloudevents.BATCHED:
        return await _batch(accepting, cloudevents.structured, body, unsaid)
    elif media != "application/json":
        raise UnsupportedType(f"send application/json, or CloudEvents; not {media[:100]}")
    elif body.lstrip()[:1] == b"[":
        return await _batch(accepting, events.decode, body, unsaid)
    else:
        event = events.decode(body)
    return JSONResponse({"id": await accepting.accept(event, unsaid)}, HTTPStatus.ACCEPTED)


def _attributes_in(headers: Mapping[str, str]) -> dict[str, object]:
    # Values are percent-encoded: CloudEvents HTTP protocol binding, section 3.1.3.2.
    return {
        name[len("ce-") :]: unquote(value)
        for name, value in headers.items()
        if name.startswith("ce-")
    }


async def _batch(
    accepting: Accepting, read: Callable[[bytes], Event], body: bytes, unsaid: Unsaid
) -> Response:
    bodies = ingress.items(body)
    if not bodies:
        raise Invalid("", "the batch is empty")
    results = await accepting.accept_each(read, bodies, unsaid)
    statuses = {result["status"] for result in results}
    status = statuses.pop() if len(statuses) == 1 else HTTPStatus.MULTI_STATUS
    headers = RETRY_AFTER if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return JSONResponse({"results": results}, status, headers)


def _status_of(error: NotifierError) -> HTTPStatus:
    return next((s for kind, s in _STATUSES.items() if isinstance(error, kind)), _UNSUPPORTED)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotifierError)  # noqa: S101 - registered for this type
    if isinstance(error, Unavailable):
        _log.warning("event_not_accepted", reason=str(error))
    return refusal(error, request.app.state.accepting.problem(error), {})
