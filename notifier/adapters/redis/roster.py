"""The roster on Redis: one sorted set of the routers at work."""

from typing import Any, Self

from notifier.adapters.redis.broker import Commands
from notifier.adapters.redis.scripts import ANNOUNCE, WITHDRAW, Script
from notifier.core.errors import Refused, Unavailable
from notifier.telemetry.metrics import Metrics

_ROUTERS = "notifier:routers"


class RedisRoster:
    """Fulfils `notifier.core.ports.Roster` while it is entered.

    `url` is as for RedisBroker; the connection is its own, which no batch keeps busy.
    """

    def __init__(self, url: str, *, metrics: Metrics, lifetime_seconds: float = 5.0) -> None:
        self._commands = Commands(url, metrics)
        self._lifetime = round(lifetime_seconds * 1000)

    async def __aenter__(self) -> Self:
        """Begin; it connects once it is asked."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._commands.close()

    async def announce(self, router: str) -> frozenset[str]:
        """See Roster."""
        routers = await self._run(ANNOUNCE, router, self._lifetime)
        return frozenset(each.decode() for each in routers)

    async def withdraw(self, router: str) -> None:
        """See Roster."""
        await self._run(WITHDRAW, router)

    async def _run(self, script: Script, *arguments: str | int) -> Any:  # noqa: ANN401 - what Redis replies
        _, [answer] = await self._commands.run(script, [(_ROUTERS, *arguments)])
        if isinstance(answer, Refused):  # to be mended by hand; till then the last answer holds
            raise Unavailable("redis", str(answer))
        return answer
