"""A dashboard: forty prices, two thousand changes a second, and each last value at once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from examples.house import Example, run
from notifier.client import Producer
from notifier.core.background import Background

SYMBOLS = [f"{first}{second}X" for first in "ABCDE" for second in "KLMNOPQR"]
AT_ONCE = 100


@asynccontextmanager
async def market(producer: Producer) -> AsyncIterator[None]:
    """Change prices while inside."""
    async with Background() as background:
        background.start(_trade(producer), "market")
        yield


async def _trade(producer: Producer) -> None:
    prices = {symbol: random.uniform(20, 200) for symbol in SYMBOLS}
    while True:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(0.05), name="pause")
            for symbol in random.choices(SYMBOLS, k=AT_ONCE):
                prices[symbol] *= random.uniform(0.998, 1.002)
                value = {"symbol": symbol, "price": round(prices[symbol], 2)}
                # Of the values that a page missed, it gets the newest of each key.
                change = producer.post("price", topic="prices", collapse_key=symbol, data=value)
                tasks.create_task(change, name=symbol)


EXAMPLE = Example("dashboard", work=market)

if __name__ == "__main__":
    run(EXAMPLE)
