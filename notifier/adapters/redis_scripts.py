"""What is done inside Redis: Lua scripts (Redis 7, 8 or Valkey), each atomic.

Keys of topic T, which share the hash tag {T}:

    notifier:{T}:head    hash: epoch, offset, run, lineage
    notifier:{T}:log     stream: id `<offset>-0`, field `r` with the record, `k` collapse key
    notifier:{T}:seen    sorted set: event keys, scored by the milliseconds of Redis' own clock
    notifier:{T}:newest  hash: the newest offset of each collapse key, where there are any
    notifier:{T}         pub/sub channel: `epoch:offset:` and the record

A topic without a usable head begins anew: under an epoch that the caller made up, and without what
belongs to another epoch.

An epoch lasts no longer than the Redis process (`run`) that began it: a process that took its place
(restarted, failed over) may have lost the newest publications, whose offsets it gives away again.
The next epoch counts on, and `lineage` (`epoch:offset epoch:offset …`, the latest first) keeps up
to which offset it continues the former ones. See docs/adr/0011.

Where connections per user are bounded:

    notifier:gateways           sorted set: gateways, scored by the millisecond of Redis' own clock
                                in which each was last heard of
    notifier:{user:ID}:seats    hash: gateway, how many connections of the user's it has

And the roster:

    notifier:routers    sorted set: routers at work, scored by the millisecond of Redis' own clock
                        in which each was announced last
"""

from hashlib import sha1
from typing import Final


class Script:
    """A script's source, and the name that EVALSHA knows it by once EVAL has been given it.

    The first `keys` of its arguments are keys; None where their number varies.
    """

    def __init__(self, source: str, keys: int | None) -> None:
        self.source: Final = source
        self.keys: Final = keys
        self.sha: Final = sha1(source.encode(), usedforsecurity=False).hexdigest()


_STREAM = """
local head, log, seen, newest = unpack(KEYS, 1, 4)

-- Returns epoch, offset, lineage, and whether they have to be written because the epoch is new.
local function stream(run, candidate)
  local epoch, offset, begun_by, lineage =
    unpack(redis.call("HMGET", head, "epoch", "offset", "run", "lineage"))
  offset = tonumber(offset)
  if not (epoch and offset) then
    redis.call("DEL", log, seen, newest)
    return candidate, 0, "", true
  end
  if begun_by == run then
    return epoch, offset, lineage, false
  end
  local longer = epoch .. ":" .. string.format("%.0f", offset) .. " " .. (lineage or "")
  return candidate, offset, string.match(longer:sub(1, 400), "^.* "), true
end

local function begin(epoch, offset, run, lineage)
  redis.call("HSET", head, "epoch", epoch, "offset", offset, "run", run, "lineage", lineage)
end
"""

# One call for all publications, so that Redis takes or refuses them together: of several calls it
# could refuse one (memory, replicas, a script it forgot) and take a later one of the same topic.
#
# Nothing may be written before XADD but what a stream without a head needs, as XADD is what can be
# refused: when the log is no stream, or runs ahead of its head.
PUBLISH = Script(
    f"""#!lua
-- KEYS: of each publication head, log, seen, newest
-- ARGV: run, epoch to begin with, history size, seconds to keep head and log,
--       deduplication seconds; then of each publication channel, event key, record, collapse key
-- Returns of each epoch, offset, and 1 for a duplicate; after an error, which is the last, none.
{_STREAM}
local run, candidate, size, head_seconds, log_seconds, window = unpack(ARGV, 1, 6)
size = tonumber(size)

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local forgotten = now - window * 1000

local function publish(channel, key, record, collapse_key)
  local epoch, offset, lineage, is_new = stream(run, candidate)
  local known = tonumber(redis.call("ZSCORE", seen, key))
  if known and known > forgotten then
    if is_new then
      begin(epoch, offset, run, lineage)
    end
    return {{epoch, offset, 1}}
  end

  local id = string.format("%.0f", offset + 1)
  if collapse_key == "" then
    redis.call("XADD", log, "MAXLEN", size, id .. "-0", "r", record)
  else
    redis.call("XADD", log, "MAXLEN", size, id .. "-0", "r", record, "k", collapse_key)
    redis.call("HSET", newest, collapse_key, id)
    redis.call("EXPIRE", newest, log_seconds)
  end
  if is_new then
    begin(epoch, id, run, lineage)
  else
    redis.call("HSET", head, "offset", id)
  end
  redis.call("ZADD", seen, now, key)
  if (offset + 1) % 16 == 0 then -- often enough to bound them
    redis.call("ZREMRANGEBYSCORE", seen, "-inf", forgotten)
    redis.call("ZREMRANGEBYRANK", seen, 0, -10001)
    if redis.call("HLEN", newest) > 2 * size then
      local all = redis.call("HGETALL", newest)
      for i = 1, #all, 2 do
        if tonumber(all[i + 1]) <= offset - size then
          redis.call("HDEL", newest, all[i])
        end
      end
    end
  end
  redis.call("PUBLISH", channel, epoch .. ":" .. id .. ":" .. record)
  redis.call("EXPIRE", head, head_seconds)
  redis.call("EXPIRE", log, log_seconds)
  redis.call("EXPIRE", seen, window)
  return {{epoch, offset + 1, 0}}
end

local answers = {{}}
for number = 1, #KEYS / 4 do
  head, log, seen, newest = unpack(KEYS, 4 * number - 3, 4 * number)
  local done, answer = pcall(publish, unpack(ARGV, 4 * number + 3, 4 * number + 6))
  if not done and type(answer) ~= "table" then
    answer = {{err = tostring(answer)}}
  end
  answers[number] = answer
  if not done then
    break
  end
end
return answers
""",
    keys=None,
)

# May run when memory is short, so that clients still connect; it adds little.
READ = Script(
    f"""#!lua flags=allow-oom
-- KEYS: head, log, seen, newest
-- ARGV: run, epoch to begin with, seconds to keep the head, most entries,
--       offset (or nothing), epoch and offset that the asker has seen (or nothing)
-- Returns epoch, offset, lineage, the log's entries behind the offset asked for, and for each
-- collapse key among them that key and the offset of its newest.
{_STREAM}
local run, candidate, head_seconds, most, asked, seen_epoch, seen_offset = unpack(ARGV)

local epoch, offset, lineage, is_new = stream(run, candidate)
if seen_epoch ~= "" then
  local last = offset
  if seen_epoch ~= epoch then
    last = tonumber(string.match(" " .. lineage, " " .. seen_epoch .. ":(%d+)"))
  end
  if last and tonumber(seen_offset) > last then -- what was seen there is lost
    epoch, lineage, is_new = candidate, "", true
  end
end
if is_new then
  begin(epoch, offset, run, lineage)
end
-- Anyone can have the head of an unused topic made, so that does not stay for long; while the topic
-- is followed it is read, and kept, time and again. Of all these reads next to none writes.
if offset == 0 then
  head_seconds = math.min(head_seconds, 3600)
end
if redis.call("TTL", head) < head_seconds / 2 then
  redis.call("EXPIRE", head, head_seconds)
end
if asked == "" then
  return {{epoch, offset, lineage, {{}}, {{}}}}
end
local entries = redis.call("XRANGE", log, "(" .. asked .. "-0", "+", "COUNT", most)
local keys, found = {{}}, {{}}
for _, entry in ipairs(entries) do
  local collapse_key = entry[2][4]
  if collapse_key and not found[collapse_key] then
    found[collapse_key] = true
    keys[#keys + 1] = collapse_key
    keys[#keys + 1] = redis.call("HGET", newest, collapse_key)
  end
end
return {{epoch, offset, lineage, entries, keys}}
""",
    keys=4,
)

# May run when memory is short: clients that are closed for it would only come back.
BEAT = Script(
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

# A gateway tells how many connections it has, never that there is one more or less: whatever was
# lost on the way is true again the next time.
SEAT = Script(
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

# They may run when memory is short: routers then hold their batches, but keep sharing.
ANNOUNCE = Script(
    """#!lua flags=allow-oom
-- KEYS: routers
-- ARGV: run, router, milliseconds after which one is gone
-- Returns who is at work.
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
WITHDRAW = Script(
    """#!lua flags=allow-oom
-- KEYS: routers
-- ARGV: run, router
return redis.call("ZREM", KEYS[1], ARGV[2])
""",
    keys=1,
)
