"""One question over HTTP, and the reading of its answer."""

import re
import ssl
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import httpx

from notifier.client.errors import ClientError, NoAnswer
from notifier.core.addresses import PROXY_UNFIT

TIMEOUT = 15.0
NOT_HERE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
WHERE_THE_API_IS = (
    "Events and orders are posted to the api, on port 8001 by default (NOTIFIER_API_PORT), not to "
    "a gateway: give its address as --url"
)
_LONGEST_SHOWN = 500
_KEY = re.compile(r"[!-~]+")  # operators may hash any of their own


async def ask(
    url: str,
    method: str = "POST",
    **request: Any,  # noqa: ANN401 - as httpx takes it
) -> httpx.Response:
    """Ask once, over a connection of its own; raises ClientError."""
    async with connections_to(url) as http:
        return await ask_over(http, url, method, **request)


def connections_to(url: str, **more: Any) -> httpx.AsyncClient:  # noqa: ANN401 - as httpx takes it
    """Return the connections to an address, which are opened when needed; raises ClientError."""
    check(url)
    try:
        return httpx.AsyncClient(timeout=TIMEOUT, verify=authorities(url), **more)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ClientError(PROXY_UNFIT) from error


async def ask_over(
    http: httpx.AsyncClient,
    url: str,
    method: str = "POST",
    **request: Any,  # noqa: ANN401 - as httpx takes it
) -> httpx.Response:
    """Ask over a connection that is kept; raises NoAnswer."""
    try:
        return await http.request(method, url, **request)
    except httpx.HTTPError as error:
        raise NoAnswer(f"nothing answers at {url}: {str(error) or type(error).__name__}") from error


def check(url: str) -> None:
    """Raise ClientError for an address that cannot be asked."""
    with suppress(httpx.InvalidURL):
        address = httpx.URL(url)
        if address.scheme in ("http", "https") and address.host:
            return
    raise ClientError(f"url: {url} is no address: it begins with http:// or https:// and a host")


def authorities(url: str) -> ssl.SSLContext:
    """Return those to trust at an address: none over plain HTTP, as reading them takes 25 ms."""
    if httpx.URL(url).scheme == "https":
        return httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def members_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer; empty where it has none."""
    try:
        members = answer.json()
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def said(url: str, answer: httpx.Response) -> str:
    """Say how a question was answered."""
    detail = members_of(answer).get("detail") or answer.text[:_LONGEST_SHOWN].strip()
    return f"{url} answered {answer.status_code}" + (f": {detail}" if detail else "")


def bearer(key: str | None) -> dict[str, str]:
    """Return the header of an API key; raises ClientError for what can be none.

    White space around it is left out: files that keys are read from end with a line break.
    """
    key = (key or "").strip()
    if key and not _KEY.fullmatch(key):
        raise ClientError("key: an API key has neither white space nor characters beyond ASCII")
    return {"authorization": f"Bearer {key}"} if key else {}


def seconds_in(retry_after: str | None) -> float:
    """Read a header `Retry-After`; 0 without one, and for a date, which needs equal clocks."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
