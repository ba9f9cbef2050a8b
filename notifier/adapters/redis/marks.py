"""Marks on Redis: one hash for each user, moved by one script.

notifier:{user:ID}:marks    hash: topic, `epoch read received single,single,…`
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from notifier.adapters.redis.commands import ScriptAdapter
from notifier.adapters.redis.keys import channel_of, new_epoch, stream_keys
from notifier.adapters.redis.scripts import STREAM, Script
from notifier.adapters.redis.signals import payload_of
from notifier.core.addresses import Url
from notifier.core.errors import Failed, Invalid, NotifierError, Refused, TooMany
from notifier.core.marks import (
    BEYOND,
    MOST_SINGLES,
    MOST_TOPICS,
    ORDER,
    RESTARTED,
    TOO_MANY_SINGLES,
    TOO_MANY_TOPICS,
    Mark,
    Move,
)
from notifier.core.names import personal_topic
from notifier.core.signals import Kind, Signal
from notifier.telemetry.metrics import Metrics

_MOST_COMMANDS = 250  # a round trip

# Does as `Mark.moved` says; the tests compare both.
_MOVE = Script(
    "marks_move",
    f"""#!lua
-- KEYS: of the topic head, log, ids, newest; the user's marks
-- ARGV: run, epoch to begin with, seconds to keep the marks, most single ones, most topics, topic,
--       channel and message that tell of a move, epoch and offset of `read`, of `received`
--       (or nothing), then of each single one
-- Returns epoch, read, received, single ones; or why the move is refused, and the field's number.
{STREAM}
local marks = KEYS[5]
local run, candidate, seconds, most, most_topics, topic, channel, message = unpack(ARGV, 1, 8)

local epoch, offset, lineage, is_new = stream(run, candidate)
if is_new and offset > 0 then
  begin(epoch, offset, run, lineage)
end

local function last_of(other)
  if other == epoch then
    return offset
  end
  return tonumber(string.match(" " .. lineage, " " .. other .. ":(%d+)"))
end

local stored = redis.call("HGET", marks, topic)
if not stored and redis.call("HLEN", marks) >= tonumber(most_topics) then
  return {{"topics"}}
end
local former, read, received, list = string.match(stored or "none 0 0 ", "^(%w+) (%d+) (%d+) (.*)$")
local last = last_of(former) or 0
read, received = math.min(read, last), math.min(received, last)
local singles = {{}}
for single in string.gmatch(list, "%d+") do
  if tonumber(single) <= last then
    singles[#singles + 1] = tonumber(single)
  end
end
local was_read, were_singles = read, #singles

for index = 9, #ARGV, 2 do
  if ARGV[index] ~= "" then
    local reach, given = last_of(ARGV[index]), tonumber(ARGV[index + 1])
    if not reach then
      return {{"restarted", (index - 9) / 2}}
    elseif given > reach then
      return {{"beyond", (index - 9) / 2}}
    elseif index == 9 then
      read = math.max(read, given)
    elseif index == 11 then
      received = math.max(received, given)
    else
      singles[#singles + 1] = given
    end
  end
end

table.sort(singles)
local rest = {{}}
for _, single in ipairs(singles) do
  if single == read + 1 then
    read = single
  elseif single > read and single ~= rest[#rest] then
    rest[#rest + 1] = single
  end
end
if #rest > tonumber(most) then
  return {{"singles"}}
end
for index, single in ipairs(rest) do
  rest[index] = string.format("%.0f", single)
end

local value = string.format("%s %.0f %.0f %s", epoch, read, received, table.concat(rest, ","))
redis.call("HSET", marks, topic, value)
redis.call("EXPIRE", marks, seconds)
if read ~= was_read or #rest ~= were_singles then
  redis.call("PUBLISH", channel, message)
end
return {{value}}
""",
    keys=5,
)

# May run when memory is short, as it stores nothing.
_MARKS = Script(
    "marks_read",
    """#!lua flags=allow-oom
-- KEYS: a user's marks
-- ARGV: run, seconds to keep them
-- Returns each topic and its mark.
if redis.call("TTL", KEYS[1]) < ARGV[2] / 2 then
  redis.call("EXPIRE", KEYS[1], ARGV[2])
end
return redis.call("HGETALL", KEYS[1])
""",
    keys=1,
)

_REFUSALS = {"restarted": RESTARTED, "beyond": BEYOND}
_BOUNDS = {"topics": TOO_MANY_TOPICS, "singles": TOO_MANY_SINGLES}
_FIELDS = ("read", "received")


class RedisMarks(ScriptAdapter):
    """Fulfils `notifier.core.ports.Marks` while it is entered; entering does not wait for Redis.

    `url` is as for RedisBroker. Marks are kept for `seconds` since they were last moved, and at
    least half of that since they were last asked for.
    """

    def __init__(self, url: Url, *, metrics: Metrics, seconds: int = 60 * 86_400) -> None:
        super().__init__(url, metrics)
        self._seconds = seconds

    async def move(self, moves: Sequence[Move]) -> list[Mark | NotifierError]:
        """See Marks; a round trip has up to 250 moves."""
        epoch = new_epoch()
        calls = [self._call(move, epoch) for move in moves]
        return list(map(_answer, await self._commands.run_each(_MOVE, calls, _MOST_COMMANDS)))

    def _call(self, move: Move, epoch: str) -> tuple[Any, ...]:
        personal = personal_topic(move.user)
        told = payload_of(Signal(personal, Kind.ORDER, ORDER, move.topic.encode()))
        positions = (move.read or ("", ""), move.received or ("", ""), *move.read_only)
        return (
            *(*stream_keys(move.topic), marks_key(move.user)),
            *(epoch, self._seconds, MOST_SINGLES, MOST_TOPICS),
            *(move.topic, channel_of(personal), told),
            *chain.from_iterable(positions),
        )

    async def of(self, users: Sequence[str]) -> list[dict[str, Mark] | Failed]:
        """See Marks; a round trip has up to 250 users."""
        calls = [(marks_key(user), self._seconds) for user in users]
        return list(map(_marks, await self._commands.run_each(_MARKS, calls, _MOST_COMMANDS)))


def marks_key(user: str) -> str:
    """Return the key of a user's marks."""
    return f"{channel_of(personal_topic(user))}:marks"


def _answer(reply: Any) -> Mark | NotifierError:  # noqa: ANN401 - any reply
    if isinstance(reply, NotifierError):
        return reply
    first, *number = reply
    word = first.decode()
    if word in _BOUNDS:
        return TooMany(_BOUNDS[word])
    if word in _REFUSALS:
        [index] = number
        field = _FIELDS[index] if index < len(_FIELDS) else f"read_only[{index - len(_FIELDS)}]"
        return Invalid(field, _REFUSALS[word])
    return _mark(first)


def _marks(reply: Any) -> dict[str, Mark] | Failed:  # noqa: ANN401 - any reply
    if isinstance(reply, Failed):
        return reply
    if isinstance(reply, Refused):  # the key holds something else
        return {}
    return {
        topic.decode(): _mark(value) for topic, value in zip(reply[::2], reply[1::2], strict=True)
    }


def _mark(value: bytes) -> Mark:
    epoch, read, received, singles = value.decode().split(" ")
    offsets = tuple(map(int, singles.split(","))) if singles else ()
    return Mark(epoch, int(read), int(received), offsets)
