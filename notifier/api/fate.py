"""The fate of an event: the route by which backends ask why a user did (not) get it."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import FastAPI, Path, Request
from starlette.responses import Response

from notifier.api import description, presence
from notifier.api.orders import Granted, User, shared_of
from notifier.api.presence import answer_of
from notifier.api.requests import check_parameters
from notifier.core.dates import iso
from notifier.core.errors import Invalid, unfailed
from notifier.core.event_rules import LONGEST_TEXT, LONGEST_WORD
from notifier.core.fate import Fate, Found, Place, Sought, fates
from notifier.core.grants import Grant, Scope
from notifier.core.marks import UNMARKED, Mark
from notifier.core.names import EVERYONE, checked_name, checked_topic, personal_topic
from notifier.core.presence import Presence

_MOST_TOPICS = 100  # that are looked at: their history is read
_BECAUSE = {
    Fate.READ: "the user has marked it read",
    Fate.RECEIVED: "a device of the user has marked it received",
    Fate.PUBLISHED: "it is in the stream, and no device has marked it",
    Fate.SUPERSEDED: "a newer event has its collapse key: a client that reconnects gets that one",
    Fate.EXPIRED: "its time was over before a device marked it",
    Fate.BEYOND_HISTORY: "it was published, and history no longer holds it",
    Fate.NOT_PUBLISHED: "no topic of the user has it: it was not accepted, waits in the event "
    "queue, is a dead letter, or is older than history and the deduplication window",
}
_NO_SOURCE = "; without its source only history was searched"


def add_routes(app: FastAPI) -> None:
    """Add the route to the api's application, before that of a user, whose id may have slashes."""
    path = "/v1/users/{user:path}/events/{event:path}"
    app.add_api_route(path, of_event, methods=["GET"], **description.FATE)


EventId = Annotated[
    str,
    Path(
        description="The event's id.",
        json_schema_extra={"minLength": 1, "maxLength": LONGEST_WORD},
    ),
]


async def of_event(request: Request, user: User, event: EventId, grant: Granted) -> Response:
    """Tell how far an event came towards a user, in each of the user's topics, and why."""
    # The path as it was sent: a slash within an id is %2F there.
    match request.scope["raw_path"].decode("latin-1").split("/")[3:]:
        case [one]:
            return await presence.of_user(request, unquote(one), grant)
        case [first, _, last]:
            user, event = unquote(first), unquote(last)
        case _:
            pass  # an id has slashes that are not encoded
    check_parameters(request, ("source", "topic"))
    grant.check(Scope.READ)
    grant.check_topic(personal_topic(checked_name(user, "user")))
    sought = _sought(event, request.query_params)
    further = request.query_params.get("topic")
    if further is not None:
        grant.check_topic(checked_topic(further, "topic"))
    shared = shared_of(request)
    seen = await shared.presence_queries.ask([user], detailed=True)
    [marks] = unfailed(await shared.marks.of([user]))
    topics = _topics(user, further, seen, marks, grant)
    places = [Place(topic, marks.get(topic, UNMARKED)) for topic in topics]
    found = await fates(shared.broker, sought, places)
    return answer_of(_told(user, sought, found, seen))


def _sought(event: str, query: Mapping[str, str]) -> Sought:
    source = query.get("source")
    for field, text, longest in (("id", event, LONGEST_WORD), ("source", source, LONGEST_TEXT)):
        if text is not None and not 0 < len(text) <= longest:
            raise Invalid(field, f"must be text of 1 to {longest} characters")
    return Sought(event, source)


def _topics(
    user: str, further: str | None, seen: Presence, marks: Mapping[str, Mark], grant: Grant
) -> list[str]:
    """Return the topics that the user follows or has marked, as far as the key is bound to them."""
    followed = (topic for connection in seen.connections for topic in connection.topics)
    named = () if further is None else (further,)
    topics = dict.fromkeys((personal_topic(user), *named, EVERYONE, *followed, *marks))
    return [topic for topic in topics if grant.covers(topic)][:_MOST_TOPICS]


def _told(user: str, sought: Sought, found: list[Found], seen: Presence) -> dict[str, Any]:
    has = {each.fate for each in found}
    fate = next(each for each in Fate if each in has)
    blind = fate is Fate.NOT_PUBLISHED and sought.source is None
    return {
        "user": user,
        "event": sought.id,
        "fate": fate,
        "because": _BECAUSE[fate] + (_NO_SOURCE if blind else ""),
        "topics": [dict(_facts(each)) for each in found if each.fate is not Fate.NOT_PUBLISHED],
        "connections": seen.connections,
        "complete": seen.complete,
    }


def _facts(found: Found) -> Iterator[tuple[str, str]]:
    yield "topic", found.topic
    yield "fate", found.fate
    if (publication := found.publication) is not None:
        yield "position", str(publication.position)
        yield "accepted", iso(publication.accepted / 1000)
        if publication.expires:
            yield "expires", iso(publication.expires / 1000)
    if found.published is not None:
        yield "published", iso(found.published)
