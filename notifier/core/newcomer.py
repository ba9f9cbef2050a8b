"""A newcomer: a client that has connected without a token, and has to send one in `auth`."""

from collections.abc import Callable, Iterable
from typing import Protocol

from notifier.core import frames
from notifier.core.access import Identity
from notifier.core.conversation import Conversation, or_unset
from notifier.core.dates import iso
from notifier.core.errors import (
    CloseCode,
    NotifierError,
    TokenExpired,
    TooMany,
    TooManyConnections,
    Unauthorized,
    Unavailable,
)
from notifier.core.frames import RequestId
from notifier.core.ports import Connection
from notifier.core.positions import Position
from notifier.core.session import Session, SessionHost

# The first kind that fits says how a newcomer is closed whose token is refused.
_REFUSALS = {
    Unavailable: CloseCode.UNAVAILABLE,
    TooManyConnections: CloseCode.TOO_MANY_CONNECTIONS,
    TooMany: CloseCode.PROTOCOL_ERROR,
    TokenExpired: CloseCode.TOKEN_EXPIRED,
    NotifierError: CloseCode.UNAUTHORIZED,
}


class NewcomerHost(SessionHost, Protocol):
    """The gateway, as far as a newcomer needs it."""

    def identify(self, newcomer: "Newcomer", token: str, request_id: RequestId | None) -> None:
        """Have the token verified, then call `authenticated` or `refused`."""

    def identified(self, newcomer: "Newcomer", session: Session) -> None:
        """Hear that a session goes on with a newcomer's connection."""


class Newcomer(Conversation):
    """A client that is closed unless its `auth` succeeds within `auth_timeout`.

    A Session then goes on with its connection. `client` returns its address, for the log.
    """

    __slots__ = ("_cursor", "_marks", "_presence", "_topics", "client")

    _host: NewcomerHost

    def __init__(  # noqa: PLR0913 - everything that its session begins with
        self,
        host: NewcomerHost,
        connection: Connection,
        topics: Iterable[str],
        cursor: dict[str, Position],
        *,
        marks: bool = False,
        presence: bool = False,
        client: Callable[[], str] = str,
    ) -> None:
        super().__init__(host, connection)
        self.client = client
        self._topics = tuple(topics)
        self._cursor = cursor
        self._marks = marks
        self._presence = presence
        host.deadlines.set(self, host.now() + host.terms.auth_timeout)

    def _handle(self, frame: frames.ClientFrame) -> None:
        if isinstance(frame, frames.Authenticate):
            self._begin_authenticating()
            self._host.identify(self, frame.token, frame.id)
        elif isinstance(frame, frames.Ping):
            self.connection.send(frames.Pong())
        else:
            raise Unauthorized("the first frame must be auth")

    def authenticated(self, identity: Identity, request_id: RequestId | None) -> bool:
        """Become a session of this identity; return whether it did, or had ended before."""
        self._authenticating = False
        if self._closing is not None:
            return False
        try:
            self._host.terms.check_number(identity, (*self._topics, *self._cursor))
        except TooMany as error:  # before, it was not known which topics are its own
            self.refused(error, request_id)
            return False
        self._host.deadlines.clear(self)
        self.connection.send(frames.Authenticated(iso(identity.expires), or_unset(request_id)))
        session = Session(
            self._host,
            self.connection,
            identity,
            self._topics,
            self._cursor,
            number=self.number,
            marks=self._marks,
            presence=self._presence,
        )
        self._host.identified(self, session)
        return True

    def refused(self, error: NotifierError, request_id: RequestId | None) -> None:
        """Close, as its token was refused."""
        self._authenticating = False
        if self._closing is None:
            self.connection.send(frames.Error(error.code, str(error), or_unset(request_id)))
            self.end(next(code for kind, code in _REFUSALS.items() if isinstance(error, kind)))

    def heard(self) -> None:
        """See Listener: only `auth` counts."""

    def ready(self) -> None:
        """See Listener: nothing waits for room."""

    def on_time(self, now: float) -> float:
        """See Timed: no token came in time."""
        del now
        return self.end(CloseCode.AUTH_TIMEOUT)
