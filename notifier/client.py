"""A client of notifier for the command line: it posts events, and follows a user's stream."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Subprotocol

from notifier.core.backoff import Backoff
from notifier.core.positions import Position, format_cursor

_MUST_NOT_RETURN = 4500
_TIMEOUT = 15.0
_LONGEST_SHOWN = 500
_NOT_HERE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_WHERE_THE_API_IS = (
    "Events and orders are posted to the api, on port 8001 by default (NOTIFIER_API_PORT), not to "
    "a gateway: give its address as --url"
)
_WHERE_THE_GATEWAY_IS = (
    "clients connect to a gateway, on port 8000 by default (NOTIFIER_GATEWAY_PORT)"
)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 20.0


class ClientError(Exception):
    """The server said no, in a sentence for the person at the terminal."""


class NoAnswer(ClientError):
    """There is no server, for now."""


class Refused(ClientError):
    """The server has read the event and refuses it."""


async def post(url: str, body: bytes, key: str | None) -> dict[str, Any]:
    """Post one event or a batch to the producer API and return its answer; raises ClientError.

    A batch is answered by `results`, in the order of its events.
    """
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    url = f"{url.rstrip('/')}/v1/events"
    answer = await _ask(url, content=body, headers=headers)
    answered = _members_of(answer)
    if "results" in answered or (answer.is_success and "id" in answered):
        return answered
    if answer.status_code in _REFUSALS:
        raise Refused(_said(url, answer))
    if answer.is_success or answer.status_code in _NOT_HERE:
        raise ClientError(f"{_said(url, answer)}. {_WHERE_THE_API_IS}")
    raise ClientError(_said(url, answer))


async def presence(url: str, user: str, key: str | None) -> dict[str, Any]:
    """Ask the api which connections a user has and return its answer; raises ClientError."""
    url = f"{url.rstrip('/')}/v1/users/{quote(user, safe='')}"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = await _ask(url, "GET", headers=headers)
    return _answered(url, answer, HTTPStatus.OK)


async def fate(url: str, user: str, event: str, key: str | None, **of: str) -> dict[str, Any]:
    """Ask the api how far an event came towards a user and return its answer; raises ClientError.

    `of` may have its `source`, and one more `topic` to look in.
    """
    path = f"/v1/users/{quote(user, safe='')}/events/{quote(event, safe='')}"
    url = url.rstrip("/") + path + (f"?{urlencode(of)}" if of else "")
    answer = await _ask(url, "GET", headers={"authorization": f"Bearer {key}"} if key else {})
    return _answered(url, answer, HTTPStatus.OK)


async def order(url: str, act: str, user: str, key: str | None) -> dict[str, Any]:
    """Give an order about a user to the api and return its answer; raises ClientError."""
    url = f"{url.rstrip('/')}/v1/users/{quote(user, safe='')}/{act}"
    answer = await _ask(url, headers={"authorization": f"Bearer {key}"} if key else {})
    return _answered(url, answer, HTTPStatus.ACCEPTED)


def _answered(url: str, answer: httpx.Response, status: HTTPStatus) -> dict[str, Any]:
    if answer.status_code == status:
        return _members_of(answer)
    if answer.status_code in _NOT_HERE:
        raise ClientError(f"{_said(url, answer)}. {_WHERE_THE_API_IS}")
    raise ClientError(_said(url, answer))


async def fetch_token(url: str, user: str) -> str:
    """Ask a running `notifier dev` for a token; raises ClientError."""
    base = url.rstrip("/").replace("ws", "http", 1) if url.startswith("ws") else url.rstrip("/")
    url = f"{base}/dev/token"
    answer = await _ask(url, json={"user": user})
    answered = _members_of(answer)
    if "token" in answered:
        return str(answered["token"])
    if answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        raise ClientError(_said(url, answer))
    raise ClientError(
        f"{_said(url, answer)}. Only `notifier dev` gives tokens: "
        "name one in --url, or set NOTIFIER_JWT_SECRET"
    )


async def _ask(
    url: str,
    method: str = "POST",
    **request: Any,  # noqa: ANN401 - as httpx takes it
) -> httpx.Response:
    _check(url)
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT) as http:
            return await http.request(method, url, **request)
    except httpx.HTTPError as error:
        raise NoAnswer(f"nothing answers at {url}: {str(error) or type(error).__name__}") from error


def _check(url: str) -> None:
    """Raise ClientError for an address that cannot be asked."""
    with suppress(httpx.InvalidURL):
        address = httpx.URL(url)
        if address.scheme in ("http", "https") and address.host:
            return
    raise ClientError(f"--url: {url} is no address: it begins with http:// or https:// and a host")


def _members_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        members = answer.json()
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _said(url: str, answer: httpx.Response) -> str:
    said = _members_of(answer).get("detail") or answer.text[:_LONGEST_SHOWN].strip()
    return f"{url} answered {answer.status_code}" + (f": {said}" if said else "")


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
        """Follow for ever; raises ClientError when reconnecting is pointless.

        An error of `frame` or `note` is raised as well: it says nothing about the connection.
        """
        async with aclosing(self._frames()) as frames:
            async for frame in frames:
                self._frame(frame)

    async def _frames(self) -> AsyncGenerator[dict[str, Any], None]:
        while True:
            self._after: float | None = None
            reason = "closed"
            try:
                async with self._connection(await self._token()) as socket:
                    while True:
                        yield self._remembered(json.loads(await socket.recv()))
            except InvalidURI as error:
                raise ClientError(
                    f"no address of a gateway (ws://, wss://): {self._url}"
                ) from error
            except ConnectionClosed as closed:
                reason = _closing(closed)
            except (OSError, TimeoutError, WebSocketException, NoAnswer) as error:
                reason = _reason(error)
            await self._wait(reason, self._after)

    def _connection(self, token: str) -> connect:
        return connect(
            self._address(),
            subprotocols=[Subprotocol("notifier.v1"), Subprotocol(f"bearer.{token}")],
            open_timeout=_TIMEOUT,
        )

    def _remembered(self, frame: dict[str, Any]) -> dict[str, Any]:
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
            case _:  # a frame of a later version
                pass
        return frame

    def _address(self) -> str:
        query = {"topics": ",".join(self._topics)} if self._topics else {}
        if self._positions:
            query["since"] = format_cursor(self._positions)
        return f"{self._url}/v1/ws" + (f"?{urlencode(query)}" if query else "")

    async def _wait(self, why: str, after: float | None) -> None:
        pause = after or self._backoff.next()
        self._note(f"{why}; coming back in {pause:.1f} s")
        await asyncio.sleep(pause)


def _closing(closed: ConnectionClosed) -> str:
    """Say with which code a connection was closed; raises ClientError if it is final."""
    if closed.rcvd is None:
        return "closed with 1006 connection lost"
    said = f"closed with {closed.rcvd.code} {closed.rcvd.reason}"
    if closed.rcvd.code >= _MUST_NOT_RETURN:
        raise ClientError(said) from closed
    return said


def _reason(error: Exception) -> str:
    if not isinstance(error, InvalidStatus):
        return str(error) or type(error).__name__
    status = error.response.status_code
    hint = f" ({_WHERE_THE_GATEWAY_IS})" if status in _NOT_HERE else ""
    return f"refused with HTTP {status}{hint}"
