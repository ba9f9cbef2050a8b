"""Scripts run on a pool of connections, each aware of the Redis process at its other end."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Self

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
from notifier.adapters.redis.scripts import Script
from notifier.core.addresses import Address, Url
from notifier.core.errors import Refused, Unavailable
from notifier.telemetry.metrics import Metrics

_CONNECTIONS = 16

# Errors that repeating cannot mend: a key of a wrong type, a log ahead of its head. Any other error
# may come from Redis' state or its settings, which is no reason to give an event up.
_REFUSALS = ("WRONGTYPE", "The ID specified in XADD")

# The commands for the Redis process of a run id.
_ForProcess = Callable[[str], Iterable[tuple[Any, ...]]]


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
        run id, and for the first calls, at least one, a reply or Refused; the caller repeats the
        rest. Raises Unavailable.
        """
        keys = script.keys or 0

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
            answers.append(self._answer(reply))
        return run_id, answers

    async def run_once(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any]
    ) -> tuple[str, list[Any]]:
        """Run a script once, for all keys; Redis accepts or refuses the call as a whole.

        The script returns a list of replies. Returns the same as `run`.
        """

        def commands(run_id: str) -> Iterator[tuple[Any, ...]]:
            yield ("EVAL", script.source, len(keys), *keys, run_id, *arguments)

        run_id, [replies] = await self._round_trip(commands)
        return run_id, [self._answer(reply) for reply in self._answer(replies)]

    def _answer(self, reply: Any) -> Any:  # noqa: ANN401  # what Redis replies
        if not isinstance(reply, ResponseError):
            return reply
        if str(reply).startswith(_REFUSALS):
            return Refused(str(reply))
        raise self._unavailable(reply)

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Send plain commands in one round trip; raises Unavailable."""
        _, replies = await self._round_trip(lambda _: commands)
        for reply in replies:
            self._answer(reply)

    async def ping(self) -> None:
        """Ask Redis for its time, which sets the clock; raises Unavailable."""
        asked = monotonic()
        _, [reply] = await self._round_trip(lambda _: [("TIME",)])
        seconds, microseconds = map(int, self._answer(reply))
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
