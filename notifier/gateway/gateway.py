"""The gateway: it owns the sessions of this process, their clock, and the way they end."""

import asyncio
import logging
import time
from collections.abc import Callable
from socket import gethostname
from typing import NamedTuple

import structlog

from notifier.core.access import Identity
from notifier.core.attendance import Attendance
from notifier.core.background import LongLived
from notifier.core.badges import Badges
from notifier.core.conversation import Conversation, Terms
from notifier.core.deadlines import Deadlines
from notifier.core.errors import CloseCode, NotifierError, unfailed
from notifier.core.frames import RequestId
from notifier.core.history import History, Question
from notifier.core.hub import Hub
from notifier.core.marks import UNMARKED, Mark
from notifier.core.newcomer import Newcomer
from notifier.core.ports import Connection, Seats, SharedPorts, TokenVerifier
from notifier.core.positions import Position
from notifier.core.publishing import Publishing
from notifier.core.session import Session
from notifier.gateway.admission import Admission, Capacity
from notifier.gateway.orders import UserOrders
from notifier.gateway.presence import PresenceResponder
from notifier.telemetry.metrics import Metrics

_log = structlog.get_logger("notifier.gateway")
_DRAIN_TICK = 0.05
_CAPACITY = Capacity()


class Visitor(NamedTuple):
    """A client at the entrance, and its wishes. `identity` is None while the token is to come.

    With `marks` it gets its user's marks, with `presence` it is a member of its topics.
    """

    identity: Identity | None
    topics: tuple[str, ...]
    cursor: dict[str, Position]
    marks: bool = False
    presence: bool = False


class Caller(Visitor):
    """A visitor whose identity is known."""

    __slots__ = ()

    identity: Identity


class Gateway(LongLived):
    """The sessions of this process. Fulfils NewcomerHost.

    Use as `async with`: its tasks end with it, and if one of them fails the `async with` fails.
    `drain_rate` is in connections a second. Without `seats` connections of users are not counted.
    """

    def __init__(  # noqa: PLR0913 - the parts of a gateway
        self,
        shared: SharedPorts,
        verifier: TokenVerifier,
        metrics: Metrics,
        *,
        terms: Terms,
        capacity: Capacity = _CAPACITY,
        seats: Seats | None = None,
        revocation_seconds: float,
        drain_rate: float,
        drain_deadline: float,
    ) -> None:
        super().__init__()
        self._clients: set[Conversation] = set()
        self.admission = Admission(capacity, seats, self._clients)
        self.hub = Hub(shared.broker, metrics)
        self.badges = Badges(self.hub, shared.broker, shared.marks, metrics)
        self.attendance = Attendance(self.hub, shared.members, metrics)
        self.publishing = Publishing(shared.broker, metrics)
        self._orders = UserOrders(shared.control, shared.broker, self.hub, revocation_seconds)
        PresenceResponder(shared.presence_queries, self.hub, gethostname(), self._background.start)
        self._broker = shared.broker
        self._marks = shared.marks
        # Wall-clock time that never steps: a step back would stop heartbeats until caught up.
        self._loop = asyncio.get_running_loop()  # kept: to ask for it is a system call
        self._started = time.time() - self._loop.time()
        self.deadlines = Deadlines(self.now())
        self.terms = terms
        self._verifier = verifier
        self.metrics = metrics
        metrics.connections_limit.set(capacity.connections)
        self.draining = False
        self._drain_rate = drain_rate
        self._drain_deadline = drain_deadline
        metrics.drain_capacity.set(drain_rate * drain_deadline)
        self._empty = asyncio.Event()

    def _start(self) -> None:
        self._background.start(self.hub.run(), "hub")
        self._background.start(self.badges.run(), "badges")
        self._background.start(self.attendance.run(), "attendance")
        self._background.start(self.publishing.run(), "publishing")
        self._background.start(self._orders.run(), "control")
        self._background.start(self._clock(), "clock")

    # Called by readiness.

    def trouble(self) -> dict[str, str | None]:
        """Return each part that delivering needs, with why it does not work, or None."""
        return {
            "draining": "draining: connections move to other gateways" if self.draining else None,
            "broker": self._broker.trouble,
            "tokens": self._verifier.trouble,
            "control": self._orders.trouble,
        }

    # Called by the transports in this order: `admission.admit`, `verify`, `admission.seat` once the
    # identity is known, `open`. Requests that ask once call the others.

    async def verify(self, token: str) -> Identity:
        """Return whom a token identifies; raises Unauthorized or Unavailable."""
        identity = await self._verifier.verify(token)
        self._orders.check(identity)
        return identity

    async def read(self, question: Question) -> History:
        """Read history without following; raises Unavailable."""
        [history] = await self._broker.read([question])
        return history.known()

    async def mark(self, user: str, topic: str) -> Mark:
        """Return a user's mark in a topic; raises Unavailable."""
        [marks] = unfailed(await self._marks.of([user]))
        return marks.get(topic, UNMARKED)

    def broker_now(self) -> float:
        """Return Unix seconds by the clock that publications expire by."""
        return self._broker.now()

    def open(
        self, connection: Connection, who: Visitor, client_of: Callable[[], str] = str
    ) -> Conversation:
        """Begin a conversation on a connection: a session, or without an identity a newcomer.

        `client_of` returns the address of a newcomer, for the log.
        """
        identity, topics, cursor, marks, presence = who
        wishes = {"marks": marks, "presence": presence}
        client: Conversation
        if identity is None:
            client = Newcomer(self, connection, topics, cursor, client=client_of, **wishes)
        else:
            client = Session(self, connection, identity, topics, cursor, **wishes)
        self._clients.add(client)
        self.metrics.connections.labels(connection.transport).inc()
        self.metrics.connections_opened.labels(connection.transport).inc()
        _log.log(
            _level_of(connection),
            "connected",
            session=client.id,
            user=identity.user if identity else None,
            transport=connection.transport,
            resuming=bool(cursor),
        )
        if self.draining:  # it came in after `drain` had listed the conversations
            client.end(CloseCode.DRAINING)
        self._end_revoked(client)
        return client

    def _end_revoked(self, client: Conversation) -> None:
        # An order may have come between `verify` and now, when there was nothing yet to end.
        if isinstance(client, Session):
            self._orders.end_revoked(client)

    # Called by conversations; see NewcomerHost.

    def now(self) -> float:
        """See NewcomerHost."""
        return self._started + self._loop.time()

    def identify(self, newcomer: Newcomer, token: str, request_id: RequestId | None) -> None:
        """See NewcomerHost."""
        work = self._identify(newcomer, token, request_id)
        self._background.start(work, f"identify {newcomer.id}")

    async def _identify(self, newcomer: Newcomer, token: str, request_id: RequestId | None) -> None:
        try:
            identity = await self.verify(token)
            await self.admission.take_seat(identity)
        except NotifierError as error:
            _log.info(
                "token_refused", session=newcomer.id, client=newcomer.client(), reason=str(error)
            )
            self.metrics.refusals.labels(error.code).inc()
            newcomer.refused(error, request_id)
        else:
            _log.info("authenticated", session=newcomer.id, user=identity.user)
            if not newcomer.authenticated(identity, request_id):
                self.admission.unseat(identity)

    def identified(self, newcomer: Newcomer, session: Session) -> None:
        """See NewcomerHost."""
        self._clients.remove(newcomer)
        self._clients.add(session)
        session.connection.hand_over(session)
        if self.draining:  # `drain` lists the newcomer
            session.end(CloseCode.DRAINING)
        self._end_revoked(session)

    def renew(self, session: Session, token: str, request_id: RequestId | None) -> None:
        """See NewcomerHost."""
        work = self._renew(session, token, request_id)
        self._background.start(work, f"renew {session.id}")

    async def _renew(self, session: Session, token: str, request_id: RequestId | None) -> None:
        try:
            identity = await self.verify(token)
        except NotifierError as error:
            user = session.identity.user
            _log.info("token_refused", session=session.id, user=user, reason=str(error))
            session.refused(error, request_id)
        else:
            _log.info("authenticated", session=session.id, user=identity.user)
            session.authenticated(identity, request_id)

    def refused_frame(self, reason: str) -> None:
        """See NewcomerHost."""
        self.metrics.frames_refused.labels(reason).inc()

    def ended(self, client: Conversation, reason: str) -> None:
        """See NewcomerHost."""
        self._clients.discard(client)
        self.metrics.connections.labels(client.connection.transport).dec()
        self.metrics.connections_closed.labels(reason).inc()
        if reason == CloseCode.SLOW_CONSUMER.reason:
            self.metrics.slow_consumers.inc()
        identity = client.identity if isinstance(client, Session) else None
        user = identity.user if identity else None
        level = _level_of(client.connection)
        _log.log(level, "disconnected", session=client.id, user=user, reason=reason)
        self.admission.unseat(identity)
        if not self._clients:
            self._empty.set()

    # Time, and the end.

    async def _clock(self) -> None:
        due = self._loop.time()
        while True:
            due = max(due + 1, self._loop.time())
            await asyncio.sleep(due - self._loop.time())
            self.deadlines.tick(self.now())
            self.hub.tick()
            self.badges.tick()
            self.attendance.tick()

    async def drain(self) -> None:
        """Move all clients away: close `drain_rate` sessions a second, and see them gone."""
        self.draining = True
        leaving = list(self._clients)
        _log.info("draining", sessions=len(leaving))
        deadline = self._loop.time() + self._drain_deadline
        pace = max(1, round(self._drain_rate * _DRAIN_TICK))
        for start in range(0, len(leaving), pace):
            left = deadline - self._loop.time()
            if start and left > 0:
                await asyncio.sleep(min(pace / self._drain_rate, left))
            manner = "paced" if left > 0 else "forced"
            for client in self._clients.intersection(leaving[start : start + pace]):
                client.end(CloseCode.DRAINING)
                self.metrics.drain_closes.labels(manner).inc()
        await self._all_gone()

    async def _all_gone(self) -> None:
        self._empty.clear()
        if self._clients:
            await self._empty.wait()  # bounded: a connection aborts when its client does not close


def _level_of(connection: Connection) -> int:
    # Each poll is a connection: idle clients would write thousands of lines a second.
    return logging.DEBUG if connection.transport == "poll" else logging.INFO
