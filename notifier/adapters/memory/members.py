"""Members in memory: for `notifier dev`, and for tests of several gateways on one broker."""

import asyncio
from collections.abc import Collection, Mapping

from notifier.core.attendance import LAPSE, ORDER
from notifier.core.ports import Broker
from notifier.core.presence import Exchanged
from notifier.core.signals import Kind, Signal


class MemberTable:
    """The members that gateways told of, by topic, and when each gateway was heard of last."""

    def __init__(self) -> None:
        self.told: dict[str, dict[str, frozenset[str]]] = {}
        self.heard: dict[str, float] = {}  # by the event loop's clock


class MemoryMembers:
    """Fulfils `notifier.core.ports.Members` for the gateways that share a table."""

    def __init__(
        self, broker: Broker, table: MemberTable | None = None, *, lapse_seconds: float = LAPSE
    ) -> None:
        self._broker = broker
        self._table = table or MemberTable()
        self._lapse = lapse_seconds
        self._name = f"gateway-{len(self._table.heard)}"
        self._table.heard[self._name] = -lapse_seconds

    async def exchange(self, own: Mapping[str, Collection[str]]) -> Exchanged:
        """See Members."""
        heard, now = self._table.heard, asyncio.get_running_loop().time()
        heard[self._name] = now
        gateways = frozenset(name for name, at in heard.items() if at > now - self._lapse)
        changed = [topic for topic, members in own.items() if self._tell(topic, members)]
        members = {topic: self._members(topic, gateways) for topic in own}
        await self._broker.signal([Signal(topic, Kind.ORDER, ORDER) for topic in changed])
        return Exchanged(members, gateways, "memory")

    def _tell(self, topic: str, members: Collection[str]) -> bool:
        told = self._table.told.setdefault(topic, {})
        before = told.pop(self._name, frozenset())
        if members:
            told[self._name] = frozenset(members)
        elif not told:
            del self._table.told[topic]
        return before != frozenset(members)

    def _members(self, topic: str, gateways: frozenset[str]) -> frozenset[str]:
        told = self._table.told.get(topic, {})
        return frozenset().union(*(told[name] for name in gateways & told.keys()))
