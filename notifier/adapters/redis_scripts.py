"""What the broker does inside Redis: two Lua scripts (Redis 7, 8 or Valkey), each atomic.

Keys of topic T, which share the hash tag {T} and so live in one slot of a cluster:

    notifier:{T}:head   hash: epoch, offset
    notifier:{T}:log    stream: id `<offset>-0`, field `r` with the record
    notifier:{T}:seen   sorted set: event keys, scored by the milliseconds of Redis' own clock
    notifier:{T}        pub/sub channel: `epoch:offset:` and the record

A topic without a usable head begins anew: under an epoch that the caller made up, and without the
log and keys that belong to another epoch.
"""

from hashlib import sha1
from typing import Final


class Script:
    """A script's source, and the name that EVALSHA knows it by once EVAL has been given it."""

    def __init__(self, source: str) -> None:
        self.source: Final = source
        self.sha: Final = sha1(source.encode(), usedforsecurity=False).hexdigest()


# Nothing may be written before XADD but by `begin`, as XADD is what can be refused: when the log
# is no stream, or runs ahead of its head.
PUBLISH = Script("""#!lua
-- KEYS: head, log, seen
-- ARGV: channel, event key, record, epoch to begin with,
--       history size, seconds to keep head and log, deduplication seconds
-- Returns epoch, offset, and 1 for a duplicate.
local head, log, seen = unpack(KEYS)
local channel, key, record, candidate, size, head_seconds, log_seconds, window = unpack(ARGV)

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local forgotten = now - window * 1000

local known = tonumber(redis.call("ZSCORE", seen, key))
local epoch, offset = unpack(redis.call("HMGET", head, "epoch", "offset"))
offset = tonumber(offset)
if not (epoch and offset) then
  redis.call("DEL", log, seen)
  epoch, offset, known = candidate, 0, nil
end
if known and known > forgotten then
  return {epoch, offset, 1}
end

local id = string.format("%.0f", offset + 1)
redis.call("XADD", log, "MAXLEN", size, id .. "-0", "r", record)
redis.call("HSET", head, "epoch", epoch, "offset", id)
redis.call("ZADD", seen, now, key)
if (offset + 1) % 16 == 0 then -- often enough to bound it
  redis.call("ZREMRANGEBYSCORE", seen, "-inf", forgotten)
  redis.call("ZREMRANGEBYRANK", seen, 0, -10001)
end
redis.call("PUBLISH", channel, epoch .. ":" .. id .. ":" .. record)
redis.call("EXPIRE", head, head_seconds)
redis.call("EXPIRE", log, log_seconds)
redis.call("EXPIRE", seen, window)
return {epoch, offset + 1, 0}
""")

# May run when memory is short, so that clients still connect; it adds little.
READ = Script("""#!lua flags=allow-oom
-- KEYS: head, log, seen
-- ARGV: epoch to begin with, seconds to keep the head, most entries, offset (or nothing)
-- Returns epoch, offset, and the log's entries behind the offset asked for.
local head, log, seen = unpack(KEYS)
local candidate, head_seconds, most, asked = unpack(ARGV)

local epoch, offset = unpack(redis.call("HMGET", head, "epoch", "offset"))
offset = tonumber(offset)
if not (epoch and offset) then
  redis.call("DEL", log, seen)
  epoch, offset = candidate, 0
  redis.call("HSET", head, "epoch", epoch, "offset", offset)
end
-- Anyone can have the head of an unused topic made, so that does not stay for long; while the topic
-- is followed it is read, and kept, time and again.
if offset == 0 then
  head_seconds = math.min(head_seconds, 3600)
end
redis.call("EXPIRE", head, head_seconds)
if not asked then
  return {epoch, offset, {}}
end
return {epoch, offset, redis.call("XRANGE", log, "(" .. asked .. "-0", "+", "COUNT", most)}
""")
