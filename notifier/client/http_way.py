"""The way over HTTP: POST /v1/events."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Self

import httpx

from notifier.client.errors import NoAnswer, Refused
from notifier.client.http_requests import (
    NOT_HERE,
    WHERE_THE_API_IS,
    ask_over,
    bearer,
    check,
    connections_to,
    members_of,
    said,
    seconds_in,
)
from notifier.client.ways import Accepted, Again, Outcome

# Answers that say nothing about the event; proxies give them too.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
# An event may spoil a batch for the others, by its depth for example: it is found by halves.
_OF_ONE_EVENT = frozenset({400, 413, 422})


class HttpWay:
    """Posts batches; fulfils Way. Raises ClientError for a malformed address."""

    def __init__(self, url: str, key: str | None) -> None:
        check(url)
        self._url = f"{url.rstrip('/')}/v1/events"
        self._headers = {"content-type": "application/json", **bearer(key)}

    async def __aenter__(self) -> Self:
        """See Way."""
        self._http = connections_to(self._url, headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        """See Way."""
        await self._http.aclose()

    async def send(self, events: Sequence[bytes]) -> list[Outcome]:
        """See Way; a single event stands alone, as it may be larger so."""
        body = events[0] if len(events) == 1 else b"[%b]" % b",".join(events)
        try:
            answer = await ask_over(self._http, self._url, content=body)
        except NoAnswer as error:
            return [Again(str(error))] * len(events)
        after = seconds_in(answer.headers.get("retry-after"))
        results = members_of(answer).get("results")
        if isinstance(results, list) and len(results) == len(events):
            return [self._outcome(result, after) for result in results]
        if len(events) > 1 and answer.status_code in _OF_ONE_EVENT:
            half = len(events) // 2
            return [*await self.send(events[:half]), *await self.send(events[half:])]
        return [self._whole(answer, after) for _ in events]

    def _whole(self, answer: httpx.Response, after: float) -> Outcome:
        members = members_of(answer)
        if answer.status_code == HTTPStatus.ACCEPTED and "id" in members:
            return Accepted()
        hint = f". {WHERE_THE_API_IS}" if answer.status_code in NOT_HERE else ""
        reason = said(self._url, answer) + hint
        return _judged(answer.status_code, reason, members, after)

    def _outcome(self, result: Mapping[str, Any], after: float) -> Outcome:
        status = int(result["status"])
        if status == HTTPStatus.ACCEPTED:
            return Accepted()
        return _judged(status, str(result.get("detail", status)), result, after)


def _judged(status: int, reason: str, problem: Mapping[str, Any], after: float) -> Outcome:
    if status in _PASSING:
        return Again(reason, after)
    code, field = str(problem.get("code", "")), str(problem.get("field", ""))
    return Refused(reason, status=status, code=code, field=field)
