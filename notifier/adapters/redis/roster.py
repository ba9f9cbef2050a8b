"""The roster on Redis.

notifier:routers    sorted set: routers at work, scored by the millisecond of Redis' own clock
in which each was announced last
"""

from notifier.adapters.redis.commands import ScriptAdapter
from notifier.adapters.redis.scripts import Script
from notifier.core.addresses import Url
from notifier.telemetry.metrics import Metrics

_ROUTERS = "notifier:routers"

# Both may run when memory is short: routers then hold their batches, and still share partitions.
_ANNOUNCE = Script(
    "roster_announce",
    """#!lua flags=allow-oom
-- KEYS: routers
-- ARGV: run, router, milliseconds after which one is gone
-- Returns the routers at work.
local routers, _, router, lifetime = KEYS[1], unpack(ARGV)

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("ZADD", routers, now, router)
redis.call("ZREMRANGEBYSCORE", routers, "-inf", now - lifetime)
-- The clock may have been set back.
redis.call("ZREMRANGEBYSCORE", routers, "(" .. string.format("%.0f", now), "+inf")
redis.call("PEXPIRE", routers, lifetime)
return redis.call("ZRANGE", routers, 0, -1)
""",
    keys=1,
)
_WITHDRAW = Script(
    "roster_withdraw",
    """#!lua flags=allow-oom
-- KEYS: routers
-- ARGV: run, router
return redis.call("ZREM", KEYS[1], ARGV[2])
""",
    keys=1,
)


class RedisRoster(ScriptAdapter):
    """Fulfils `notifier.core.ports.Roster` while it is entered.

    `url` is as for RedisBroker. It has connections of its own, which no batch keeps busy.
    """

    def __init__(self, url: Url, *, metrics: Metrics, lifetime_seconds: float = 5.0) -> None:
        super().__init__(url, metrics)
        self._lifetime = round(lifetime_seconds * 1000)

    async def announce(self, router: str) -> frozenset[str]:
        """See Roster."""
        # Until an operator mends a refusal the last answer holds.
        routers = await self._commands.run_one(_ANNOUNCE, _ROUTERS, router, self._lifetime)
        return frozenset(each.decode() for each in routers)

    async def withdraw(self, router: str) -> None:
        """See Roster."""
        await self._commands.run_one(_WITHDRAW, _ROUTERS, router)
