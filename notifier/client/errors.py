"""The errors of the client.

ClientError    a sentence that says what is wrong and, where one is known, the remedy
├── NoAnswer   nobody has answered: the same event may be posted again with the same id
├── Refused    the server has read the event and refuses it: it must be changed
└── Closed     the gateway closed with a code from 4500 on: reconnecting is pointless
"""


class ClientError(Exception):
    """The root of the tree above."""


class NoAnswer(ClientError):
    """There is no answer, for now. An event may have been accepted all the same."""


class Refused(ClientError):
    """`status` and `code` are those of the problem (RFC 9457), `field` the path of the member."""

    def __init__(
        self, reason: str, *, status: int | None = None, code: str = "", field: str = ""
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.field = field


class Closed(ClientError):
    """`code` is the close code, `reason` its short name, such as 4501 forbidden."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}")
        self.code = code
        self.reason = reason
