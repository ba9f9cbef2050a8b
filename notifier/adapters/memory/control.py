"""Control in memory: for `notifier dev`, and for tests of gateways."""

import time

from notifier.core.control import LOOK, Act, Order
from notifier.core.names import GATEWAYS
from notifier.core.ports import Broker
from notifier.core.signals import Kind, Signal


class MemoryControl:
    """Fulfils `notifier.core.ports.Control` for the gateways of one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._orders: dict[tuple[Act, str], Order] = {}

    async def give(self, act: Act, user: str) -> Order:
        """See Control."""
        order = self._orders[act, user] = Order(act, user, time.time())
        await self._tell()
        return order

    async def _tell(self) -> None:
        await self._broker.signal([Signal(GATEWAYS, Kind.ORDER, LOOK)])

    async def orders(self) -> list[Order]:
        """See Control."""
        return list(self._orders.values())
