"""HTTP responses that outlive their endpoint, for SSE and long-poll.

The endpoint authenticates by ordinary dependencies, takes the response over from its exchange (see
`notifier.http`), and returns: while a client is served or waits there is no task.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from notifier.core.errors import CloseCode
from notifier.core.frames import Gap, Hello, ServerFrame
from notifier.core.ports import Connection, Listener
from notifier.core.positions import Position, format_cursor
from notifier.core.publications import Publication
from notifier.gateway.outgoing import Outgoing
from notifier.http.exchange import Exchange
from notifier.http.port import HANDOVER, Header


class TakenOver(Response):
    """Stands for a response that another object gives."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing."""


def exchange_of(request: Request) -> Exchange:
    """Return the exchange of a request, whose response may be handed over."""
    return cast("Exchange", request.scope["extensions"][HANDOVER]["from"])


class OpenResponse(Outgoing, ABC):
    """A response under way, and the cursor of its events so far."""

    __slots__ = ("_exchange", "_headers", "_positions")

    def __init__(
        self, exchange: Exchange, cursor: Mapping[str, Position], headers: Iterable[Header]
    ) -> None:
        super().__init__(exchange.port)
        self._exchange = exchange
        self._headers = tuple(headers)
        self._positions: dict[str, Position | str] = {**cursor}
        self._transport = exchange.take_over(self)

    @property
    def cursor(self) -> str:
        """The positions up to which this client has got each topic."""
        return format_cursor(self._positions)

    def _note(self, frame: ServerFrame) -> None:
        if isinstance(frame, Hello):
            # Where a gap is announced, the client's own position: only the gap itself moves it.
            self._positions = {topic: start.position for topic, start in frame.topics.items()}
        elif isinstance(frame, Gap):
            self._positions[frame.topic] = frame.position

    @property
    @abstractmethod
    def encode(self) -> Callable[[Publication], bytes]:
        """See Connection."""

    @abstractmethod
    def send(self, frame: ServerFrame) -> None:
        """See Connection."""

    @abstractmethod
    def ping(self) -> bool:
        """See Connection."""

    def write_all(self, publications: Sequence[Publication]) -> None:
        """See Connection. Behind each stands the cursor up to it."""
        for publication in publications:
            self.write(self.encode(publication), publication)

    def hand_over(self, listener: Listener) -> None:
        """Call `listener` back from now on."""
        self._listener = listener

    def close(self, code: CloseCode) -> None:
        """See Connection. A slow client has some seconds to take the rest."""
        if self._timer is None and not self._transport.is_closing():
            if self._gave_up is not None:  # else the session has said bye
                self._transport.write(self._farewell(code))
            self._abort_later()
            self.shutdown()

    def _farewell(self, code: CloseCode) -> bytes:  # noqa: ARG002 - for transports that have one
        """Return the bytes that tell a client that it is given up."""
        return b""

    def shutdown(self) -> None:
        """Close at once; the server calls this for open connections when it stops."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._exchange.keep_early(data)

    def _lost(self) -> None:
        self._exchange.let_go(self)
        super()._lost()


Respond = Callable[[Exchange, Mapping[str, Position], Iterable[Header]], Connection]
"""Makes the open response of a request: from its exchange, the cursor, and further headers."""


class Transport(NamedTuple):
    """A way to follow topics over HTTP, at `GET /v1/<name>`.

    `response_to` reads the parameters that are the transport's own, and raises Invalid.
    `described` has the arguments of `add_api_route`; see `description.follows`.
    """

    name: str
    response_to: Callable[[Request], Respond]
    described: Mapping[str, Any]
