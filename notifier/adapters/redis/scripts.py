"""Lua scripts that run inside Redis (Redis 7, 8 or Valkey), each atomic.

Keys of topic T, which share the hash tag {T}:

    notifier:{T}:head    hash: epoch, offset, run, lineage, and `spread` once the topic was busy
    notifier:{T}:log     stream: id `<offset>-0`, field `r` with the record, `k` collapse key
    notifier:{T}:ids     string: entries of 16 bytes, the oldest first: digest of an event's key
                         (10), milliseconds of Redis' own clock (6)
    notifier:{T}:ids:TOKEN:LEVEL:NUMBER
                         string: the same, of a busy topic, for digests whose first 16 bits are
                         NUMBER modulo 2^LEVEL
    notifier:{T}:newest  hash: the newest offset of each collapse key, where there are any
    notifier:{T}         pub/sub channel: `epoch:offset:` and the record

A topic without a usable head begins anew: under an epoch that the caller made up, and without the
data of another epoch.

An epoch lasts no longer than the Redis process (`run`) that began it: a process that took its place
(restarted, failed over) may have lost the newest publications, whose offsets it gives away again.
The next epoch counts on, and `lineage` (`epoch:offset epoch:offset …`, the latest first) keeps up
to which offset it continues the former ones. See docs/adr/0011.
"""

from hashlib import sha1
from typing import Final


class Script:
    """A script's source, and the hash that EVALSHA knows it by once EVAL has been given it.

    `name` stands in logs.

    The first `keys` of its arguments are keys, of each item where it takes several.
    """

    def __init__(self, name: str, source: str, keys: int) -> None:
        self.name: Final = name
        self.source: Final = source
        self.keys: Final = keys
        self.sha: Final = sha1(source.encode(), usedforsecurity=False).hexdigest()


# The beginning of a script that looks after a stream; `head` and so on are its first four keys.
STREAM = """
local head, log, ids, newest = unpack(KEYS, 1, 4)

-- Returns epoch, offset, lineage, whether they have to be written because the epoch is new, and
-- over how many strings the ids are spread, as TOKEN:LEVEL.
local function stream(run, candidate)
  local epoch, offset, begun_by, lineage, spread =
    unpack(redis.call("HMGET", head, "epoch", "offset", "run", "lineage", "spread"))
  offset = tonumber(offset)
  if not (epoch and offset) then
    redis.call("DEL", log, ids, newest)
    redis.call("HDEL", head, "spread")
    return candidate, 0, "", true, ""
  end
  if begun_by == run then
    return epoch, offset, lineage, false, spread or ""
  end
  local longer = epoch .. ":" .. string.format("%.0f", offset) .. " " .. (lineage or "")
  return candidate, offset, string.match(longer:sub(1, 400), "^.* "), true, spread or ""
end

local function begin(epoch, offset, run, lineage)
  redis.call("HSET", head, "epoch", epoch, "offset", offset, "run", run, "lineage", lineage)
end
"""

# A string of at most 2 KB is searched for an id: 16 bytes each, where a sorted set takes over 100.
# When one is full, the topic's ids are spread over twice as many. Each string is split when it is
# next needed, so that no publication takes long. Of all levels of an id at most one has a string,
# as a string that is split is deleted. TOKEN keeps apart what a lost head left behind.
_IDS = """
local MOST_BYTES, MOST_LEVELS = 2048, 15

local function time_at(held, position)
  return (struct.unpack(">I6", held, position + 10))
end

local function name_of(token, level, hash)
  if level == 0 then
    return ids
  end
  return string.format("%s:%s:%d:%d", ids, token, level, hash % 2 ^ level)
end

-- Returns where an id is to be found: the string that has its like, as level, name and bytes.
local function find(token, deepest, hash)
  for level = deepest, 0, -1 do
    local name = name_of(token, level, hash)
    local held = redis.call("GET", name)
    if held then
      return level, name, held
    end
  end
  return deepest, name_of(token, deepest, hash), ""
end

-- Returns when the id of a digest was remembered, if it is not forgotten.
local function remembered(held, digest, forgotten)
  local position = string.find(held, digest, 1, true)
  while position do
    if position % 16 == 1 and time_at(held, position) > forgotten then
      return time_at(held, position)
    end
    position = string.find(held, digest, position + 1, true)
  end
end

-- Returns the bytes without what is forgotten, once that is half of them.
local function trimmed(held, forgotten)
  if #held == 0 or time_at(held, math.floor(#held / 32) * 16 + 1) > forgotten then
    return held
  end
  local position = 1
  while position < #held and time_at(held, position) <= forgotten do
    position = position + 16
  end
  return held:sub(position)
end

-- Returns the bytes that stay with `hash` when a string is split, and the others.
local function split(held, level, hash)
  local ours, others = {}, {}
  for position = 1, #held, 16 do
    local of = struct.unpack(">I2", held, position)
    local half = of % 2 ^ level == hash % 2 ^ level and ours or others
    half[#half + 1] = held:sub(position, position + 15)
  end
  return table.concat(ours), table.concat(others)
end

-- Remembers an id; returns 1 if others had to be forgotten for it before their time, else 0.
local function remember(token, deepest, place, hash, entry, forgotten, window)
  local level, name, former = unpack(place)
  local held, cut = trimmed(former, forgotten), 0
  if #held >= MOST_BYTES and level == deepest then
    if deepest < MOST_LEVELS then
      deepest = deepest + 1
      redis.call("HSET", head, "spread", token .. ":" .. deepest)
    else
      held, cut = held:sub(MOST_BYTES / 4 + 1), 1
    end
  end
  if level < deepest and #held > 0 then
    redis.call("DEL", name)
    while level < deepest do
      local others
      level = level + 1
      held, others = split(held, level, hash)
      if others ~= "" then
        local other = hash + 2 ^ (level - 1) -- differs in the one bit that this level adds
        redis.call("SET", name_of(token, level, other), others, "EX", window)
      end
    end
    redis.call("SET", name_of(token, level, hash), held .. entry, "EX", window)
  elseif held ~= former then
    redis.call("SET", name, held .. entry, "EX", window)
  else
    redis.call("APPEND", name, entry)
    redis.call("EXPIRE", name, window)
  end
  return cut
end
"""

# One call for all publications, so that Redis takes or refuses them together: of several calls it
# could refuse one (memory, replicas, a script it forgot) and take a later one of the same topic.
#
# Before XADD, write only for a stream without a head: XADD is the one command that can be
# refused: when the log is no stream, or runs ahead of its head.
PUBLISH = Script(
    "publish",
    f"""#!lua
-- KEYS: of each publication head, log, ids, newest
-- ARGV: run, epoch to begin with, deduplication seconds; how many publications a topic keeps, and
--       seconds to keep its head and its log; the same of a personal topic; then of each
--       publication channel, digest, record, collapse key, 1 for a personal topic (or nothing)
-- Returns of each epoch, offset, 1 for a duplicate, and 1 if ids were forgotten before their time;
-- after an error, which is the last, none.
{STREAM}
{_IDS}
local run, candidate, window = unpack(ARGV, 1, 3)
local size, head_seconds, log_seconds

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local forgotten = now - window * 1000

local function publish(channel, digest, record, collapse_key, is_personal)
  local limits = is_personal == "" and 4 or 7
  size, head_seconds, log_seconds = tonumber(ARGV[limits]), unpack(ARGV, limits + 1, limits + 2)
  local epoch, offset, lineage, is_new, spread = stream(run, candidate)
  local token, deepest = string.match(spread, "^(%w+):(%d+)$")
  token, deepest = token or candidate, tonumber(deepest) or 0
  local hash = struct.unpack(">I2", digest)
  local place = {{find(token, deepest, hash)}}
  if remembered(place[3], digest, forgotten) then
    if is_new then
      begin(epoch, offset, run, lineage)
    end
    return {{epoch, offset, 1, 0}}
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
  local entry = digest .. struct.pack(">I6", now)
  local cut = remember(token, deepest, place, hash, entry, forgotten, window)
  -- Often enough to bound them.
  if (offset + 1) % 16 == 0 and redis.call("HLEN", newest) > 2 * size then
    local all = redis.call("HGETALL", newest)
    for i = 1, #all, 2 do
      if tonumber(all[i + 1]) <= offset - size then
        redis.call("HDEL", newest, all[i])
      end
    end
  end
  redis.call("PUBLISH", channel, epoch .. ":" .. id .. ":" .. record)
  redis.call("EXPIRE", head, head_seconds)
  redis.call("EXPIRE", log, log_seconds)
  return {{epoch, offset + 1, 0, cut}}
end

local answers = {{}}
for number = 1, #KEYS / 4 do
  head, log, ids, newest = unpack(KEYS, 4 * number - 3, 4 * number)
  local done, answer = pcall(publish, unpack(ARGV, 5 * number + 5, 5 * number + 9))
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
    keys=4,
)

# May run when memory is short, so that clients still connect; it adds little.
READ = Script(
    "read",
    f"""#!lua flags=allow-oom
-- KEYS: head, log, ids, newest
-- ARGV: run, epoch to begin with, seconds to keep the head, most entries,
--       offset (or nothing), epoch and offset that the asker has seen (or nothing),
--       whether to begin a stream where there is none (or nothing),
--       the end of the range (or nothing): the newest entries up to it are asked for,
--       how many bytes of each record behind its first line are asked for (or nothing: all)
-- Returns epoch, offset, lineage, the log's entries behind the offset asked for (the oldest first
-- unless they have an end), and for each collapse key among them that key and the offset of its
-- newest; nothing where there is no stream.
{STREAM}
local run, candidate, head_seconds, most, asked = unpack(ARGV, 1, 5)
local seen_epoch, seen_offset, begins, last, bytes = unpack(ARGV, 6, 10)

if begins == "" and redis.call("EXISTS", head) == 0 then
  return {{}}
end

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
local entries
if last == "" then
  entries = redis.call("XRANGE", log, "(" .. asked .. "-0", "+", "COUNT", most)
else
  entries = redis.call("XREVRANGE", log, last, "(" .. asked .. "-0", "COUNT", most)
end
local keys, found = {{}}, {{}}
for _, entry in ipairs(entries) do
  if bytes ~= "" and entry[2][2] then
    local line = string.find(entry[2][2], "\\n", 1, true) or 0
    entry[2][2] = entry[2][2]:sub(1, line + bytes)
  end
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

# An id is found for as long as it is there, which may be longer than its duplicates are dropped.
PUBLISHED_AT = Script(
    "published_at",
    f"""#!lua flags=no-writes
-- KEYS: head, log, ids, newest
-- ARGV: run, digest
-- Returns when a publication of this digest was taken, in milliseconds, or 0.
local head, ids = KEYS[1], KEYS[3]
{_IDS}
local spread = redis.call("HGET", head, "spread") or ""
local token, deepest = string.match(spread, "^(%w+):(%d+)$")
local _, _, held = find(token, tonumber(deepest) or 0, (struct.unpack(">I2", ARGV[2])))
return remembered(held, ARGV[2], 0) or 0
""",
    keys=4,
)
