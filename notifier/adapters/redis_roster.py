"""The roster on Redis: one sorted set of the routers at work.

`notifier:routers` has who is at work, scored by the millisecond in which that was said last.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import RedisError

from notifier.adapters.redis import connection_options
from notifier.core.errors import Unavailable

_ROUTERS = "notifier:routers"
_ANSWERING = 2.0  # seconds

# They may run when memory is short: routers then hold their batches, but keep sharing.
_ANNOUNCE = """#!lua flags=allow-oom
-- KEYS: routers
-- ARGV: router, milliseconds after which one is gone
-- Returns who is at work.
local routers, router, lifetime = KEYS[1], unpack(ARGV)

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("ZADD", routers, now, router)
redis.call("ZREMRANGEBYSCORE", routers, "-inf", now - lifetime)
-- The clock may have been set back.
redis.call("ZREMRANGEBYSCORE", routers, "(" .. string.format("%.0f", now), "+inf")
redis.call("PEXPIRE", routers, lifetime)
return redis.call("ZRANGE", routers, 0, -1)
"""
_WITHDRAW = """#!lua flags=allow-oom
-- KEYS: routers
-- ARGV: router
return redis.call("ZREM", KEYS[1], ARGV[1])
"""


class RedisRoster:
    """Fulfils `notifier.core.ports.Roster` while it is entered.

    `url` is as for RedisBroker; the connection is its own, which no batch keeps busy.
    """

    def __init__(self, url: str, *, lifetime_seconds: float = 5.0) -> None:
        self._redis = Redis(connection_pool=ConnectionPool(**connection_options(url)))
        self._lifetime = round(lifetime_seconds * 1000)

    async def __aenter__(self) -> Self:
        """Begin; it connects once it is asked."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect."""
        await self._redis.connection_pool.disconnect()

    async def announce(self, router: str) -> frozenset[str]:
        """See Roster."""
        routers = await self._run(_ANNOUNCE, router, self._lifetime)
        return frozenset(each.decode() for each in routers)

    async def withdraw(self, router: str) -> None:
        """See Roster."""
        await self._run(_WITHDRAW, router)

    async def _run(self, script: str, *arguments: str | int) -> Sequence[bytes]:
        try:
            async with asyncio.timeout(_ANSWERING):
                found: Sequence[bytes] = await self._redis.eval(script, 1, _ROUTERS, *arguments)
        except (RedisError, OSError) as error:
            reason = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            raise Unavailable("redis", reason) from error
        return found
