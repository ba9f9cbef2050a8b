"""Connections of redis-py: all that leans on its internals stands here.

redis-py knows URLs, TLS and authentication, and pools connections. Commands and subscriptions are
ours: its pipelines cost six times as much a command; its pub/sub can spin without yielding, checks
no health and retries unseen. pyproject.toml bounds its version, and `test_connection.py` fails when
one of the internals moves.
"""

import asyncio
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any, cast

from hiredis import pack_command
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import ResponseError

from notifier.adapters.redis import sentinel
from notifier.adapters.redis.sentinel import Sentinels
from notifier.core.addresses import Address
from notifier.telemetry.metrics import Metrics

ANSWERING = 2.0  # seconds for a connect, a round trip, a confirmation


def connection_options(url: str) -> dict[str, Any]:
    """Return the options that redis-py's pools take; raises ValueError without a part of `url`."""
    try:
        options = _options_of_master(url) if sentinel.is_named(url) else {**parse_url(url)}
    except ValueError:
        # Its text may quote a part of the password.
        raise ValueError(
            "not a URL of Redis, such as redis://user:password@host:6379/0 "
            "or redis+sentinel://host:26379/master"
        ) from None
    return {
        **options,
        "protocol": 2,  # in RESP3 redis-py makes a string of each push, to log it
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        # Callers bound the time. With this one, redis-py sends by `wait_for`, which before Python
        # 3.12 can swallow a cancellation; the next command would then reconnect by itself.
        "socket_timeout": None,
        "socket_connect_timeout": ANSWERING,
    }


def new_connection(
    address: Address,
    introduce: Callable[[AbstractConnection], Coroutine[Any, Any, None]] | None = None,
) -> AbstractConnection:
    """Make a connection with the password and the certificates of now, to be connected.

    `introduce` authenticates it; without one redis-py does.
    """
    options = connection_options(address.url)
    kind = options.pop("connection_class", Connection)
    return cast("AbstractConnection", kind(redis_connect_func=introduce, **options))


def _options_of_master(url: str) -> dict[str, Any]:
    sentinels = Sentinels.of(url)
    kind = SecureMasterConnection if sentinels.are_secure else MasterConnection
    options: dict[str, Any] = {**parse_url(sentinels.url_of("master", 6379))}
    return {**options, "connection_class": kind, "sentinels": sentinels}


class _ToMaster:
    """Asks the Sentinels for the current master each time it connects.

    redis-py's own class for that needs the pool of its Sentinel client, which does not wait for a
    connection to become free.
    """

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:  # noqa: ANN401 - redis-py's
        self._sentinels = sentinels
        super().__init__(**options)

    async def connect(self) -> None:
        """Find the master, and connect to it."""
        if not self.is_connected:  # type: ignore[attr-defined] # of the other class
            self.host, self.port = await self._sentinels.find_master()
        await super().connect()  # type: ignore[misc] # of the other class


class MasterConnection(_ToMaster, Connection):
    """Without TLS."""


class SecureMasterConnection(_ToMaster, SSLConnection):
    """With TLS."""


async def introduce(connection: AbstractConnection, metrics: Metrics) -> str:
    """Authenticate a new connection; return the run id of the Redis process at its other end."""
    await connection.on_connect()
    metrics.connected("redis", connection._writer)  # noqa: SLF001 - no public name
    await send(connection, pack("INFO", "server"))
    reply = await read_reply(connection)
    if isinstance(reply, ResponseError):
        raise reply
    [run_id] = re.findall(rb"^run_id:(\w+)", reply, re.MULTILINE)
    return cast("bytes", run_id).decode()


def transport_of(connection: AbstractConnection) -> asyncio.Transport:
    """Return the open transport of a connection; raises redis-py's ConnectionError without one."""
    writer = connection._writer  # noqa: SLF001 - redis-py names no transport
    if writer is None or writer.transport.is_closing():
        raise LostConnectionError("closed as soon as it was made")
    return cast("asyncio.Transport", writer.transport)


def pack(*words: str | bytes | float) -> bytes:
    """Return the bytes of a command, by hiredis."""
    packed: bytes = pack_command(words)  # type: ignore[arg-type]  # the stub says one word
    return packed


async def send(connection: AbstractConnection, *packed: bytes) -> None:
    """Send packed commands at once; raises redis-py's ConnectionError."""
    try:
        await connection.send_packed_command([b"".join(packed)])
    except RuntimeError as error:  # uvloop raises it for a connection that was reset just now
        raise LostConnectionError(str(error)) from error


async def read_reply(connection: AbstractConnection) -> Any:  # noqa: ANN401 - any reply
    """Return a reply, which may be an error; it has no timer of its own, as that costs more.

    Raises redis-py's ConnectionError.
    """
    try:
        reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
    except ResponseError as error:
        return error
    if reply is None:  # redis-py returns it for a TimeoutError from TCP's keepalive
        await connection.disconnect(nowait=True)
        raise LostConnectionError("the connection timed out")
    return reply


async def read_replies(connection: AbstractConnection, count: int) -> list[Any]:
    """Return so many replies, as `read_reply` does.

    Most have come together with the first one, and are taken from hiredis without waiting:
    redis-py awaits four coroutines for each.
    """
    replies: list[Any] = []
    parser: Any = connection._parser  # noqa: SLF001 - no public name
    arrived = parser._reader.gets  # noqa: SLF001 - as little
    while len(replies) < count:
        reply = arrived(False) if replies else NOT_ENOUGH_DATA  # noqa: FBT003 - positional there
        if reply is NOT_ENOUGH_DATA:
            reply = await read_reply(connection)
        elif isinstance(reply, LostConnectionError):  # such as LOADING
            raise reply
        replies.append(reply)
    return replies


def reason_of(error: BaseException) -> str:
    """Return an error's words, as asyncio's TimeoutError has none."""
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)
