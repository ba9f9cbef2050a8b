"""Long-poll: one request, answered with frames as soon as there are any, and with the next cursor.

A session for as long as the request is held, and no task: the answer is written when something is
there, or when the time to wait is over.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from hashlib import blake2b

import msgspec
from fastapi import Request
from msgspec import UNSET

from notifier.core import frames
from notifier.core.errors import CloseCode
from notifier.core.frames import ServerFrame
from notifier.core.positions import Position
from notifier.core.publications import Publication
from notifier.gateway import description
from notifier.gateway.entrance import number_of
from notifier.gateway.open_response import OpenResponse, Transport
from notifier.http.exchange import Exchange
from notifier.http.port import Header
from notifier.openapi import parameter

LONGEST_WAIT = 60  # seconds that may be asked for
ANSWERED_AFTER = 55  # at most, before proxies give up at 60
USUAL_WAIT = 25
_NO_MARKS: Mapping[str, bytes] = {}
_PAUSE = 5  # seconds before a gap is told of a topic that cannot be read: its client asks again
_ENOUGH = 256 * 1024  # bytes in one answer; the rest comes with the next


def name_of(frame: bytes) -> str:
    """Return eight digits that stand for a frame of marks, so that a client can say it has it."""
    return blake2b(frame, digest_size=4).hexdigest()


class PollConnection(OpenResponse):
    """One held request. Fulfils Connection."""

    __slots__ = (
        "_frames",
        "_is_answering",
        "_is_greeted",
        "_is_over",
        "_known",
        "_marks",
        "_size",
        "_wait",
    )

    transport = "poll"

    def __init__(
        self,
        exchange: Exchange,
        cursor: Mapping[str, Position],
        headers: Iterable[Header] = (),
        *,
        wait: float,
        known: Collection[str] = (),
    ) -> None:
        """Hold a request for `wait` seconds; its client has the `known` frames of marks."""
        super().__init__(exchange, cursor, headers)
        self._known = known
        self._marks: Mapping[str, bytes] = _NO_MARKS  # encoded, by topic
        self._frames: list[bytes] = []
        self._size = 0
        self._is_greeted = False
        self._is_over = False
        self._is_answering = False
        self._wait = asyncio.get_running_loop().call_later(
            min(wait, ANSWERED_AFTER), self._time_is_up
        )

    # Called by the session.

    @property
    def encode(self) -> Callable[[Publication], bytes]:
        """See Connection."""
        return frames.event_frame

    @property
    def has_room(self) -> bool:
        """See Connection. Once there is enough, there never is room again: the answer ends it."""
        return self._size < _ENOUGH

    def write(self, data: bytes, publication: Publication | None = None) -> None:
        """See Connection."""
        if publication is not None:
            self._positions[publication.topic] = publication.position
        self._frames.append(data)
        self._size += len(data)
        self._answer_soon()

    def send(self, frame: ServerFrame) -> None:
        """See Connection."""
        self._note(frame)
        if isinstance(frame, frames.Hello):
            self._is_greeted = True
            # A client that follows a topic from now on needs its position.
            starts = any(start.resumed is UNSET for start in frame.topics.values())
            self._is_over = self._is_over or starts
            if self._is_over:
                self._answer_soon()
        elif isinstance(frame, frames.Marks):
            encoded = frames.encode(frame)
            self._marks = {**self._marks, frame.topic: encoded}
            if name_of(encoded) not in self._known:
                self._answer_soon()
        elif isinstance(frame, frames.Error):
            self._frames.append(frames.encode(frame))  # no reason to answer by itself
        elif isinstance(frame, frames.Gap) and Position.parse(frame.position).is_unknown:
            self._frames.append(frames.encode(frame))
            self._answer_after_a_pause()
        else:
            self.write(frames.encode(frame))

    def ping(self) -> bool:
        """See Connection."""
        return False

    def close(self, _code: CloseCode) -> None:
        """See Connection."""
        self._answer_soon()

    # The answer.

    def _answer_after_a_pause(self) -> None:
        loop = asyncio.get_running_loop()
        until = min(self._wait.when(), loop.time() + _PAUSE)
        self._wait.cancel()
        self._wait = loop.call_at(until, self._time_is_up)

    def _time_is_up(self) -> None:
        self._is_over = True
        if self._is_greeted:  # else nothing is known yet, not even that there is nothing
            self._answer_soon()

    def _answer_soon(self) -> None:
        # Not at once: further frames of this moment go with it, and the session is not called back.
        if not self._is_answering:
            self._is_answering = True
            asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        if self._transport.is_closing():
            return
        names = {name_of(encoded): encoded for encoded in self._marks.values()}
        news = [encoded for name, encoded in names.items() if name not in self._known]
        body = b'{"frames":[%s],"cursor":%s%s}' % (
            b",".join((*self._frames, *news)),
            msgspec.json.encode(self.cursor),
            b',"marks":"%s"' % ",".join(names).encode() if names else b"",
        )
        length = str(len(body)).encode()
        headers = (
            (b"content-type", b"application/json"),
            (b"content-length", length),
            (b"cache-control", b"no-store"),
            *self._headers,
        )
        self._transport.write(self._exchange.head(headers) + body)
        self._wait.cancel()
        if self._listener is not None:
            self._listener.closed()
            self._listener = None
        self._port.backlog.forget(self)
        self._exchange.give_back(self, is_paused=not super().has_room)

    def _lost(self) -> None:
        self._wait.cancel()
        super()._lost()


def _response_to(request: Request) -> Callable[..., PollConnection]:
    wait = number_of(request, "wait", USUAL_WAIT, 0, LONGEST_WAIT)
    known = request.query_params.get("marks", "").split(",")
    return partial(PollConnection, wait=wait, known=known)


_WAIT = parameter(
    "wait",
    "query",
    "Seconds to wait for events.",
    type="integer",
    minimum=0,
    maximum=LONGEST_WAIT,
    default=USUAL_WAIT,
)
_DOES = "Follow topics by long-poll: wait for events, and answer with them and the next cursor."
POLL = Transport(
    *("poll", _response_to),
    description.follows(_DOES, description.PAGE, _WAIT, description.KNOWN_MARKS),
)
