"""The members of topics on Redis: each gateway's, as a whole.

    notifier:{TOPIC}:members    hash: gateway, its members of the topic separated by commas
    notifier:attending          sorted set: gateways with members, scored by the millisecond of
                                Redis' own clock in which each was last heard of

No member stands there by itself. What a gateway that died has told no longer counts once its
heartbeats are missing, and is removed some time later.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from notifier.adapters.redis.commands import ScriptAdapter
from notifier.adapters.redis.keys import channel_of
from notifier.adapters.redis.replies import accepted
from notifier.adapters.redis.scripts import Script
from notifier.adapters.redis.signals import payload_of
from notifier.core.addresses import Url
from notifier.core.attendance import LAPSE, ORDER
from notifier.core.errors import NotifierError
from notifier.core.presence import Exchanged
from notifier.core.signals import Kind, Signal
from notifier.telemetry.metrics import Metrics

_ATTENDING = "notifier:attending"
_FORGOTTEN_AFTER = 3_600  # seconds, in which every topic that is in use has a gateway removed
_REMOVED_AFTER = 60  # seconds: one that only stood still has its members again when it goes on
_KEPT = 1_200  # seconds since a gateway told members of the topic

_BEAT = Script(
    "members_beat",
    """#!lua flags=allow-oom
-- KEYS: attending
-- ARGV: run, gateway, milliseconds after which one is gone, after which its members are removed,
--       after which it is forgotten
-- Returns the gateways that are there, and those whose members are to be removed.
local attending, _, gateway, lapse, remove, forget = KEYS[1], unpack(ARGV)

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("ZADD", attending, now, gateway)
redis.call("ZREMRANGEBYSCORE", attending, "-inf", now - forget)
-- The clock may have been set back: those from before were heard of just now.
for _, early in ipairs(redis.call("ZRANGEBYSCORE", attending, "(" .. now, "+inf")) do
  redis.call("ZADD", attending, now, early)
end
redis.call("PEXPIRE", attending, forget)
return {redis.call("ZRANGEBYSCORE", attending, now - lapse, "+inf"),
  redis.call("ZRANGEBYSCORE", attending, "-inf", now - remove)}
""",
    keys=1,
)
_EXCHANGE = Script(
    "members_exchange",
    """#!lua
-- KEYS: members
-- ARGV: run, gateway, its members, seconds to keep them, channel, payload, gateways to remove
-- Returns all gateways and their members.
local members, _, gateway, own, seconds, channel, payload = KEYS[1], unpack(ARGV)

if (redis.call("HGET", members, gateway) or "") ~= own then
  if own == "" then
    redis.call("HDEL", members, gateway)
  else
    redis.call("HSET", members, gateway, own)
  end
  redis.call("PUBLISH", channel, payload)
end
for index = 7, #ARGV do
  redis.call("HDEL", members, ARGV[index])
end
redis.call("EXPIRE", members, seconds)
return redis.call("HGETALL", members)
""",
    keys=1,
)


class RedisMembers(ScriptAdapter):
    """Fulfils `notifier.core.ports.Members` while it is entered.

    `url` is as for RedisBroker. The members stay until the lapse is over when it is left: they may
    reconnect elsewhere.
    """

    def __init__(self, url: Url, *, metrics: Metrics, lapse_seconds: float = LAPSE) -> None:
        super().__init__(url, metrics)
        self._name = secrets.token_hex(4)
        self._lapse = lapse_seconds

    async def exchange(self, own: Mapping[str, Collection[str]]) -> Exchanged:
        """See Members."""
        times = (self._lapse, _REMOVED_AFTER, _FORGOTTEN_AFTER)
        beat = (_ATTENDING, self._name, *(round(each * 1000) for each in times))
        run_id, [answer] = await self._commands.run(_BEAT, [beat])
        there, gone = accepted(answer)
        gateways = frozenset(map(bytes.decode, there))
        calls = [self._call(topic, members, gone) for topic, members in own.items()]
        replies = await self._commands.run_each(_EXCHANGE, calls)
        members_of = {
            topic: _members_in(reply, gateways)
            for topic, reply in zip(own, replies, strict=True)
            if not isinstance(reply, NotifierError)
        }
        return Exchanged(members_of, gateways, run_id)

    def _call(self, topic: str, members: Collection[str], gone: Sequence[bytes]) -> tuple[Any, ...]:
        channel = channel_of(topic)
        payload = payload_of(Signal(topic, Kind.ORDER, ORDER))
        # Sorted, or the same members would look like others.
        told = ",".join(sorted(members))
        return (f"{channel}:members", self._name, told, _KEPT, channel, payload, *gone)


def _members_in(reply: Sequence[bytes], gateways: frozenset[str]) -> frozenset[str]:
    pairs = zip(reply[::2], reply[1::2], strict=True)
    lists = [told.decode().split(",") for name, told in pairs if name.decode() in gateways]
    return frozenset().union(*lists)
