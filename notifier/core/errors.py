"""The errors, and the meaning of each on every surface.

NotifierError
├── Invalid        a body or frame cannot be understood: 422, a dead letter, an `error` frame
│   ├── Unreadable  not even JSON, or not UTF-8: 400
│   ├── Unsupported  a form of body that is not taken: 415
│   │   └── UnsupportedCoding  compressed in another way than gzip
│   ├── TooLarge    over a bound: 413
│   ├── Expired     its producer let it expire while it waited: a dead letter
│   ├── Rejected    a consumer that is not notifier's rejected it: a dead letter
│   └── Followed    a topic is followed already
├── Unauthorized   the client or producer cannot be identified: 401, close 4500
│   ├── TokenExpired  another token is needed: 401, close 4001
│   └── TokenRevoked  it was good until a backend revoked it: 401, close 4500
├── Forbidden      identified, but not allowed to do that: 403, an `error` frame
├── TooMany        over a bound on how many or how often: 400, close 4502, an `error` frame
│   ├── TooManyConnections  of this user: 429, close 4504
│   └── TooManyEvents  posted too fast by this user: 429
├── Unavailable    a backend is out of reach; retry later: 503, close 4004
│   ├── Failed      a backend serves others, and failed at this one request
│   ├── Full        this process has as many connections as it may: 503
│   └── TooFast     clients come faster than this process may take them: 503
└── Refused        the broker takes everything but this one publication: a dead letter
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar, TypeVar

T = TypeVar("T")


class NotifierError(Exception):
    """The root of the tree above; `code` is the short name for frames, problems and metrics."""

    code: ClassVar[str] = "internal"


class Invalid(NotifierError):
    """`field` is a path such as `users[3]`, empty for the whole; `reason` has the remedy."""

    code = "invalid"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


class Unreadable(Invalid):
    """The body is not of the form that its content type names."""

    code = "unreadable"


class Unsupported(Invalid):
    """The content type is not one that can carry an event here."""

    code = "unsupported_type"


class UnsupportedCoding(Unsupported):
    """The content coding is not one that is undone here."""

    code = "unsupported_coding"


class TooLarge(Invalid):
    """The body, or one of its lists, is over its bound."""

    code = "too_large"


class Followed(Invalid):
    """The topic is followed already: harmless, however often it is asked for."""


class Expired(Invalid):
    """The time that its producer gave it was over before a router took it."""

    code = "expired"


class Rejected(Invalid):
    """A consumer that is not notifier's took it out of the queue."""

    code = "rejected"


class Unauthorized(NotifierError):
    """The reason never contains the credential."""

    code = "unauthorized"


class TokenExpired(Unauthorized):
    """The token was good until it expired: the client comes back with a new one."""

    code = "token_expired"


class TokenRevoked(Unauthorized):
    """Only a token that is issued from now on is taken."""

    code = "token_revoked"

    def __init__(self) -> None:
        super().__init__("the token was revoked: get one that is issued after that")


class Forbidden(NotifierError):
    """The reason names the topic or page that is not allowed."""

    code = "forbidden"


class TooMany(NotifierError):
    """The reason names the bound."""

    code = "too_many"


class TooManyEvents(TooMany):
    """A user's clients post events faster than they may."""


class TooManyConnections(TooMany):
    """The user has as many connections, over all gateways, as a user may have."""

    code = "too_many_connections"


class Unavailable(NotifierError):
    """`backend` is one of `rabbitmq`, `redis`, `issuer`, `gateway`."""

    code = "unavailable"

    def __init__(self, backend: str, reason: str) -> None:
        super().__init__(f"{backend} is unavailable: {reason}")
        self.backend = backend


class Failed(Unavailable):
    """The backend serves others. Repeat the request: an operator may mend the cause.

    The log has the backend's own words.
    """

    def __init__(self, backend: str) -> None:
        super().__init__(backend, "it failed at this request; notifier's log says why")


class Full(Unavailable):
    """Another process may have room."""

    code = "full"

    def __init__(self) -> None:
        super().__init__("gateway", "it has as many connections as it may")


class TooFast(Unavailable):
    """So do not come back all at once."""

    code = "too_fast"

    def __init__(self) -> None:
        super().__init__("gateway", "too many clients come at once")


class Refused(NotifierError):
    """A retry would be refused again."""

    code = "refused"


def unfailed(answers: Iterable[T | Unavailable]) -> list[T]:
    """Return answers; raises the first Unavailable among them, which a Failed is too."""
    found: list[T] = []
    for each in answers:
        if isinstance(each, Unavailable):
            raise each
        found.append(each)
    return found


class CloseCode(IntEnum):
    """Why the server ends a connection. Below 4500 the client reconnects, else it must not.

    The table is part of the client protocol, version 1.
    """

    DRAINING = 4000
    TOKEN_EXPIRED = 4001
    SLOW_CONSUMER = 4002
    HEARTBEAT_TIMEOUT = 4003
    UNAVAILABLE = 4004
    MAX_AGE = 4005
    DISCONNECTED = 4006
    UNAUTHORIZED = 4500
    FORBIDDEN = 4501
    PROTOCOL_ERROR = 4502
    AUTH_TIMEOUT = 4503
    TOO_MANY_CONNECTIONS = 4504

    @property
    def reason(self) -> str:
        """The code's name as clients read it: `draining`."""
        return self.name.lower()

    @property
    def comes_back(self) -> bool:
        """Whether a client may reconnect by itself."""
        return self < CloseCode.UNAUTHORIZED
