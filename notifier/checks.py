"""Asks RabbitMQ whether it is reachable and fit. See `notifier.core.findings`."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aiormq
import httpx
import msgspec
from aiormq.abc import AbstractConnection
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionCommandInvalid,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from notifier.adapters.rabbitmq.topology import Exchange, Topology, topology
from notifier.core.findings import (
    PATIENCE,
    TOO_LATE,
    Finding,
    Level,
    host_of,
    password_in_clear,
    place_of,
    unreadable_address,
    version_numbers,
)

_AMQP_URL = "NOTIFIER_AMQP_URL"
_MANAGEMENT_URL = "NOTIFIER_RABBITMQ_MANAGEMENT_URL"
_EVENTS = "notifier.events"
_UNROUTABLE = "notifier.unroutable"
_DEAD = "notifier.dead"
_ASIDE = "notifier.aside"
_OURS = r"^notifier\.(events\.[0-9]+|unroutable|aside|dead)$"
_MAKE_ANEW = "once it is empty, delete it: a router makes it anew"
_DEFAULT_LIMIT = 20
_FEW_DELIVERIES = 1_000_000
_NO_LIMIT = "set delivery-limit to 2147483647 in the policy, as `notifier topology` prints it"
_HALF_AN_HOUR = 1_800_000  # milliseconds, RabbitMQ's default
_NOT_OURS = (
    "leave notifier's queues out of that policy's pattern, or give `notifier-events` and "
    "`notifier-dead`, as `notifier topology` prints them, the higher priority"
)
_IMPORT = "import the policies that `notifier topology` prints"


async def check_rabbitmq(url: str, *, partitions: int, management_url: str | None) -> list[Finding]:
    """Return what there is to say about the RabbitMQ at `url`, one address or several with commas.

    Policies are read from the management API, by default on its usual port of the same host, with
    the credentials of `url` where `management_url` has none.
    """
    nodes = [(node.strip(), await _reach(node.strip())) for node in url.split(",")]
    up = [node for node, finding in nodes if finding.level == "ok"]
    # One node of several is enough to work.
    findings = [replace(f, level="warning") if up and f.level == "error" else f for _, f in nodes]
    for node in up:
        findings += password_in_clear("rabbitmq", node, _AMQP_URL)
    if up:
        findings += await _inspect(up[0], partitions, management_url)
    return findings


async def _reach(url: str) -> Finding:
    try:
        place = place_of(url)
        async with _connected(url):
            return Finding("ok", "rabbitmq", f"{place} answers")
    except ValueError:
        return unreadable_address("rabbitmq", _AMQP_URL)
    except (TimeoutError, OSError, AMQPError) as error:
        return _amqp_failure(url, error)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AbstractConnection]:
    async with asyncio.timeout(PATIENCE):
        connection = await aiormq.connect(url)
    try:
        yield connection
    finally:
        # Closes its channels too; one by one, each could wait a minute for a server that hangs.
        await connection.close(timeout=PATIENCE)


def _amqp_failure(url: str, error: Exception) -> Finding:
    place, vhost = place_of(url), _vhost(url)
    text, mend = f"{place} is out of reach: {error}", f"start RabbitMQ, or correct {_AMQP_URL}"
    match error:
        case ProbableAuthenticationError() | AuthenticationError():
            text = f"{place} refuses the user or the password: {error}"
            mend = f"correct the user and the password in {_AMQP_URL}"
        case InvalidFrameError() if "Connection.OpenOk" in str(error):
            text = f"{place} has no virtual host {vhost}, or this user may not use it"
            mend = f"rabbitmqctl add_vhost {vhost}, then set_permissions -p {vhost} for the user"
        case TimeoutError():
            text = f"{place} gave {TOO_LATE}"
        case _:
            pass
    return Finding("error", "rabbitmq", text, mend)


def _vhost(url: str) -> str:
    return unquote(urlsplit(url).path[1:]) or "/"


async def _inspect(url: str, partitions: int, management_url: str | None) -> list[Finding]:
    queues = [*(f"{_EVENTS}.{number}" for number in range(partitions)), _UNROUTABLE, _ASIDE]
    findings: list[Finding] = []
    try:
        async with _connected(url) as connection:
            version = str(connection.server_properties.get("version"))
            findings.append(_judge_version(version))
            async with asyncio.timeout(PATIENCE):
                findings += await _topology(connection, queues)
            findings.append(await _alarm(connection))
        if partitions > 1:
            findings.append(await _sharding(url))
    except (TimeoutError, OSError, AMQPError, RuntimeError) as error:  # the last: closed meanwhile
        return [*findings, _amqp_failure(url, error)]
    return [*findings, *await _queues(url, management_url, version, partitions)]


def _judge_version(version: str) -> Finding:
    if version_numbers(version) < (3, 10):
        text = f"RabbitMQ {version} is too old"
        return Finding("error", "rabbitmq version", text, "use RabbitMQ 3.10 or newer")
    return Finding("ok", "rabbitmq version", f"RabbitMQ {version}")


async def _topology(connection: AbstractConnection, queues: Sequence[str]) -> list[Finding]:
    mend = "start a router: it makes it; or import what `notifier topology` prints"
    channel = await connection.channel()
    try:
        await channel.exchange_declare(_EVENTS, passive=True)
    except ChannelNotFoundEntity:
        return [Finding("warning", _EVENTS, "the exchange is not there yet", mend)]
    except ChannelAccessRefused as error:
        findings = [_hidden(_EVENTS, error)]
    else:
        findings = [Finding("ok", _EVENTS, "the exchange is there")]
    for queue in (*queues, _DEAD):
        channel = await connection.channel()
        try:
            declared = await channel.queue_declare(queue, passive=True)
        except ChannelNotFoundEntity:
            findings.append(Finding("warning", queue, "the queue is not there yet", mend))
        except ChannelAccessRefused as error:
            findings.append(_hidden(queue, error))
        except ChannelClosed as error:
            findings.append(Finding("error", queue, str(error), "see RabbitMQ's log"))
        else:
            judge = _judge_dead if queue == _DEAD else _judge_queue
            findings.append(judge(queue, declared.message_count or 0, declared.consumer_count or 0))
    return findings


def _hidden(name: str, error: Exception) -> Finding:
    mend = "none, if this role needs no right to it; docs/operating.md#topology lists the rights"
    return Finding(
        "warning", name, f"not checked: RabbitMQ shows it to who may use it: {error}", mend
    )


def _judge_queue(queue: str, waiting: int, consumers: int) -> Finding:
    if not consumers:
        text = f"no router is consuming; events waiting: {waiting}"
        return Finding("warning", queue, text, "start `notifier router`")
    return Finding("ok", queue, f"routers consuming: {consumers}; events waiting: {waiting}")


def _judge_dead(queue: str, waiting: int, _: int) -> Finding:
    if waiting:
        mend = (
            "read their headers, which say why: on RabbitMQ's management page, Queues, "
            f"{queue}, Get messages, with requeue true"
        )
        return Finding("warning", queue, f"dead letters waiting: {waiting}", mend)
    return Finding("ok", queue, "no dead letters")


async def _alarm(connection: AbstractConnection) -> Finding:
    try:
        async with asyncio.timeout(PATIENCE):
            channel = await connection.channel()
            with suppress(ChannelClosed):  # where this user may not publish there
                await channel.basic_publish(b"", routing_key=_name_of_nothing())
            # Under an alarm RabbitMQ takes the first publication, and then reads nothing more.
            await connection.channel()
    except TimeoutError:
        text = "takes no events: it has an alarm of memory or disk, or hangs"
        mend = "`rabbitmq-diagnostics alarms` names it: give RabbitMQ more, or take from its queues"
        return Finding("error", "rabbitmq alarms", text, mend)
    return Finding("ok", "rabbitmq alarms", "takes events")


async def _sharding(url: str) -> Finding:
    exchange = _name_of_nothing()
    # On a connection of its own, because an unknown type makes RabbitMQ close the connection.
    async with _connected(url) as connection, asyncio.timeout(PATIENCE):
        channel = await connection.channel()
        try:
            await channel.exchange_declare(
                exchange, exchange_type="x-modulus-hash", auto_delete=True
            )
            await channel.exchange_delete(exchange)
        except (ConnectionCommandInvalid, ChannelPreconditionFailed):
            text = "exchanges of type x-modulus-hash are missing, which several partitions need"
            mend = (
                "rabbitmq-plugins enable rabbitmq_sharding (built in since RabbitMQ 4.3), or "
                "NOTIFIER_PARTITIONS=1"
            )
            return Finding("error", "rabbitmq plugins", text, mend)
        except ChannelAccessRefused:
            text = "not checked: exchanges of type x-modulus-hash; this user may make none"
            mend = (
                "before RabbitMQ 4.3, `rabbitmq-plugins list -e` shows whether its plugin "
                "rabbitmq_sharding is enabled"
            )
            return Finding("warning", "rabbitmq plugins", text, mend)
    return Finding("ok", "rabbitmq plugins", "exchanges of type x-modulus-hash can be made")


def _name_of_nothing() -> str:
    return f"notifier.check-{secrets.token_hex(8)}"


class Queue(msgspec.Struct, frozen=True):
    """A queue as the management API shows it; without a policy when that is not known yet."""

    name: str
    type: str = "classic"
    arguments: dict[str, Any] | list[Any] = msgspec.field(default_factory=dict)
    effective_policy_definition: dict[str, Any] | list[Any] | None = None
    policy: str | None = None
    operator_policy: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What holds for it, by the policies' names: its argument, else its policy."""
        arguments = {name.removeprefix("x-"): value for name, value in dict(self.arguments).items()}
        # Of this one, unlike of others, RabbitMQ takes the policy's.
        overflow = {k: v for k, v in self.set_by_policy.items() if k == "overflow"}
        return self.set_by_policy | arguments | overflow

    @property
    def set_by_policy(self) -> dict[str, Any]:
        """What its policies set."""
        # An empty table of Erlang's may arrive as an empty list.
        return dict(self.effective_policy_definition or {})

    @property
    def label(self) -> str:
        """Its name, with the policies that hold for it where they are not ours."""
        named = (self.policy, self.operator_policy)
        foreign = [name for name in named if name and not name.startswith("notifier-")]
        return f"{self.name} (policy {' and '.join(foreign)})" if foreign else self.name

    def limit_over(self, default: int) -> int:
        """How often an entry may be delivered: the lower of argument and policy, else `default`."""
        given = [dict(self.arguments).get("x-delivery-limit")]
        given.append(self.set_by_policy.get("delivery-limit"))
        limits = [limit for limit in given if isinstance(limit, int)]
        # A negative one is none, since RabbitMQ 4; with two, the larger then counts.
        if any(limit < 0 for limit in limits):
            return max(limits) if max(limits) >= 0 else _FEW_DELIVERIES
        return min(limits, default=default)

    @property
    def is_limited(self) -> bool:
        """Whether it has a length that it cannot grow over."""
        return bool(self.options.keys() & {"max-length", "max-length-bytes"})

    @property
    def refuses_when_full(self) -> bool:
        """Whether it then takes no more, rather than drop the oldest."""
        return str(self.options.get("overflow")).startswith("reject-publish")


class _Page(msgspec.Struct, frozen=True):
    items: list[Queue]


# Level, the queues that break it, what is wrong with them, what mends them.
_Rule = tuple[Level, list[Queue], str, str]


async def _queues(
    url: str, management_url: str | None, version: str, partitions: int
) -> list[Finding]:
    question = {
        "name": _OURS,
        "use_regex": "true",
        "page": "1",
        "page_size": "100",
        "columns": "name,type,arguments,effective_policy_definition,policy,operator_policy",
    }
    try:
        place, base, credentials = _management(url, management_url)
    except ValueError:
        return [replace(unreadable_address("rabbitmq policies", _MANAGEMENT_URL), level="warning")]
    try:
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(auth=credentials) as client:
            vhost = quote(_vhost(url), safe="")
            answer = await client.get(f"{base}/api/queues/{vhost}", params=question)
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
    """Compare those that are there, and their bindings, with what is declared."""
    findings: list[Finding] = []
    for exchange in (*wanted.exchanges, wanted.entrance):
        answer = await client.get(f"{address}/{exchange.name}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            continue
        answer.raise_for_status()
        found = msgspec.json.decode(answer.content, type=_Exchange)
        findings += _judge_exchange(found, exchange, is_entrance=exchange is wanted.entrance)
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
            "nothing now, as it is bound; have producers not declare it: what they publish to "
            "an exchange of their own before a router binds it is lost"
        )
        yield Finding("warning", found.name, text, mend)
    else:
        yield Finding("error", found.name, text, "delete it: a router makes it anew")


def _judge_bindings(
    bound: Sequence[_Binding], exchange: str, wanted: Topology
) -> Iterator[Finding]:
    there = {(binding.destination, binding.routing_key) for binding in bound}
    for binding in wanted.all_bindings:
        if binding.source == exchange and (binding.destination, binding.routing_key) not in there:
            text = f"is not bound to {binding.destination}: what it should pass on gets lost"
            mend = "start a router: it binds it; or import what `notifier topology` prints"
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
        "`rabbitmqctl list_policies` with what `notifier topology` prints"
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


def judge_queues(queues: Sequence[Queue], version: str) -> list[Finding]:
    """Judge the types, arguments and policies of notifier's queues in a RabbitMQ of `version`."""
    rules = (*_rules_of_types(queues), *_rules_of_policies(queues, version))
    findings = [
        Finding(level, "rabbitmq queues", f"{_names(broken)}: {text}", mend)
        for level, broken, text, mend in rules
        if broken
    ]
    if queues and not findings:
        findings.append(
            Finding("ok", "rabbitmq queues", "types and policies are as they should be")
        )
    return findings


def _rules_of_types(queues: Sequence[Queue]) -> Iterator[_Rule]:
    shared = [q for q in _events(queues) if not q.options.get("single-active-consumer")]
    yield "error", [q for q in queues if q.type != "quorum"], "not of type quorum", _MAKE_ANEW
    yield (
        "error",
        shared,
        "not with a single active consumer, without which order is lost",
        _MAKE_ANEW,
    )


def _rules_of_policies(queues: Sequence[Queue], version: str) -> Iterator[_Rule]:
    measured = [q for q in queues if q.effective_policy_definition is not None]
    unknown = [q for q in queues if q.effective_policy_definition is None]
    yield "warning", unknown, "RabbitMQ does not know the policy yet", "check again in 10 seconds"
    events = _events(measured)
    dropping = [q for q in events if q.is_limited and not q.refuses_when_full]
    yield "error", dropping, "drops the oldest events when full", "set overflow to reject-publish"
    endless = [q for q in events if not q.is_limited]
    yield "warning", endless, "no max-length: without routers it fills RabbitMQ's disk", _IMPORT
    # RabbitMQ 4 has a limit without being told.
    default = _DEFAULT_LIMIT if version_numbers(version) >= (4,) else _FEW_DELIVERIES
    limited = [q for q in measured if q.limit_over(default) < _FEW_DELIVERIES]
    text = "a delivery-limit puts aside what an outage gave back, though it is good"
    yield "error", limited, text, _NO_LIMIT
    yield from _rules_of_loss(measured)
    kept = [q for q in measured if q.name == _DEAD and "message-ttl" not in q.options]
    yield "warning", kept, "no message-ttl: dead letters stay for ever", _IMPORT


def _rules_of_loss(queues: Sequence[Queue]) -> Iterator[_Rule]:
    events = _events(queues)
    expiring = [q for q in events if "message-ttl" in q.options]
    text = "a message-ttl takes events out of the queue that wait longer, as in an outage"
    yield "error", expiring, text, _NOT_OURS
    deleted = [q for q in queues if "expires" in q.options]
    text = "expires deletes the queue with all that is in it when no router is there"
    yield "error", deleted, text, _NOT_OURS
    elsewhere = [q for q in queues if any(k.startswith("dead-letter") for k in q.set_by_policy)]
    text = "a policy sends dead letters elsewhere; the queue's arguments win where it has any"
    yield "warning", elsewhere, text, _NOT_OURS
    hurried = [q for q in events if 0 < q.options.get("consumer-timeout", 0) < _HALF_AN_HOUR]
    text = "a low consumer-timeout cuts off a router that waits for Redis, again and again"
    yield "warning", hurried, text, _NOT_OURS


def _events(queues: Sequence[Queue]) -> list[Queue]:
    return [queue for queue in queues if queue.name != _DEAD]


def _names(queues: Sequence[Queue]) -> str:
    rest = f" and {len(queues) - 1} more" if len(queues) > 1 else ""
    return queues[0].label + rest
