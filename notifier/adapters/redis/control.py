"""Control on Redis: what was ordered about users, kept for the gateways to read.

notifier:revoked         sorted set: users, scored by the millisecond of Redis' own clock in
                         which their tokens were revoked last
notifier:disconnected    the same of disconnects, kept for two minutes
"""

from itertools import count

from notifier.adapters.redis.commands import ScriptAdapter
from notifier.adapters.redis.keys import channel_of
from notifier.adapters.redis.replies import accepted
from notifier.adapters.redis.scripts import Script
from notifier.adapters.redis.signals import payload_of
from notifier.core.addresses import Url
from notifier.core.control import LOOK, Act, Order
from notifier.core.names import GATEWAYS
from notifier.core.signals import Kind, Signal
from notifier.telemetry.metrics import Metrics

_KEYS = {Act.REVOKE: "notifier:revoked", Act.DISCONNECT: "notifier:disconnected"}
_DISCONNECT_SECONDS = 120
_PAGE = 5_000
# Read anew each time, in case Redis' clock was set back meanwhile.
_OVERLAP = 60_000  # milliseconds
_LOOK = payload_of(Signal(GATEWAYS, Kind.ORDER, LOOK))

# Runs when memory is short: a stolen token must not stay good for that.
_GIVE = Script(
    "control_give",
    """#!lua flags=allow-oom
-- KEYS: orders
-- ARGV: run, user, milliseconds to keep it, channel, payload
-- Returns the millisecond of the order.
local orders, _, user, keep, channel, payload = KEYS[1], unpack(ARGV)

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("ZADD", orders, now, user)
redis.call("ZREMRANGEBYSCORE", orders, "-inf", now - keep)
redis.call("PEXPIRE", orders, keep)
redis.call("PUBLISH", channel, payload)
return string.format("%.0f", now)
""",
    keys=1,
)
_READ = Script(
    "control_read",
    """#!lua flags=allow-oom
-- KEYS: orders
-- ARGV: run, millisecond, how many to pass over, how many at most
-- Returns users and their milliseconds, from that millisecond on, oldest first.
local orders, _, since, over, most = KEYS[1], unpack(ARGV)

return redis.call("ZRANGEBYSCORE", orders, since, "+inf", "WITHSCORES", "LIMIT", over, most)
""",
    keys=1,
)


class RedisControl(ScriptAdapter):
    """Fulfils `notifier.core.ports.Control` while it is entered.

    `url` is as for RedisBroker. Revocations are kept for `lifetime` seconds.
    """

    def __init__(self, url: Url, lifetime: int, *, metrics: Metrics) -> None:
        super().__init__(url, metrics)
        self._keep = {Act.REVOKE: lifetime * 1000, Act.DISCONNECT: _DISCONNECT_SECONDS * 1000}
        self._run_id: str | None = None  # of the process that was read last
        self._newest = dict.fromkeys(Act, 0)  # milliseconds, that were read of it

    async def give(self, act: Act, user: str) -> Order:
        """See Control."""
        call = (_KEYS[act], user, self._keep[act], channel_of(GATEWAYS), _LOOK)
        return Order(act, user, int(await self._commands.run_one(_GIVE, *call)) / 1000)

    async def orders(self) -> list[Order]:
        """See Control."""
        return [order for act in Act for order in await self._read(act)]

    async def _read(self, act: Act) -> list[Order]:
        since = max(0, self._newest[act] - _OVERLAP)
        found: list[Order] = []
        for page in count():
            call = (_KEYS[act], since, page * _PAGE, _PAGE)
            run_id, [reply] = await self._commands.run(_READ, [call])
            if run_id != self._run_id:  # another process has what that one had, or less, or more
                self._run_id, self._newest = run_id, dict.fromkeys(Act, 0)
                return await self._read(act)
            found += _orders_in(act, accepted(reply))
            if len(reply) < 2 * _PAGE:
                break
        self._newest[act] = max((int(each.moment * 1000) for each in found), default=since)
        return found


def _orders_in(act: Act, reply: list[bytes]) -> list[Order]:
    pairs = zip(reply[::2], reply[1::2], strict=True)
    return [Order(act, user.decode(), float(moment) / 1000) for user, moment in pairs]
