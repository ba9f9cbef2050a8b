"""Asks RabbitMQ whether it is reachable and fit. See `notifier.core.findings`."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from aio_pika import Message
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ChannelAccessRefused, ConnectionCommandInvalid

from notifier.adapters.rabbitmq.connection import Connection
from notifier.adapters.rabbitmq.management import check_management, vhost_of
from notifier.adapters.rabbitmq.topology import (
    ASIDE,
    DEAD,
    EVENTS,
    NOT_CONSUMED,
    TO_CONSUMERS,
    UNCLAIMED,
    UNROUTABLE,
    partition,
)
from notifier.core.findings import (
    PATIENCE,
    TOO_LATE,
    Finding,
    password_in_clear,
    place_of,
    unreadable_address,
    version_numbers,
)

_AMQP_URL = "NOTIFIER_AMQP_URL"
_NOT_THERE = "the exchange is not there yet"
_MEND = "start a router: it makes it; or import the output of `notifier topology`"


async def check_rabbitmq(url: str, *, partitions: int, management_url: str | None) -> list[Finding]:
    """Return findings about the RabbitMQ at `url`, one address or several with commas.

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
async def _connected(url: str) -> AsyncIterator[Connection]:
    connection = Connection(url, "check")
    # Closes its channels too; one by one, each could wait a minute for a server that hangs.
    async with connection.closed_within(PATIENCE):
        await connection.connect(PATIENCE)
        yield connection


def _amqp_failure(url: str, error: Exception) -> Finding:
    place, vhost = place_of(url), vhost_of(url)
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


async def _inspect(url: str, partitions: int, management_url: str | None) -> list[Finding]:
    queues = [*(partition(number) for number in range(partitions)), UNROUTABLE, ASIDE]
    findings: list[Finding] = []
    try:
        async with _connected(url) as connection:
            version = connection.version
            findings.append(_judge_version(version))
            async with asyncio.timeout(PATIENCE):
                findings += await _topology(connection, queues)
            findings.append(await _alarm(connection))
        if partitions > 1:
            findings.append(await _sharding(url))
    except (TimeoutError, OSError, AMQPError, RuntimeError) as error:  # the last: closed meanwhile
        return [*findings, _amqp_failure(url, error)]
    return [*findings, *await check_management(url, management_url, version, partitions)]


def _judge_version(version: str) -> Finding:
    if version_numbers(version) < (3, 10):
        text = f"RabbitMQ {version} is too old"
        return Finding("error", "rabbitmq version", text, "use RabbitMQ 3.10 or newer")
    return Finding("ok", "rabbitmq version", f"RabbitMQ {version}")


async def _topology(connection: AbstractConnection, queues: Sequence[str]) -> list[Finding]:
    findings = [await _exchange(connection, EVENTS)]
    if findings[0].text == _NOT_THERE:
        return findings
    findings += [await _exchange(connection, name) for name in TO_CONSUMERS]
    for queue in (*queues, *NOT_CONSUMED):
        channel = await connection.channel()
        try:
            declared = (await channel.get_queue(queue)).declaration_result
        except ChannelNotFoundEntity:
            findings.append(Finding("warning", queue, "the queue is not there yet", _MEND))
        except ChannelAccessRefused as error:
            findings.append(_hidden(queue, error))
        except ChannelClosed as error:
            findings.append(Finding("error", queue, str(error), "see RabbitMQ's log"))
        else:
            judge = _JUDGES.get(queue, _judge_queue)
            findings.append(judge(queue, declared.message_count or 0, declared.consumer_count or 0))
    return findings


async def _exchange(connection: AbstractConnection, name: str) -> Finding:
    channel = await connection.channel()
    try:
        await channel.get_exchange(name)
    except ChannelNotFoundEntity:
        return Finding("warning", name, _NOT_THERE, _MEND)
    except ChannelAccessRefused as error:
        return _hidden(name, error)
    return Finding("ok", name, "the exchange is there")


def _hidden(name: str, error: Exception) -> Finding:
    mend = "none, if this role needs no right to it; docs/operating.md#topology lists the rights"
    return Finding("warning", name, f"not checked: RabbitMQ hides it from this user: {error}", mend)


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


def _judge_waiting(queue: str, waiting: int, _: int) -> Finding:
    return Finding("ok", queue, f"events waiting to be received: {waiting}")


def _judge_unclaimed(queue: str, waiting: int, consumers: int) -> Finding:
    if waiting and not consumers:
        mend = f"bind a queue to {' or '.join(TO_CONSUMERS)}, or consume from {queue}"
        text = f"events or reports were sent while no queue was bound: {waiting}"
        return Finding("warning", queue, text, mend)
    return Finding("ok", queue, "no event or report was sent without a queue for it")


_JUDGES = {
    **dict.fromkeys(NOT_CONSUMED, _judge_waiting),
    DEAD: _judge_dead,
    UNCLAIMED: _judge_unclaimed,
}


async def _alarm(connection: AbstractConnection) -> Finding:
    try:
        async with asyncio.timeout(PATIENCE):
            channel = await connection.channel()
            with suppress(ChannelClosed):  # where this user may not publish there
                await channel.default_exchange.publish(Message(b""), _name_of_nothing())
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
            await channel.declare_exchange(exchange, "x-modulus-hash", auto_delete=True)
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
