"""Single questions and orders to the api, and to `notifier dev`."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from notifier.client.errors import ClientError, Refused
from notifier.client.http_requests import (
    NOT_HERE,
    WHERE_THE_API_IS,
    ask,
    bearer,
    members_of,
    said,
)

_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


async def post(url: str, body: bytes, key: str | None) -> dict[str, Any]:
    """Post one event or a batch to the producer API, once; raises ClientError.

    A batch is answered by `results`, in the order of its events.
    """
    url = f"{url.rstrip('/')}/v1/events"
    headers = {"content-type": "application/json", **bearer(key)}
    answer = await ask(url, content=body, headers=headers)
    answered = members_of(answer)
    if "results" in answered or (answer.is_success and "id" in answered):
        return answered
    if answer.status_code in _REFUSALS:
        raise Refused(said(url, answer), status=answer.status_code)
    if answer.is_success or answer.status_code in NOT_HERE:
        raise ClientError(f"{said(url, answer)}. {WHERE_THE_API_IS}")
    raise ClientError(said(url, answer))


async def presence(url: str, user: str, key: str | None) -> dict[str, Any]:
    """Ask the api which connections a user has and return its answer; raises ClientError."""
    url = f"{url.rstrip('/')}/v1/users/{quote(user, safe='')}"
    return _answered(url, await ask(url, "GET", headers=bearer(key)), HTTPStatus.OK)


async def fate(url: str, user: str, event: str, key: str | None, **of: str) -> dict[str, Any]:
    """Ask the api how far an event came towards a user and return its answer; raises ClientError.

    `of` may have its `source`, and one more `topic` to look in.
    """
    path = f"/v1/users/{quote(user, safe='')}/events/{quote(event, safe='')}"
    url = url.rstrip("/") + path + (f"?{urlencode(of)}" if of else "")
    return _answered(url, await ask(url, "GET", headers=bearer(key)), HTTPStatus.OK)


async def order(url: str, act: str, user: str, key: str | None) -> dict[str, Any]:
    """Give an order about a user to the api and return its answer; raises ClientError."""
    url = f"{url.rstrip('/')}/v1/users/{quote(user, safe='')}/{act}"
    return _answered(url, await ask(url, headers=bearer(key)), HTTPStatus.ACCEPTED)


def _answered(url: str, answer: httpx.Response, status: HTTPStatus) -> dict[str, Any]:
    if answer.status_code == status:
        return members_of(answer)
    if answer.status_code in NOT_HERE:
        raise ClientError(f"{said(url, answer)}. {WHERE_THE_API_IS}")
    raise ClientError(said(url, answer))


async def fetch_token(url: str, user: str) -> str:
    """Ask a running `notifier dev` for a token; raises ClientError."""
    base = url.rstrip("/").replace("ws", "http", 1) if url.startswith("ws") else url.rstrip("/")
    url = f"{base}/dev/token"
    answer = await ask(url, json={"user": user})
    answered = members_of(answer)
    if "token" in answered:
        return str(answered["token"])
    if answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        raise ClientError(said(url, answer))
    raise ClientError(
        f"{said(url, answer)}. Only `notifier dev` gives tokens: "
        "name one in --url, or set NOTIFIER_JWT_SECRET"
    )
