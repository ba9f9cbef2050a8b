"""The roster in memory: for `notifier dev`, whose router is the only one, and for tests."""

from time import monotonic


class MemoryRoster:
    """Fulfils `notifier.core.ports.Roster` for routers that share it."""

    def __init__(self, *, lifetime_seconds: float = 5.0) -> None:
        self._lifetime = lifetime_seconds
        self._announced: dict[str, float] = {}

    async def announce(self, router: str) -> frozenset[str]:
        """See Roster."""
        now = monotonic()
        self._announced[router] = now
        lapsed = now - self._lifetime
        self._announced = {each: at for each, at in self._announced.items() if at > lapsed}
        return frozenset(self._announced)

    async def withdraw(self, router: str) -> None:
        """See Roster."""
        self._announced.pop(router, None)
