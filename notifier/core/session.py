"""A session: one client's stay. It answers frames with frames, and holds no task and no queue."""

import math
import random
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, assert_never

from msgspec import UNSET, UnsetType

from notifier.core import frames
from notifier.core.access import Identity
from notifier.core.deadlines import Deadlines
from notifier.core.errors import (
    CloseCode,
    Followed,
    Forbidden,
    Invalid,
    NotifierError,
    TokenExpired,
    TooMany,
    TooManyConnections,
    Unauthorized,
    Unavailable,
)
from notifier.core.frames import RequestId, Start
from notifier.core.hub import Arrival, Hub
from notifier.core.names import EVERYONE, checked_topic, personal_topic
from notifier.core.ports import Connection
from notifier.core.positions import Position

_MOST_ERRORS = 5
_OWN_TOPICS = 2  # `everyone` and the personal one, which every session follows
# What a token may be refused for before there is a session; anything else is the token's fault.
_REFUSALS = {
    Unavailable: CloseCode.UNAVAILABLE,
    TooManyConnections: CloseCode.TOO_MANY_CONNECTIONS,
    TooMany: CloseCode.PROTOCOL_ERROR,
    TokenExpired: CloseCode.TOKEN_EXPIRED,
    NotifierError: CloseCode.UNAUTHORIZED,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every session. Times are in seconds."""

    heartbeat: float = 25.0
    auth_timeout: float = 10.0
    most_topics: int = 100  # beside its own
    max_age: float | None = None
    reconnect_spread: tuple[float, float] = (0.5, 5.0)

    def check_number(self, identity: Identity, topics: Iterable[str]) -> None:
        """Raise TooMany for more topics than a connection may follow beside its own."""
        own = {EVERYONE, personal_topic(identity.user)}
        if len({*topics} - own) > self.most_topics:
            raise TooMany(f"topics: at most {self.most_topics} further topics a connection")


class Host(Protocol):
    """What a session needs of the gateway that it lives in."""

    hub: Hub
    deadlines: Deadlines
    terms: Terms

    def now(self) -> float:
        """Return Unix seconds."""

    def authenticate(self, session: "Session", token: str, request_id: RequestId | None) -> None:
        """Have the token verified, then call `authenticated` or `refused`."""

    def refused_frame(self, reason: str) -> None:
        """Hear that a frame of a client's was answered by an error."""

    def ended(self, session: "Session", reason: str) -> None:
        """Hear that a session is over; `reason` is a close code's name, or `client`."""


class Session:
    """One client's stay: who it is, and what it follows.

    Its connection calls `received` for each text, `heard` for any other sign of life, `ready` when
    it has room again, and `closed` once and last.
    """

    __slots__ = (
        "_arrivals",
        "_authenticating",
        "_closing",
        "_cursor",
        "_errors",
        "_heard",
        "_host",
        "_old_at",
        "_ping_at",
        "connection",
        "due",
        "id",
        "identity",
        "topics",
    )

    def __init__(self, host: Host, connection: Connection) -> None:
        self.id = secrets.token_hex(8)
        self.connection = connection
        self.identity: Identity | None = None
        self.topics: tuple[str, ...] = ()
        self.due = 0
        self._host = host
        self._cursor: dict[str, Position] | None = None
        self._arrivals: tuple[Arrival, ...] = ()
        self._authenticating = False
        self._closing: CloseCode | None = None
        self._errors = 0
        self._heard = True
        self._ping_at = 0.0
        self._old_at = math.inf

    # Beginning.

    def begin(
        self, identity: Identity | None, topics: Iterable[str], cursor: dict[str, Position]
    ) -> None:
        """Start to follow `everyone`, the personal topic, `topics` and those of the cursor.

        Each is followed from the cursor's position, or from now on where it has none. Without an
        identity the first frame has to be `auth`, within `auth_timeout`.
        """
        self._cursor = cursor
        self.topics = (*topics, *cursor)
        if identity is None:
            self._host.deadlines.set(self, self._host.now() + self._host.terms.auth_timeout)
        else:
            self._identified(identity)

    def _identified(self, identity: Identity) -> None:
        self.identity = identity
        now, terms = self._host.now(), self._host.terms
        self._ping_at = now + terms.heartbeat * random.uniform(0.5, 1)  # noqa: S311 - spread
        if terms.max_age is not None:
            self._old_at = now + terms.max_age * random.uniform(0.8, 1)  # noqa: S311 - spread
        self._host.deadlines.set(self, self._next_moment(identity))
        cursor, self._cursor = self._cursor or {}, None
        wanted = dict.fromkeys((personal_topic(identity.user), EVERYONE, *self.topics))
        refused = [topic for topic in wanted if not identity.may_follow(topic)]
        self.topics = tuple(topic for topic in wanted if topic not in refused)

        def greet(starts: dict[str, Start]) -> None:
            self._greet(starts)
            for topic in refused:
                sentence = f"the token does not allow topic {topic}"
                self.connection.send(frames.Error(Forbidden.code, sentence))

        def not_greeted() -> None:
            self.end(CloseCode.UNAVAILABLE)

        self._follow({topic: cursor.get(topic) for topic in self.topics}, greet, not_greeted)

    def _next_moment(self, identity: Identity) -> float:
        return min(self._ping_at, self._old_at, identity.expires)

    def _greet(self, starts: dict[str, Start]) -> None:
        assert self.identity is not None  # noqa: S101 - only who is identified follows
        self.connection.send(
            frames.Hello(
                session=self.id,
                user=self.identity.user,
                heartbeat=self._host.terms.heartbeat,
                time=_iso(self._host.now()),
                topics=starts,
            )
        )

    def _follow(
        self,
        topics: dict[str, Position | None],
        answer: Callable[[dict[str, Start]], None],
        give_up: Callable[[], None],
    ) -> None:
        def answered(starts: dict[str, Start] | None) -> None:
            # The first, as answers come in order. Named, it would be in a cycle with this function,
            # which would keep session and connection long after their end: see ADR 16.
            self._arrivals = self._arrivals[1:]
            if starts is None:
                give_up()
            else:
                answer(starts)

        arrival = self._host.hub.follow(self.connection, topics, answered)
        self._arrivals = (*self._arrivals, arrival)

    # What the client says.

    def received(self, text: bytes) -> None:
        """Take a frame of the client's."""
        self._heard = True
        if self._closing is not None:
            return
        try:
            self._handle(frames.decode(text))
        except NotifierError as error:
            self._refuse(frames.request_id_in(text), error)
        else:
            self._errors = 0

    def _handle(self, frame: frames.ClientFrame) -> None:
        if isinstance(frame, frames.Authenticate):
            self._on_authenticate(frame)
        elif isinstance(frame, frames.Ping):
            self.connection.send(frames.Pong())
        elif self.identity is None:
            raise Unauthorized("the first frame must be auth")
        elif isinstance(frame, frames.Subscribe):
            self._on_subscribe(frame, self.identity)
        elif isinstance(frame, frames.Unsubscribe):
            self._on_unsubscribe(frame)
        else:
            assert_never(frame)

    def _on_subscribe(self, frame: frames.Subscribe, identity: Identity) -> None:
        topic = checked_topic(frame.topic, "topic")
        if not identity.may_follow(topic):
            raise Forbidden(f"the token does not allow topic {topic}")
        if topic in self.topics:
            raise Followed("topic", "is followed already")
        pending = len(self._arrivals)  # what is unsubscribed before its answer pends all the same
        if max(pending, len(self.topics) - _OWN_TOPICS) >= self._host.terms.most_topics:
            raise TooMany(f"at most {self._host.terms.most_topics} further topics a connection")
        since = None if frame.since is None else Position.parse(frame.since)
        if self._host.hub.trouble:  # the connection still has what it follows already
            raise _away()
        self.topics = (*self.topics, topic)

        def not_subscribed() -> None:
            self._unfollow(topic)
            self._refuse(_or_unset(frame.id), _away())

        def subscribed(starts: dict[str, Start]) -> None:
            if start := starts.get(topic):  # else unsubscribed meanwhile
                request_id = _or_unset(frame.id)
                self.connection.send(
                    frames.Subscribed(topic, start.position, request_id, start.resumed)
                )

        self._follow({topic: since}, subscribed, not_subscribed)

    def _on_unsubscribe(self, frame: frames.Unsubscribe) -> None:
        if frame.topic not in self.topics:
            raise Invalid("topic", "is not followed")
        self._unfollow(frame.topic)
        self.connection.send(frames.Unsubscribed(frame.topic, _or_unset(frame.id)))

    def _unfollow(self, topic: str) -> None:
        self.topics = tuple(each for each in self.topics if each != topic)
        for arrival in self._arrivals:
            arrival.withdraw(topic)
        self._host.hub.leave(self.connection, (topic,))

    def _on_authenticate(self, frame: frames.Authenticate) -> None:
        if self._authenticating:
            raise TooMany("an earlier auth is still being verified")
        self._authenticating = True
        self._host.authenticate(self, frame.token, frame.id)

    def _refuse(self, request_id: RequestId | UnsetType, error: NotifierError) -> None:
        self._host.refused_frame(error.code)
        self.connection.send(frames.Error(error.code, str(error), request_id))
        # What is not allowed, or is so already, is understood all the same.
        self._errors += isinstance(error, Invalid) and not isinstance(error, Followed)
        if self._errors >= _MOST_ERRORS:
            self.end(CloseCode.PROTOCOL_ERROR)

    def flooded(self, what: str, most: float) -> None:
        """Take that the client sends more than it may of `frames` or `bytes`, and close."""
        if self._closing is None:
            self._host.refused_frame(f"too_many_{what}")
            error = TooMany(f"a client sends at most {most:g} {what} a second")
            self.connection.send(frames.Error(error.code, str(error)))
            # Whoever came back would only go on: the client has to be changed first.
            self.end(CloseCode.PROTOCOL_ERROR)

    # What the host answers.

    def authenticated(self, identity: Identity, request_id: RequestId | None) -> None:
        """Take the identity of a token that the client sent in a frame."""
        self._authenticating = False
        if self._closing is not None:
            return
        if self.identity is not None and self.identity.user != identity.user:
            self.end(CloseCode.FORBIDDEN)
            return
        try:
            self._host.terms.check_number(identity, self.topics)
        except TooMany as error:  # before it was known which topics are its own
            self.refused(error, request_id)
            return
        expires = _iso(identity.expires)
        self.connection.send(frames.Authenticated(expires, _or_unset(request_id)))
        if self.identity is None:
            self._identified(identity)
        else:
            self._renewed(identity)

    def _renewed(self, identity: Identity) -> None:
        self.identity = identity
        self._host.deadlines.set(self, self._next_moment(identity))
        for topic in self.topics:
            if not identity.may_follow(topic):
                self._unfollow(topic)
                self.connection.send(frames.Unsubscribed(topic))

    def refused(self, error: NotifierError, request_id: RequestId | None) -> None:
        """Take that a token which the client sent in a frame was not accepted."""
        self._authenticating = False
        if self._closing is not None:
            return
        if self.identity is not None:  # the old token still holds
            self._refuse(_or_unset(request_id), error)
            return
        self.connection.send(frames.Error(error.code, str(error), _or_unset(request_id)))
        self.end(next(code for kind, code in _REFUSALS.items() if isinstance(error, kind)))

    # Time, and the end.

    def heard(self) -> None:
        """Take any sign of life."""
        self._heard = True

    def ready(self) -> None:
        """Take that the connection has room again."""
        self._host.hub.go_on(self.connection, self.topics)

    def on_time(self, now: float) -> float:
        """See Timed: heartbeats, the token's expiry, the greatest age, and the wait for `auth`."""
        if self._closing is not None:
            return 0.0
        if self.identity is None:
            return self.end(CloseCode.AUTH_TIMEOUT)
        if self.identity.expires <= now:
            return self.end(CloseCode.TOKEN_EXPIRED)
        if self._old_at <= now:
            return self.end(CloseCode.MAX_AGE)
        if self._ping_at <= now:
            if not self._heard:
                return self.end(CloseCode.HEARTBEAT_TIMEOUT)
            self._ping_at = now + self._host.terms.heartbeat
            self._heard = not self.connection.ping()
        return self._next_moment(self.identity)

    def end(self, code: CloseCode) -> float:
        """Say good-bye and close; 0.0, for there is no next moment."""
        if self._closing is None:
            self._closing = code
            spread = self._host.terms.reconnect_spread
            after = int(random.uniform(*spread) * 1000) if code.comes_back else UNSET  # noqa: S311 - spread
            self.connection.send(frames.Bye(code, code.reason, after))
            self.connection.close(code)
            self._leave()
        return 0.0

    def closed(self, code: CloseCode | None = None) -> None:
        """Take that the connection is gone; `code` if it was the connection that gave up."""
        self._leave()
        ended = self._closing or code
        self._closing = ended or CloseCode.DRAINING
        self._host.ended(self, ended.reason if ended else "client")

    def _leave(self) -> None:
        for arrival in self._arrivals:
            arrival.gone = True
        self._arrivals = ()
        self._host.hub.leave(self.connection, self.topics)
        self.topics = ()
        self._host.deadlines.clear(self)


def _away() -> Unavailable:
    return Unavailable("gateway", "the broker is not ready")


def _or_unset(request_id: RequestId | None) -> RequestId | UnsetType:
    return UNSET if request_id is None else request_id


def _iso(seconds: float) -> str:
    return (
        datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
