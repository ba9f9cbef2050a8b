"""Seats on Redis: for each user a hash of counts by gateway, and a list of the gateways.

One worker sends Redis the counts that have changed, in rounds. Each gateway sends a heartbeat every
second; the counts of a gateway without one expire. So a connection costs nothing while it stays.

    notifier:gateways           sorted set: gateways, scored by the millisecond of Redis' own clock
                                in which each was last heard of
    notifier:{user:ID}:seats    hash: gateway, how many connections of the user's it has
"""

import asyncio
import secrets
from collections import Counter, deque
from contextlib import suppress
from itertools import islice
from typing import Any

import structlog

from notifier.adapters.redis.commands import Commands
from notifier.adapters.redis.scripts import Script
from notifier.core.addresses import Url
from notifier.core.background import LongLived
from notifier.core.errors import NotifierError, Unavailable
from notifier.core.names import personal_topic
from notifier.telemetry.metrics import Metrics

_GATEWAYS = "notifier:gateways"
_ROUND = 500  # users
_BEAT_EVERY = 1.0
_LAPSE = 10_000  # milliseconds
# Seconds in which all counts are sent again, in case Redis has lost them.
_RENEWAL = 600

_log = structlog.stdlib.get_logger(__name__)

# May run when memory is short: clients that are closed for it would only reconnect.
_BEAT = Script(
    "seats_beat",
    """#!lua flags=allow-oom
-- KEYS: gateways
-- ARGV: run, gateway, milliseconds after which one is gone, milliseconds after which it is
--       forgotten, milliseconds since it was heard of
-- Returns the gateways that are gone and not forgotten.
local gateways, _, gateway, lapse, memory, since = KEYS[1], unpack(ARGV)

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("ZADD", gateways, now - since, gateway)
redis.call("ZREMRANGEBYSCORE", gateways, "-inf", now - memory)
redis.call("PEXPIRE", gateways, memory)
return redis.call("ZRANGEBYSCORE", gateways, "-inf", now - lapse)
""",
    keys=1,
)

# A gateway sends its count of connections, never a difference: a message that was lost is made good
# by the next.
_SEAT = Script(
    "seats_count",
    """#!lua flags=allow-oom
-- KEYS: seats
-- ARGV: run, gateway, how many connections it has, how many more it asks for, most of all gateways,
--       seconds to keep this, gateways that are gone
-- Returns how many more it may have.
local seats = KEYS[1]
local _, gateway, held, asked, most, seconds = unpack(ARGV)

for index = 7, #ARGV do
  redis.call("HDEL", seats, ARGV[index])
end
local granted, taken = 0, tonumber(held)
if asked ~= "0" then
  local found = redis.call("HGETALL", seats)
  for index = 1, #found, 2 do
    if found[index] ~= gateway then
      taken = taken + found[index + 1]
    end
  end
  granted = math.max(0, math.min(asked, most - taken))
end
if held + granted > 0 then
  redis.call("HSET", seats, gateway, string.format("%.0f", held + granted))
  redis.call("EXPIRE", seats, seconds)
else
  redis.call("HDEL", seats, gateway)
end
return granted
""",
    keys=1,
)


class RedisSeats(LongLived):
    """Fulfils `notifier.core.ports.Seats` while it is entered; entering does not wait for Redis.

    `url` is as for RedisBroker. A user has at most `most` connections on all gateways together.
    The connections of a gateway that died count no more after ten seconds.
    """

    def __init__(self, url: Url, most: int, *, metrics: Metrics) -> None:
        super().__init__()
        self._commands = Commands(url, metrics)
        self._gateway = secrets.token_hex(4)
        self._most = most
        self._held = Counter[str]()
        self._asking: dict[str, deque[asyncio.Future[bool]]] = {}
        self._changed: dict[str, None] = {}
        self._renewals: deque[str] = deque()
        self._gone: list[bytes] = []
        self._is_away = False
        self._work = asyncio.Event()

    def _start(self) -> None:
        self._background.start(self._run(), "seats")

    async def _close(self) -> None:
        try:
            await self._heartbeat(since=_LAPSE)  # this gateway is gone, with all that it has
        finally:
            await self._commands.close()

    # The port.

    async def claim(self, user: str) -> bool:
        """See Seats."""
        if self._is_away:
            self._held[user] += 1
            self._changed[user] = None
            return True
        asked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asking.setdefault(user, deque()).append(asked)
        self._mark_changed(user)
        try:
            return await asked
        except asyncio.CancelledError:
            if asked.done() and not asked.cancelled() and asked.result():
                self.release(user)  # granted, and its caller has gone
            raise

    def release(self, user: str) -> None:
        """See Seats."""
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
        self._mark_changed(user)

    def _mark_changed(self, user: str) -> None:
        self._changed[user] = None
        self._work.set()

    # The worker.

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            if clock() >= due:
                due = clock() + _BEAT_EVERY
                await self._heartbeat()
                self._renew()
            while self._changed and not self._is_away and clock() < due:
                await self._round()
            await self._idle_until(due)

    async def _idle_until(self, due: float) -> None:
        if self._is_away or not self._changed:
            self._work.clear()
        with suppress(TimeoutError):  # time for the next beat
            async with asyncio.timeout_at(due):
                await self._work.wait()

    async def _heartbeat(self, since: int = 0) -> None:
        memory = 4 * _RENEWAL * 1000
        try:
            _, [gone] = await self._commands.run(
                _BEAT, [(_GATEWAYS, self._gateway, _LAPSE, memory, since)]
            )
        except Unavailable as error:
            self._let_all_in(error)
        else:
            self._gone = [] if isinstance(gone, NotifierError) else gone
            self._is_away = False

    def _renew(self) -> None:
        """Send the counts of the next few users again."""
        if not self._renewals:
            self._renewals.extend(self._held)
        for _ in range(min(len(self._renewals), -(-len(self._held) // _RENEWAL))):
            self._changed[self._renewals.popleft()] = None

    async def _round(self) -> None:
        users = list(islice(self._changed, _ROUND))
        asking = [len(self._asking.get(user, ())) for user in users]
        for user in users:
            del self._changed[user]
        try:
            _, answers = await self._commands.run(
                _SEAT, [self._call(user, asked) for user, asked in zip(users, asking, strict=True)]
            )
        except Unavailable as error:
            self._changed.update(dict.fromkeys(users))
            self._let_all_in(error)
            return
        self._changed.update(dict.fromkeys(users[len(answers) :]))
        for user, asked, granted in zip(users, asking, answers, strict=False):
            self._answer(user, asked, asked if isinstance(granted, NotifierError) else granted)

    def _call(self, user: str, asked: int) -> tuple[Any, ...]:
        key = f"notifier:{{{personal_topic(user)}}}:seats"
        numbers = (self._held[user], asked, self._most, 2 * _RENEWAL)
        return (key, self._gateway, *numbers, *self._gone)

    def _answer(self, user: str, asked: int, granted: int) -> None:
        """Answer the callers from before the round: the first that still wait get the seats."""
        waiting = self._asking.get(user, deque())
        for _ in range(asked):
            one = waiting.popleft()
            if one.cancelled():
                continue
            one.set_result(granted > 0)
            if granted > 0:
                granted -= 1
                self._held[user] += 1
        if granted > 0:
            self._mark_changed(user)  # nobody waits for these any more: they are given back
        if not waiting:
            self._asking.pop(user, None)

    def _let_all_in(self, error: Unavailable) -> None:
        """Let every user in until Redis answers again, and count them then."""
        if not self._is_away:
            _log.warning("seats_not_counted", reason=str(error))
        self._is_away = True
        for user, waiting in list(self._asking.items()):
            self._changed[user] = None
            self._answer(user, len(waiting), len(waiting))
