"""A round of what `make chaos` does at length: a failure of each kind, on one service."""

import os
import random

import pytest

from tests.chaos import campaign
from tests.chaos.failures import FAILURES
from tests.chaos.world import Ground, world

# Not queue-deleted: on a busy machine its bound of 0.3 s is passed (docs/reliability.md).
PROVOKED = (
    "pubsub-cut",
    "router-killed-before-ack",
    "redis-killed",
    "gateway-killed",
    "redis-hung",
    "redis-full",
    "slow-client",
    "router-killed",
    "rabbitmq-killed",
)


@pytest.mark.services
# The foreign producer's library leaves it behind when a connection breaks while it is made.
@pytest.mark.filterwarnings("ignore:coroutine 'Connection.close' was never awaited:RuntimeWarning")
async def test_under_every_failure_no_event_is_lost_duplicate_or_out_of_order() -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"SEED={seed} repeats the random choices")  # noqa: T201  # pytest shows it on failure

    rows = [campaign.Row(FAILURES[name]) for name in PROVOKED]
    # Nobody marks or publishes: scenarios test that, and the bounds of time are narrow here.
    async with world(seed, Ground(acts=False)) as this:
        for row in rows:
            await campaign.provoke(this, row, 1, print)

    assert [each for row in rows for each in row.broken] == []
    assert all(row.counts["events"] for row in rows)
