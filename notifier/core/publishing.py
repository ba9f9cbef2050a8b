"""Clients that publish: their events go to the broker past the event queue.

The client waits for the position and repeats itself without one, so nothing has to keep the event
meanwhile. One worker publishes in rounds, in the order in which the events came.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import quote

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from notifier.core import events, frames, uris
from notifier.core.access import Identity
from notifier.core.errors import Forbidden, Invalid, NotifierError, Refused, TooLarge, Unavailable
from notifier.core.events import SILENT, Event
from notifier.core.frames import RequestId
from notifier.core.history import Before, History, Published
from notifier.core.names import EVERYONE, checked_topic, is_personal
from notifier.core.ports import Broker
from notifier.core.positions import Position
from notifier.core.publications import NewPublication, publications_of
from notifier.core.signals import Kind, Signal
from notifier.core.worker import Worker, answered

_ROUND = 125  # events
_ROUND_BYTES = 1024 * 1024
_MOST_BYTES = 16 * 1024 * 1024  # that wait
_OVERHEAD = 512  # bytes of one that waits, beside its event

Outcome = Position | NotifierError | None
"""The outcome of an event: its position or an error. None: ephemeral, or repeated too late."""


class PublishingObserver(Protocol):
    """Counts the outcomes of events."""

    def client_published(self, outcome: str) -> None:
        """One ended as `published`, `duplicate`, `ephemeral`, `refused` or `unavailable`."""


class ClientEvent(NamedTuple):
    """An event of a client's: a publication, or an ephemeral one, which is a signal.

    `identity` is as `events.identity_of` writes it.
    """

    item: NewPublication | Signal
    identity: bytes

    @property
    def size(self) -> int:
        """The bytes that it takes."""
        item = self.item
        return _OVERHEAD + len(item.body if isinstance(item, Signal) else item.record)


def client_event_of(identity: Identity, frame: frames.Publish, now: float) -> ClientEvent:
    """Return the event that a client's frame publishes; raises Invalid and Forbidden.

    `now` is in Unix seconds.
    """
    topic = checked_topic(frame.topic, "topic")
    if topic == EVERYONE or is_personal(topic):
        raise Forbidden(
            "clients publish neither to everyone nor to personal topics: let a backend post there"
        )
    if not identity.may_publish(topic):
        raise Forbidden(
            f"the token does not allow publishing to topic {topic}: its claim publish must name it"
        )
    event = _event_in(frame, topic, source_of(identity.user), now)
    known = events.identity_of(event.id, event.source)
    if frame.ephemeral:
        body = frames.ephemeral_frame(topic, events.delivered(event))
        return ClientEvent(Signal(topic, Kind.FRAME, frames.EPHEMERAL, body), known)
    [new] = publications_of(event, now)
    return ClientEvent(new, known)


def source_of(user: str) -> str:
    """Return the source of the events that a user's clients publish: `user:ID`."""
    source = f"user:{user}"
    return source if uris.is_reference(source) else f"user:{quote(user, safe='')}"


def _event_in(frame: frames.Publish, topic: str, source: str, now: float) -> Event:
    try:
        event = events.decode(bytes(frame.event))
        _check_members(event, has_id=not frame.ephemeral)
    except Invalid as error:
        kind = TooLarge if isinstance(error, TooLarge) else Invalid
        raise kind(f"event.{error.field}".rstrip("."), error.reason) from error
    return events.completed(replace(event, topic=topic), source=source, now=now)


def _check_members(event: Event, *, has_id: bool) -> None:
    if has_id and event.id is UNSET:
        raise Invalid("id", "is missing: give each event one, and repeat the event with the same")
    for name in Event.__struct_fields__:
        if name not in events.CLIENT_MEMBERS and getattr(event, name) is not UNSET:
            raise Invalid(name, "is decided on by the gateway: leave it out")


def published(
    position: Position | None, request_id: RequestId | UnsetType = UNSET
) -> frames.Published:
    """Return the answer to a client's `publish`."""
    return frames.Published(UNSET if position is None else str(position), request_id)


class Publishing(Worker):
    """Publishes the events of this process' clients; `run` must be running."""

    def __init__(self, broker: Broker, observer: PublishingObserver) -> None:
        super().__init__()
        self._broker = broker
        self._observer = observer
        self._waiting: deque[tuple[ClientEvent, Callable[[Outcome], None]]] = deque()
        self._bytes = 0  # of those that wait

    def publish(self, event: ClientEvent, answer: Callable[[Outcome], None]) -> None:
        """Have an event published, then call `answer`; raises Unavailable when too many wait."""
        if self._bytes + event.size > _MOST_BYTES:
            raise Unavailable("gateway", "too many events of clients wait; repeat it later")
        self._waiting.append((event, answer))
        self._bytes += event.size
        self._work.set()

    async def published(self, event: ClientEvent) -> Position | None:
        """Publish an event, and return its position; raises the error that refused it."""
        return await answered(partial(self.publish, event))

    async def _run_round(self) -> None:
        while self._waiting:
            await self._publish_some()

    async def _publish_some(self) -> None:
        some = self._next_round()
        outcomes: Sequence[Outcome]
        try:
            outcomes = await self._outcomes([event for event, _ in some])
        except Unavailable as error:  # the client repeats it, and a duplicate is recognised
            outcomes = [self._failed(error) for _ in some]
        for (event, answer), outcome in zip(some, outcomes, strict=True):
            self._waiting.popleft()
            self._bytes -= event.size
            answer(outcome)

    def _next_round(self) -> list[tuple[ClientEvent, Callable[[Outcome], None]]]:
        """Return the first that wait: all ephemeral or none, so that each client's keep order."""
        kind, size = type(self._waiting[0][0].item), 0
        some: list[tuple[ClientEvent, Callable[[Outcome], None]]] = []
        for event, answer in self._waiting:
            size += event.size
            is_full = len(some) >= _ROUND or size > _ROUND_BYTES
            if some and (is_full or type(event.item) is not kind):
                break
            some.append((event, answer))
        return some

    async def _outcomes(self, some: Sequence[ClientEvent]) -> Sequence[Outcome]:
        signals = [event.item for event in some if isinstance(event.item, Signal)]
        if signals:
            return list(map(self._told, await self._broker.signal(signals)))
        new = [event.item for event in some if isinstance(event.item, NewPublication)]
        pairs = list(zip(some, await self._broker.publish(new), strict=True))
        repeated = [e for e, a in pairs if isinstance(a, Published) and a.duplicate]
        first = await self._first_positions(repeated) if repeated else {}
        return [self._outcome(e, a, first) for e, a in pairs]

    def _told(self, answer: NotifierError | None) -> Outcome:
        if answer is not None:
            return self._failed(answer)
        self._observer.client_published("ephemeral")
        return None

    def _failed(self, answer: NotifierError) -> NotifierError:
        is_refused = isinstance(answer, Refused)
        self._observer.client_published("refused" if is_refused else "unavailable")
        return Unavailable("redis", "it refuses this event") if is_refused else answer

    def _outcome(
        self,
        event: ClientEvent,
        answer: Published | NotifierError,
        first: dict[ClientEvent, Outcome],
    ) -> Outcome:
        if isinstance(answer, NotifierError):
            return self._failed(answer)
        self._observer.client_published("duplicate" if answer.duplicate else "published")
        return first.get(event) if answer.duplicate else answer.position

    async def _first_positions(self, repeated: Sequence[ClientEvent]) -> dict[ClientEvent, Outcome]:
        """Find where events were published first; the newest page of history has it, or nobody."""
        longest: dict[str, int] = {}
        for event in repeated:
            topic = event.item.topic
            longest[topic] = max(len(SILENT + event.identity), longest.get(topic, 0))
        questions = [Before(topic, beginning=most) for topic, most in longest.items()]
        try:
            histories = await self._broker.read(questions)
        except Unavailable as error:  # the others of the round are published all the same
            return dict.fromkeys(repeated, error)
        pages = dict(zip(longest, histories, strict=True))
        return {event: _position_of(event, pages[event.item.topic]) for event in repeated}


def _position_of(event: ClientEvent, page: History) -> Outcome:
    found = (each.position for each in page.publications if each.is_of(event.identity))
    return page.failure or next(found, None)
