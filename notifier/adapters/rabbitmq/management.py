"""Asks RabbitMQ's management API about the parts of the topology that AMQP does not show."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import msgspec

from notifier.adapters.rabbitmq.policies import Queue, judge_queues
from notifier.adapters.rabbitmq.topology import (
    ASIDE,
    DEAD,
    ENTRANCE,
    ENTRANCE_BINDING,
    UNROUTABLE,
    Exchange,
    Topology,
    pattern_of,
    topology,
)
from notifier.core.findings import (
    PATIENCE,
    TOO_LATE,
    Finding,
    host_of,
    password_in_clear,
    place_of,
    unreadable_address,
)

_MANAGEMENT_URL = "NOTIFIER_RABBITMQ_MANAGEMENT_URL"
_ALL_QUEUES = {
    "name": pattern_of(UNROUTABLE, ASIDE, DEAD),
    "use_regex": "true",
    "page": "1",
    "page_size": "100",
    "columns": "name,type,arguments,effective_policy_definition,policy,operator_policy",
}


class _Page(msgspec.Struct, frozen=True):
    items: list[Queue]


async def check_management(
    url: str, management_url: str | None, version: str, partitions: int
) -> list[Finding]:
    """Return findings about types, policies, exchanges and bindings.

    `url` is AMQP's; its credentials are taken where `management_url` has none. A management API
    that does not answer is a warning.
    """
    try:
        place, base, credentials = _management(url, management_url)
    except ValueError:
        return [replace(unreadable_address("rabbitmq policies", _MANAGEMENT_URL), level="warning")]
    try:
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(auth=credentials) as client:
            vhost = quote(vhost_of(url), safe="")
            answer = await client.get(f"{base}/api/queues/{vhost}", params=_ALL_QUEUES)
            answer.raise_for_status()
            queues = msgspec.json.decode(answer.content, type=_Page).items
            found = await _exchanges(client, f"{base}/api/exchanges/{vhost}", topology(partitions))
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
        return [_unmanaged(place, error)]
    exposed = password_in_clear("rabbitmq policies", management_url or "", _MANAGEMENT_URL)
    return [*exposed, *judge_queues(queues, version), *found]


class _Exchange(msgspec.Struct, frozen=True):
    name: str
    type: str
    internal: bool
    arguments: dict[str, Any] | list[Any]


class _Binding(msgspec.Struct, frozen=True):
    source: str
    destination: str
    routing_key: str


async def _exchanges(client: httpx.AsyncClient, address: str, wanted: Topology) -> list[Finding]:
    """Compare the existing ones, and their bindings, with notifier's declarations."""
    findings: list[Finding] = []
    for exchange in (*wanted.exchanges, ENTRANCE):
        answer = await client.get(f"{address}/{exchange.name}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            continue
        answer.raise_for_status()
        found = msgspec.json.decode(answer.content, type=_Exchange)
        findings += _judge_exchange(found, exchange, is_entrance=exchange is ENTRANCE)
        answer = await client.get(f"{address}/{exchange.name}/bindings/source")
        answer.raise_for_status()
        bound = msgspec.json.decode(answer.content, type=list[_Binding])
        findings += _judge_bindings(bound, exchange.name, wanted)
    return findings


def _judge_exchange(found: _Exchange, wanted: Exchange, *, is_entrance: bool) -> Iterator[Finding]:
    differences = [
        f"{name} is {there!s}, not {right!s}"
        for name, there, right in (
            ("type", found.type, wanted.type),
            ("internal", found.internal, False),
            (
                "alternate-exchange",
                dict(found.arguments).get("alternate-exchange"),
                (wanted.arguments or {}).get("alternate-exchange"),
            ),
        )
        if there != right
    ]
    if not differences:
        return
    text = f"the exchange is not as notifier declares it: {', '.join(differences)}"
    if is_entrance and not found.internal and found.type in {"topic", "fanout"}:
        mend = (
            "nothing now, as it is bound; have producers not declare it: an exchange of their own "
            "loses the events that come before a router binds it"
        )
        yield Finding("warning", found.name, text, mend)
    else:
        yield Finding("error", found.name, text, "delete it: a router makes it anew")


def _judge_bindings(
    bound: Sequence[_Binding], exchange: str, wanted: Topology
) -> Iterator[Finding]:
    there = {(binding.destination, binding.routing_key) for binding in bound}
    for binding in (*wanted.bindings, ENTRANCE_BINDING):
        if binding.source == exchange and (binding.destination, binding.routing_key) not in there:
            text = f"is not bound to {binding.destination}: events that it should pass on get lost"
            mend = "start a router: it binds it; or import the output of `notifier topology`"
            yield Finding("error", exchange, text, mend)


def _management(url: str, management_url: str | None) -> tuple[str, str, tuple[str, str]]:
    """Return the place, the address without credentials, which httpx would log, and these."""
    amqp = urlsplit(url)
    scheme, port = ("https", 15671) if amqp.scheme == "amqps" else ("http", 15672)
    parts = urlsplit(management_url or f"{scheme}://{host_of(amqp)}:{port}")
    owner = parts if parts.username else amqp
    credentials = unquote(owner.username or "guest"), unquote(owner.password or "guest")
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return place_of(parts.geturl()), address.geturl().rstrip("/"), credentials


def _unmanaged(place: str, error: Exception) -> Finding:
    mend = (
        f"rabbitmq-plugins enable rabbitmq_management, or correct {_MANAGEMENT_URL}, or compare "
        "`rabbitmqctl list_policies` with the output of `notifier topology`"
    )
    match error:
        case httpx.HTTPStatusError() if error.response.status_code == httpx.codes.UNAUTHORIZED:
            why = "refuses the user or the password"
            mend = f"rabbitmqctl set_user_tags <user> management, or correct {_MANAGEMENT_URL}"
        case httpx.HTTPStatusError():
            why = f"answers with status {error.response.status_code}"
        case msgspec.DecodeError():
            why = "does not answer as RabbitMQ's management API does"
        case TimeoutError() | httpx.TimeoutException():
            why = f"gave {TOO_LATE}"
        case _:
            why = f"is out of reach: {error}"
    text = f"types and policies of queues were not checked: {place} {why}"
    return Finding("warning", "rabbitmq policies", text, mend)


def vhost_of(url: str) -> str:
    """Return the virtual host that an AMQP address names."""
    return unquote(urlsplit(url).path[1:]) or "/"
