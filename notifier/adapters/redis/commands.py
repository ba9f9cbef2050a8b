"""Scripts run on a pool of connections, each aware of the Redis process at its other end.

An error that Redis replies is of one of three kinds. Redis as a whole is not fit: every caller is
told so. Repeating cannot mend it: Refused. Any other: this one call failed, whatever a client
asked for, and nobody else may notice.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Self

import structlog
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from notifier.adapters.redis.clock import RedisClock
from notifier.adapters.redis.connection import (
    ANSWERING,
    introduce,
    pack,
    read_replies,
    reason_of,
    send,
)
from notifier.adapters.redis.pool import Pool
from notifier.adapters.redis.replies import accepted
from notifier.adapters.redis.scripts import Script
from notifier.core.addresses import Address, Url
from notifier.core.errors import Failed, NotifierError, Refused, Unavailable
from notifier.telemetry.metrics import Metrics

_CONNECTIONS = 16
_MOST_CALLS = 500  # a round trip

# Of Redis' src: it loads its data, is busy or full, cannot write, is a replica or of a Cluster, or
# does not know us. NOPERM and ERR are not among them: they may name a key, so depend on a request.
_UNFIT = frozenset((
    "LOADING", "BUSY", "UNKILLABLE", "OOM", "MISCONF", "NOREPLICAS", "READONLY", "MASTERDOWN",
    "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "NOAUTH", "WRONGPASS", "DENIED",
))  # fmt: skip
_NO_SCRIPTS = re.compile(r"(unknown command|no permissions to run the) ['`]eval", re.IGNORECASE)
# Errors that repeating cannot mend: a key of a wrong type, a log ahead of its head. Any other error
# may come from Redis' state or its settings, which is no reason to give an event up.
_REFUSALS = ("WRONGTYPE", "The ID specified in XADD")

_log = structlog.stdlib.get_logger(__name__)

# The commands for the Redis process of a run id.
_ForProcess = Callable[[str], Iterable[tuple[Any, ...]]]
# The first key of a call, by its number.
_KeyOf = Callable[[int], Any]


class Commands:
    """Runs scripts on a bounded pool of connections; a caller waits while all of them are busy.

    `url` is as for RedisBroker; raises ValueError when it is not a URL of Redis.
    """

    def __init__(self, url: Url, metrics: Metrics) -> None:
        self._pool = Pool(Address.of(url), _CONNECTIONS, lambda new: introduce(new, metrics))
        self.clock = RedisClock(metrics)
        self.trouble: str | None = "Redis has not answered yet"

    @property
    def run_id(self) -> str | None:
        """The run id of the current Redis process: the one that we connected to last."""
        return self._pool.run_id

    async def run(self, script: Script, calls: Sequence[tuple[Any, ...]]) -> tuple[str, list[Any]]:
        """Run a script for each call (keys, then arguments), in order, in one round trip.

        The script gets the run id of the Redis process (`run`) before its arguments. Returns that
        run id, and for the first calls, at least one, a reply, Refused or Failed; the caller
        repeats the rest. Raises Unavailable.
        """
        keys = script.keys

        def commands(run_id: str) -> Iterator[tuple[Any, ...]]:
            # EVAL loads the script, in case Redis has forgotten it.
            name = ("EVAL", script.source)
            for call in calls:
                yield (*name, keys, *call[:keys], run_id, *call[keys:])
                name = ("EVALSHA", script.sha)

        answers: list[Any] = []
        run_id, replies = await self._round_trip(commands)
        for reply in replies:
            if isinstance(reply, NoScriptError) and answers:  # forgotten half-way
                break
            answers.append(reply)
        return run_id, self._answers(answers, script.name, lambda number: calls[number][0])

    async def run_each(
        self, script: Script, calls: Sequence[tuple[Any, ...]], most: int = _MOST_CALLS
    ) -> list[Any]:
        """Run a script for each call, up to `most` in a round trip; return all replies of `run`."""
        replies: list[Any] = []
        while len(replies) < len(calls):
            _, some = await self.run(script, calls[len(replies) :][:most])
            replies += some
        return replies

    async def run_one(self, script: Script, *call: Any) -> Any:  # noqa: ANN401 - any reply
        """Run a script for one call; raises Unavailable too where Redis refused it."""
        [reply] = await self.run_each(script, [call])
        return accepted(reply)

    async def run_once(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any]
    ) -> tuple[str, list[Any]]:
        """Run a script once, for all keys; Redis accepts or refuses the call as a whole.

        The script returns a list of replies. Returns the same as `run`; Failed alone where the call
        as a whole failed.
        """

        def commands(run_id: str) -> Iterator[tuple[Any, ...]]:
            yield ("EVAL", script.source, len(keys), *keys, run_id, *arguments)

        run_id, [replies] = await self._round_trip(commands)
        some = [replies] if isinstance(replies, RedisError) else replies
        return run_id, self._answers(some, script.name, lambda number: keys[number * script.keys])

    def _answers(self, replies: list[Any], asked: str, key_of: _KeyOf) -> list[Any]:
        """Return replies with the errors of single calls among them; raises Unavailable."""
        errors = [reply for reply in replies if isinstance(reply, RedisError)]
        if not errors:
            return replies
        for error in errors:
            if _is_unfit(error):
                raise self._unavailable(error)
        answers = [_answer(reply) for reply in replies]
        failed = [number for number, each in enumerate(answers) if isinstance(each, Failed)]
        if failed:  # one line for all of them, as a client may provoke it
            key, reason = str(key_of(failed[0])), str(replies[failed[0]])
            _log.error("redis_call_failed", call=asked, key=key, failed=len(failed), reason=reason)
        return answers

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[NotifierError | None]:
        """Send plain commands in one round trip; raises Unavailable.

        Returns Refused or Failed in the place of each that failed by itself.
        """
        _, replies = await self._round_trip(lambda _: commands)
        answers = self._answers(replies, str(commands[0][0]), lambda number: commands[number][1])
        return [each if isinstance(each, NotifierError) else None for each in answers]

    async def ping(self) -> None:
        """Ask Redis for its time, which sets the clock; raises Unavailable."""
        asked = monotonic()
        _, [reply] = await self._round_trip(lambda _: [("TIME",)])
        if isinstance(reply, RedisError):  # of no client's making
            raise self._unavailable(reply)
        seconds, microseconds = map(int, reply)
        self.clock.learn(seconds + microseconds / 1_000_000, asked)

    async def _round_trip(self, commands: _ForProcess) -> tuple[str, list[Any]]:
        try:
            async with asyncio.timeout(ANSWERING):
                answer = await self._replies(commands)
        except (RedisError, OSError) as error:
            raise self._unavailable(error) from error
        self.trouble = None
        return answer

    async def _replies(self, commands: _ForProcess) -> tuple[str, list[Any]]:
        async with self._pool.lent() as (connection, run_id):
            packed = [pack(*command) for command in commands(run_id)]
            await send(connection, *packed)
            replies = await read_replies(connection, len(packed))
            if any(isinstance(reply, ReadOnlyError) for reply in replies):
                await connection.disconnect(nowait=True)  # it leads to a former master
            return run_id, replies

    def _unavailable(self, error: Exception) -> Unavailable:
        unavailable = Unavailable("redis", reason_of(error))
        self.trouble = str(unavailable)
        return unavailable

    async def close(self) -> None:
        """Disconnect."""
        await self._pool.close()


def _is_unfit(error: RedisError) -> bool:
    """Whether an error says of Redis as a whole that it cannot serve."""
    if not isinstance(error, ResponseError):  # of a connection
        return True
    # redis-py moves the code of some out of the text.
    code = error.status_code or str(error).partition(" ")[0]
    return code in _UNFIT or _NO_SCRIPTS.search(str(error)) is not None


def _answer(reply: Any) -> Any:  # noqa: ANN401 - any reply
    if not isinstance(reply, RedisError):
        return reply
    return Refused(str(reply)) if str(reply).startswith(_REFUSALS) else Failed("redis")


class ScriptAdapter:
    """The base of an adapter that only runs scripts: it connects with its first call.

    Leaving it disconnects.
    """

    def __init__(self, url: Url, metrics: Metrics) -> None:
        self._commands = Commands(url, metrics)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._commands.close()
