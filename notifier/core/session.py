"""A session: one client's stay. It answers frames with frames, and holds no task and no queue."""

import math
import random
from collections.abc import Callable, Iterable
from typing import Protocol, assert_never

from notifier.core import frames, publishing
from notifier.core.access import Identity
from notifier.core.attendance import Attendance
from notifier.core.badges import Badges, Outcome
from notifier.core.conversation import Conversation, Host, or_unset
from notifier.core.dates import iso
from notifier.core.errors import (
    CloseCode,
    Followed,
    Forbidden,
    Invalid,
    NotifierError,
    TooMany,
    Unavailable,
)
from notifier.core.frames import RequestId, Start
from notifier.core.hub import Hub
from notifier.core.mark_frames import marked, move_of
from notifier.core.names import EVERYONE, checked_topic, personal_topic
from notifier.core.ports import Connection
from notifier.core.positions import Position
from notifier.core.publishing import Publishing
from notifier.core.round import Arrival

_OWN_TOPICS = 2  # the personal one and `everyone`, which every session follows


class SessionHost(Host, Protocol):
    """The gateway, as far as a session needs it."""

    hub: Hub
    badges: Badges
    attendance: Attendance
    publishing: Publishing

    def renew(self, session: "Session", token: str, request_id: RequestId | None) -> None:
        """Have the token verified, then call `authenticated` or `refused`."""


class Session(Conversation):
    """One client's stay: its identity, and the topics that it follows."""

    __slots__ = ("_arrivals", "_heard", "_old_at", "_topics", "identity")

    _host: SessionHost

    def __init__(  # noqa: PLR0913 - everything that a session begins with
        self,
        host: SessionHost,
        connection: Connection,
        identity: Identity,
        topics: Iterable[str],
        cursor: dict[str, Position],
        *,
        number: int | None = None,
        marks: bool = False,
        presence: bool = False,
    ) -> None:
        """Begin to follow `everyone`, the personal topic, `topics` and those of the cursor.

        Each is followed from the cursor's position, or from now on where it has none. With `marks`
        the client gets the user's marks, with `presence` it is a member of its topics.
        """
        super().__init__(host, connection, number)
        self.identity = identity
        self._arrivals: tuple[Arrival, ...] = ()
        self._heard = True
        now, terms = host.now(), host.terms
        self._old_at = math.inf
        if terms.max_age is not None:
            self._old_at = now + terms.max_age * random.uniform(0.8, 1)  # noqa: S311 - spread
        first_ping = now + terms.heartbeat * random.uniform(0.5, 1)  # noqa: S311 - spread
        host.deadlines.set(self, self._next_moment(first_ping))
        wanted = dict.fromkeys((*_own_topics(identity), *topics, *cursor))
        refused = [topic for topic in wanted if not identity.may_follow(topic)]
        for topic in refused:
            del wanted[topic]
        # None for no other than its own: most sessions need no tuple for them.
        self._topics = tuple(wanted) if len(wanted) > _OWN_TOPICS else None
        self._follow_first(
            {topic: cursor.get(topic) for topic in wanted}, refused, marks=marks, presence=presence
        )

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that it follows."""
        return _own_topics(self.identity) if self._topics is None else self._topics

    def _follow_first(
        self,
        topics: dict[str, Position | None],
        refused: list[str],
        *,
        marks: bool,
        presence: bool,
    ) -> None:
        def answered(starts: dict[str, Start] | None) -> None:
            self._arrived()
            if starts is None:
                self.end(CloseCode.UNAVAILABLE)
                return
            self._greet(starts)
            if marks:
                self._host.badges.tell(self)
            if presence:
                self._attend()
            for topic in refused:
                sentence = f"the token does not allow topic {topic}"
                self.connection.send(frames.Error(Forbidden.code, sentence))

        self._subscribe(topics, answered)

    def _attend(self) -> None:
        self._host.attendance.attend(self)
        if not self.identity.has_presence:
            sentence = "the token does not allow presence: its claim presence must name the topics"
            self.connection.send(frames.Error(Forbidden.code, sentence))

    def _next_moment(self, ping_at: float) -> float:
        return min(ping_at, self._old_at, self.identity.expires)

    def _greet(self, starts: dict[str, Start]) -> None:
        self.connection.send(
            frames.Hello(
                session=self.id,
                user=self.identity.user,
                heartbeat=self._host.terms.heartbeat,
                time=iso(self._host.now()),
                topics=starts,
            )
        )

    def _subscribe(
        self,
        topics: dict[str, Position | None],
        answered: Callable[[dict[str, Start] | None], None],
    ) -> None:
        """Let the hub call `answered`, which first says that an arrival is over (`_arrived`)."""
        arrival = self._host.hub.subscribe(self.connection, topics, answered)
        self._arrivals = (*self._arrivals, arrival)

    def _arrived(self) -> None:
        # The first, as answers come in order. Named, it would be in a cycle with its `answered`,
        # which would keep session and connection long after their end: see ADR 16.
        self._arrivals = self._arrivals[1:]

    # The client's frames.

    def _handle(self, frame: frames.ClientFrame) -> None:
        if isinstance(frame, frames.Authenticate):
            self._begin_authenticating()
            self._host.renew(self, frame.token, frame.id)
        elif isinstance(frame, frames.Ping):
            self.connection.send(frames.Pong())
        elif isinstance(frame, frames.Subscribe):
            self._on_subscribe(frame)
        elif isinstance(frame, frames.Unsubscribe):
            self._on_unsubscribe(frame)
        elif isinstance(frame, frames.Mark):
            self._on_mark(frame)
        elif isinstance(frame, frames.Publish):
            self._on_publish(frame)
        else:
            assert_never(frame)

    def _on_subscribe(self, frame: frames.Subscribe) -> None:
        topic, since = self._checked(frame)
        self._topics = (*self.topics, topic)

        def answered(starts: dict[str, Start] | None) -> None:
            is_asked_for = self._arrivals[0].asks_for(topic)
            self._arrived()
            if not is_asked_for:
                return  # unsubscribed meanwhile, and perhaps asked for anew
            request_id = or_unset(frame.id)
            if starts is None:
                self._unsubscribe(topic)
                self._refuse(request_id, _away())
                return
            start = starts[topic]
            subscribed = frames.Subscribed(topic, start.position, request_id, start.resumed)
            self.connection.send(subscribed)
            self._host.badges.tell_more(self)
            self._host.attendance.refresh(self)

        self._subscribe({topic: since}, answered)

    def _checked(self, frame: frames.Subscribe) -> tuple[str, Position | None]:
        """Return the topic and position to subscribe to; raises the errors of a refusal."""
        topic = checked_topic(frame.topic, "topic")
        self.identity.check_topic(topic)
        if topic in self.topics:
            raise Followed("topic", "is followed already")
        pending = len(self._arrivals)  # one that was unsubscribed before its answer pends too
        if max(pending, len(self.topics) - _OWN_TOPICS) >= self._host.terms.most_topics:
            raise TooMany(f"at most {self._host.terms.most_topics} further topics a connection")
        since = None if frame.since is None else Position.parse(frame.since)
        if self._host.hub.trouble:  # its other topics go on
            raise _away()
        return topic, since

    def _on_unsubscribe(self, frame: frames.Unsubscribe) -> None:
        if frame.topic not in self.topics:
            raise Invalid("topic", "is not followed")
        self._unsubscribe(frame.topic)
        self._host.attendance.refresh(self)
        self.connection.send(frames.Unsubscribed(frame.topic, or_unset(frame.id)))

    def _unsubscribe(self, topic: str) -> None:
        self._topics = tuple(each for each in self.topics if each != topic)
        for arrival in self._arrivals:
            arrival.withdraw(topic)
        self._host.hub.unsubscribe(self.connection, (topic,))

    def _on_mark(self, frame: frames.Mark) -> None:
        move = move_of(self.identity, frame)

        def answered(outcome: Outcome) -> None:
            if self._closing is not None:
                return
            if isinstance(outcome, NotifierError):
                self._refuse(or_unset(frame.id), outcome)
            else:
                self.connection.send(marked(move.topic, outcome, or_unset(frame.id)))

        self._host.badges.move(move, answered)

    def _on_publish(self, frame: frames.Publish) -> None:
        event = publishing.client_event_of(self.identity, frame, self._host.now())

        def answered(outcome: publishing.Outcome) -> None:
            if self._closing is not None:
                return
            if isinstance(outcome, NotifierError):
                self._refuse(or_unset(frame.id), outcome)
            else:
                self.connection.send(publishing.published(outcome, or_unset(frame.id)))

        self._host.publishing.publish(event, answered)

    # The host's answers.

    def authenticated(self, identity: Identity, request_id: RequestId | None) -> None:
        """Go on with a new token's identity, and unsubscribe from topics that it does not allow."""
        self._authenticating = False
        if self._closing is not None:
            return
        if self.identity.user != identity.user:
            self.end(CloseCode.FORBIDDEN)
            return
        self.connection.send(frames.Authenticated(iso(identity.expires), or_unset(request_id)))
        self.identity = identity
        ping_at = self._host.now() + self._host.terms.heartbeat  # this frame is as good as one
        self._host.deadlines.set(self, self._next_moment(ping_at))
        for topic in self.topics:
            if not identity.may_follow(topic):
                self._unsubscribe(topic)
                self.connection.send(frames.Unsubscribed(topic))
        self._host.attendance.refresh(self)

    def refused(self, error: NotifierError, request_id: RequestId | None) -> None:
        """Tell the client that its new token was refused; the old one still holds."""
        self._authenticating = False
        if self._closing is None:
            self._refuse(or_unset(request_id), error)

    # Time, and the end.

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard = True

    def ready(self) -> None:
        """Go on with replays that waited for room in the connection."""
        self._host.hub.resume_replays(self.connection, self.topics)

    def on_time(self, now: float) -> float:
        """See Timed: heartbeats, the token's expiry, and the greatest age."""
        if self._closing is not None:
            return 0.0
        if self.identity.expires <= now:
            return self.end(CloseCode.TOKEN_EXPIRED)
        if self._old_at <= now:
            return self.end(CloseCode.MAX_AGE)
        if not self._heard:
            return self.end(CloseCode.HEARTBEAT_TIMEOUT)
        self._heard = not self.connection.ping()
        return self._next_moment(now + self._host.terms.heartbeat)

    def _leave(self) -> None:
        for arrival in self._arrivals:
            arrival.gone = True
        self._arrivals = ()
        self._host.hub.unsubscribe(self.connection, self.topics)
        self._host.badges.leave(self)
        self._host.attendance.leave(self)
        self._topics = ()
        super()._leave()


def _own_topics(identity: Identity) -> tuple[str, str]:
    return personal_topic(identity.user), EVERYONE


def _away() -> Unavailable:
    return Unavailable("gateway", "the broker is not ready")
