"""A follower of a user's stream: it comes back from where it was, and misses nothing silently."""

import asyncio
import inspect
import json
import logging
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Self
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.typing import Subprotocol

from notifier.client.errors import ClientError, Closed, NoAnswer
from notifier.client.events import Event, Gap
from notifier.client.http_requests import NOT_HERE, TIMEOUT, seconds_in
from notifier.client.receipts import Receipts
from notifier.core.addresses import PROXY_UNFIT
from notifier.core.backoff import Backoff
from notifier.core.positions import Position, format_cursor, parse_cursor

GetToken = Callable[[], str | Awaitable[str]]

_log = logging.getLogger("notifier.client")
_MUST_NOT_RETURN = 4500
_TOKEN = re.compile(r"[\w.-]+", re.ASCII)  # of a JWT; others do not fit into the handshake
_HTTP = re.compile("^http(?=s?://)", re.IGNORECASE)
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 20.0
_BEFORE_EXPIRY = 30.0  # seconds; a token of a shorter life is renewed halfway
_PASSING = (OSError, TimeoutError, WebSocketException, NoAnswer, httpx.TransportError)
_WHERE_THE_GATEWAY_IS = (
    "clients connect to a gateway, on port 8000 by default (NOTIFIER_GATEWAY_PORT)"
)


class Follower:
    """The events of a user and of `topics`, each once and in the order of its topic.

    Events whose producers wait for it are marked received, at most once a second.

    `url` is the gateway's, https:// or wss://. `get_token` returns a token, or an awaitable of one;
    it is asked before each connection and before a token expires, and asked again when the
    network fails it. `since` is a cursor: `cursor` of an earlier one, or `TOPIC@start`.

    `on_gap` is called, and awaited if it returns an awaitable, before later events come; without
    it a gap is a warning in the log `notifier.client`. `note` is given each sentence about the
    connection; without it they go to that log too.
    """

    def __init__(  # noqa: PLR0913 - all but two have defaults
        self,
        url: str,
        get_token: GetToken,
        *,
        topics: tuple[str, ...] = (),
        since: str = "",
        on_gap: Callable[[Gap], object] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._url = _HTTP.sub("ws", url.rstrip("/"))
        self._get_token = get_token
        self._topics = topics
        self._positions = parse_cursor(since)
        self._on_gap = on_gap or _warn_of
        self._note = note or _log.info
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._after = 0.0  # as the server asked, in seconds
        self._renew_at: float | None = None  # by time.time()
        self._receipts = Receipts()
        self._iterating: AsyncGenerator[Event, None] | None = None

    async def __aenter__(self) -> Self:
        """Leaving the block closes the connection; a loop that never ends needs no block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._iterating is not None:
            await self._iterating.aclose()

    def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Yield events for ever; raises ClientError when reconnecting is pointless."""
        self._iterating = self._events()
        return self._iterating

    @property
    def cursor(self) -> str:
        """The place behind the event that came last; give it as `since` to go on from there."""
        return format_cursor(self._positions)

    async def _events(self) -> AsyncGenerator[Event, None]:
        async with aclosing(self.frames()) as frames:
            async for frame in frames:
                match frame["type"]:
                    case "event":
                        yield Event.of_frame(frame)
                    case "gap":
                        heard = self._on_gap(Gap.of_frame(frame))
                        if inspect.isawaitable(heard):
                            await heard
                    case "error":
                        _log.warning("the gateway refuses: %s", frame["message"])
                    case _:
                        pass

    async def frames(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the frames of the protocol as they come, but no event twice; else as iteration."""
        while True:
            reason, self._after = "closed", 0.0
            try:
                async with self._connection(await self._token()) as socket:
                    while True:
                        frame = json.loads(await self._next(socket))
                        self._receipts.take(frame)
                        if self._is_new(frame):
                            yield frame
            except InvalidURI as error:
                raise ClientError(
                    f"no address of a gateway, such as https://push.example: {self._url}"
                ) from error
            except ImportError as error:  # of a SOCKS proxy's library
                raise ClientError(PROXY_UNFIT) from error
            except ConnectionClosed as closed:
                reason = _closing(closed)
            except _PASSING as error:
                reason = self._reason(error)
            await self._wait(reason)

    async def _token(self) -> str:
        given = self._get_token()
        token = _checked(await given if inspect.isawaitable(given) else given)
        self._renew_at = _renewal_of(token, time.time())
        return token

    @asynccontextmanager
    async def _connection(self, token: str) -> AsyncIterator[ClientConnection]:
        socket = await connect(
            self._address(),
            subprotocols=[Subprotocol("notifier.v1"), Subprotocol(f"bearer.{token}")],
            open_timeout=TIMEOUT,
        )
        try:
            yield socket
        finally:
            with suppress(*_PASSING):
                await self._receipts.tell(partial(_send, socket), time.time())
            with suppress(ConnectionClosed), _lost_is_closed():
                await socket.close()

    async def _next(self, socket: ClientConnection) -> str | bytes:
        """Return the next message; renew the token and mark events when it is time for that."""
        while moments := [each for each in (self._renew_at, self._receipts.due) if each]:
            try:
                async with asyncio.timeout(max(0.0, min(moments) - time.time())):
                    return await socket.recv()
            except TimeoutError:
                await self._catch_up(socket, time.time())
        return await socket.recv()

    async def _catch_up(self, socket: ClientConnection, now: float) -> None:
        if (due := self._receipts.due) and due <= now:
            await self._receipts.tell(partial(_send, socket), now)
        if self._renew_at and self._renew_at <= now:
            await self._renew(socket)

    async def _renew(self, socket: ClientConnection) -> None:
        """Renew the session in place; where that fails, the gateway's 4001 brings a new one."""
        self._renew_at = None
        try:
            token = await self._token()
        except _PASSING as error:
            self._note(f"no new token: {error}")
        else:
            await _send(socket, json.dumps({"type": "auth", "token": token}))

    def _is_new(self, frame: dict[str, Any]) -> bool:
        """Remember the frame's position; return whether it is to be passed on."""
        match frame["type"]:
            case "hello":
                self._backoff.reset()
                for topic, start in frame["topics"].items():
                    if start.get("resumed") is not False:  # else the gap is still to come
                        self._positions[topic] = Position.parse(start["position"])
            case "event":
                return self._moves(frame["topic"], Position.parse(frame["position"]))
            case "gap" | "subscribed":
                self._positions[frame["topic"]] = Position.parse(frame["position"])
            case "unsubscribed":
                self._positions.pop(frame["topic"], None)
            case "bye":
                self._after = frame.get("reconnect_after_ms", 0) / 1000
            case _:  # a frame of a later version
                pass
        return True

    def _moves(self, topic: str, position: Position) -> bool:
        known = self._positions.get(topic)
        if known and known.epoch == position.epoch and known.offset >= position.offset:
            return False  # a duplicate
        self._positions[topic] = position
        return True

    def _address(self) -> str:
        query = {"topics": ",".join(self._topics)} if self._topics else {}
        if self._positions:
            query["since"] = format_cursor(self._positions)
        return f"{self._url}/v1/ws" + (f"?{urlencode(query)}" if query else "")

    def _reason(self, error: Exception) -> str:
        if not isinstance(error, InvalidStatus):
            return str(error) or type(error).__name__
        status = error.response.status_code
        self._after = seconds_in(error.response.headers.get("retry-after"))
        hint = f" ({_WHERE_THE_GATEWAY_IS})" if status in NOT_HERE else ""
        return f"refused with HTTP {status}{hint}"

    async def _wait(self, why: str) -> None:
        pause = self._after or self._backoff.next()
        self._note(f"{why}; coming back in {pause:.1f} s")
        await asyncio.sleep(pause)


async def _send(socket: ClientConnection, text: str) -> None:
    with _lost_is_closed():
        await socket.send(text)


@contextmanager
def _lost_is_closed() -> Iterator[None]:
    """Raise ConnectionClosed for an error of asyncio's own.

    Its transport forgets that it has ended where the server ended it while bytes still waited:
    websockets then aborts it once more, and it looks for a loop that it has no more.
    """
    try:
        yield
    except AttributeError as error:
        raise ConnectionClosedError(None, None) from error


def _closing(closed: ConnectionClosed) -> str:
    """Say with which code a connection was closed; raises Closed if it is final."""
    if closed.rcvd is None:
        return "closed with 1006 connection lost"
    end = Closed(closed.rcvd.code, closed.rcvd.reason)
    if end.code >= _MUST_NOT_RETURN:
        raise end from closed
    return str(end)


def _checked(token: object) -> str:
    """Return the token, else raise ClientError without it: it may be another secret."""
    if isinstance(token, str) and _TOKEN.fullmatch(text := token.strip()):
        return text
    size = f" of {len(token)} characters" if isinstance(token, str) else ""
    raise ClientError(f"get_token gave no token, but {type(token).__name__}{size}")


def _renewal_of(token: str, now: float) -> float | None:
    """Return the moment to renew a token at, by its claim `exp`; None where it has none to read."""
    try:
        claims = token.split(".")[1]
        left = float(json.loads(urlsafe_b64decode(claims + "=="))["exp"]) - now
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    return now + max(left - _BEFORE_EXPIRY, left / 2) if left > 0 else None


def _warn_of(gap: Gap) -> None:
    _log.warning("events of %s were missed (%s): fetch your state anew", gap.topic, gap.reason)
