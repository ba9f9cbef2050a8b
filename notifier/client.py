"""A client of notifier for the command line: it posts events, and follows a user's stream."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Subprotocol

from notifier.core.backoff import Backoff
from notifier.core.positions import Position, format_cursor

_MUST_NOT_RETURN = 4500
_TIMEOUT = 15.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 20.0


class ClientError(Exception):
    """The server said no, in a sentence for the person at the terminal."""


class NoAnswer(ClientError):
    """There is no server, for now."""


async def post(url: str, body: bytes, key: str | None) -> dict[str, Any]:
    """Post one event or a batch to the producer API and return its answer; raises ClientError."""
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    answer = await _ask(f"{url.rstrip('/')}/v1/events", content=body, headers=headers)
    answered: dict[str, Any] = answer.json()
    return answered


async def fetch_token(url: str, user: str) -> str:
    """Ask a running `notifier dev` for a token; raises ClientError."""
    base = url.rstrip("/").replace("ws", "http", 1) if url.startswith("ws") else url.rstrip("/")
    answer = await _ask(f"{base}/dev/token", json={"user": user})
    return str(answer.json()["token"])


async def _ask(url: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - as httpx takes it
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT) as http:
            answer = await http.post(url, **request)
    except httpx.HTTPError as error:
        raise NoAnswer(f"nothing answers at {url}: {str(error) or type(error).__name__}") from error
    if not answer.is_success:
        raise ClientError(f"{url} answered {answer.status_code}: {_detail(answer)}")
    return answer


def _detail(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        return str(problem.get("detail") or problem)
    except ValueError:
        return answer.text[:500]


class Follower:
    """Follows a user's stream over WebSocket, and comes back from where it was.

    `token` is asked for before each connection; `frame` is given each frame, `note` each sentence
    about the connection.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[], Awaitable[str]],
        *,
        topics: tuple[str, ...] = (),
        frame: Callable[[dict[str, Any]], None],
        note: Callable[[str], None],
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._topics = topics
        self._frame = frame
        self._note = note
        self._positions: dict[str, Position] = {}
        self._backoff = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE)

    async def run(self) -> None:
        """Follow for ever; raises ClientError when coming back is pointless."""
        while True:
            try:
                await self._stay()
            except InvalidURI as error:
                raise ClientError(
                    f"no address of a gateway (ws://, wss://): {self._url}"
                ) from error
            except (OSError, TimeoutError, WebSocketException, NoAnswer) as error:
                await self._wait(_reason(error), None)

    async def _stay(self) -> None:
        token = await self._token()
        self._after: float | None = None
        async with connect(
            self._address(),
            subprotocols=[Subprotocol("notifier.v1"), Subprotocol(f"bearer.{token}")],
            open_timeout=_TIMEOUT,
        ) as socket:
            try:
                await self._read(socket)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 1006
                reason = closed.rcvd.reason if closed.rcvd else "connection lost"
                if code >= _MUST_NOT_RETURN:
                    raise ClientError(f"closed with {code} {reason}") from closed
                await self._wait(f"closed with {code} {reason}", self._after)

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            frame = json.loads(await socket.recv())
            self._remember(frame)
            self._frame(frame)

    def _remember(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "hello":
                self._backoff.reset()
                for topic, start in frame["topics"].items():
                    if start.get("resumed") is not False:  # else the gap is still to be told
                        self._positions[topic] = Position.parse(start["position"])
            case "event" | "gap" | "subscribed":
                self._positions[frame["topic"]] = Position.parse(frame["position"])
            case "unsubscribed":
                self._positions.pop(frame["topic"], None)
            case "bye":
                self._after = frame.get("reconnect_after_ms", 0) / 1000
            case _:  # what later versions may add
                pass

    def _address(self) -> str:
        query = {"topics": ",".join(self._topics)} if self._topics else {}
        if self._positions:
            query["since"] = format_cursor(self._positions)
        return f"{self._url}/v1/ws" + (f"?{urlencode(query)}" if query else "")

    async def _wait(self, why: str, after: float | None) -> None:
        pause = after or self._backoff.next()
        self._note(f"{why}; coming back in {pause:.1f} s")
        await asyncio.sleep(pause)


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        return f"refused with HTTP {error.response.status_code}"
    return str(error) or type(error).__name__
