"""A conversation with one client: frames come in and go out, until one side ends it."""

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from msgspec import UNSET, UnsetType

from notifier.core import frames
from notifier.core.access import Identity
from notifier.core.deadlines import Deadlines, Timed
from notifier.core.errors import CloseCode, Followed, Invalid, NotifierError, TooMany
from notifier.core.frames import RequestId
from notifier.core.names import EVERYONE, personal_topic
from notifier.core.ports import Connection

_MOST_ERRORS = 5
_RANDOM = 40  # bits of a conversation's number


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of every session. Times are in seconds."""

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
    """The gateway, as its conversations call it."""

    deadlines: Deadlines
    terms: Terms

    def now(self) -> float:
        """Return Unix seconds."""

    def refused_frame(self, reason: str) -> None:
        """Hear that a frame of a client's was answered by an error."""

    def ended(self, client: "Conversation", reason: str) -> None:
        """Hear that a conversation is over; `reason` is a close code's name, or `client`."""


class Conversation(ABC):
    """A conversation with one client, before and after its authentication.

    Fulfils Listener.
    """

    __slots__ = ("_authenticating", "_closing", "_errors", "_host", "connection", "due", "number")

    def __init__(self, host: Host, connection: Connection, number: int | None = None) -> None:
        # The second of its beginning, and a random part. As text it would take 32 bytes more.
        self.number = number or int(host.now()) << _RANDOM | int.from_bytes(
            os.urandom(_RANDOM // 8)
        )
        self.connection = connection
        self.due: set[Timed] | None = None
        self._host = host
        self._authenticating = False
        self._closing: CloseCode | None = None
        self._errors = 0

    @property
    def id(self) -> str:
        """Its name, in logs and for its client."""
        return f"{self.number:018x}"

    @property
    def since(self) -> float:
        """When it began, in whole Unix seconds."""
        return float(self.number >> _RANDOM)

    # Called by the connection.

    def received(self, text: bytes) -> None:
        """Answer a frame of the client's."""
        self.heard()
        if self._closing is not None:
            return
        try:
            self._handle(frames.decode(text))
        except NotifierError as error:
            self._refuse(frames.request_id_in(text), error)
        else:
            self._errors = 0

    @abstractmethod
    def _handle(self, frame: frames.ClientFrame) -> None: ...

    def _refuse(self, request_id: RequestId | UnsetType, error: NotifierError) -> None:
        self._host.refused_frame(error.code)
        self.connection.send(frames.Error(error.code, str(error), request_id))
        # A frame that is forbidden, or follows a topic twice, is still well formed.
        self._errors += isinstance(error, Invalid) and not isinstance(error, Followed)
        if self._errors >= _MOST_ERRORS:
            self.end(CloseCode.PROTOCOL_ERROR)

    def _begin_authenticating(self) -> None:
        if self._authenticating:
            raise TooMany("an earlier auth is still being verified")
        self._authenticating = True

    @abstractmethod
    def heard(self) -> None:
        """Note a sign of life."""

    @abstractmethod
    def ready(self) -> None:
        """Hear that the connection has room again."""

    def flooded(self, what: str, most: float) -> None:
        """Close, as the client sends more `frames` or `bytes` than it may."""
        if self._closing is None:
            self._host.refused_frame(f"too_many_{what}")
            error = TooMany(f"a client sends at most {most:g} {what} a second")
            self.connection.send(frames.Error(error.code, str(error)))
            # A code that allows to reconnect would repeat this: the client has to be changed first.
            self.end(CloseCode.PROTOCOL_ERROR)

    # The end.

    def end(self, code: CloseCode) -> float:
        """Send `bye` and close; 0.0, for there is no next moment."""
        if self._closing is None:
            self._closing = code
            spread = self._host.terms.reconnect_spread
            after = int(random.uniform(*spread) * 1000) if code.comes_back else UNSET  # noqa: S311 - spread
            self.connection.send(frames.Bye(code, code.reason, after))
            self.connection.close(code)
            self._leave()
        return 0.0

    def closed(self, code: CloseCode | None = None) -> None:
        """Hear that the connection is gone, with a `code` if the connection itself gave up."""
        self._leave()
        ended = self._closing or code
        self._closing = ended or CloseCode.DRAINING
        self._host.ended(self, ended.reason if ended else "client")

    def _leave(self) -> None:
        self._host.deadlines.clear(self)

    @abstractmethod
    def on_time(self, now: float) -> float:
        """See Timed."""


def or_unset(request_id: RequestId | None) -> RequestId | UnsetType:
    """Return a request's id as frames have it."""
    return UNSET if request_id is None else request_id
