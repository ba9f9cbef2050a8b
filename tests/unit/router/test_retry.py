import asyncio

import pytest

from notifier.core.errors import Unavailable
from notifier.router.retry import Retry
from notifier.telemetry.metrics import Metrics
from tests.support.clock import in_virtual_time


class Work:
    """Is unavailable so many times, then gives its result."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tries = 0

    async def __call__(self) -> str:
        self.tries += 1
        if self.tries <= self.failures:
            raise Unavailable("broker", "away")
        return "done"


def held(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("notifier_held_batches_total")


@in_virtual_time
async def test_a_retry_returns_the_result_and_counts_one_held_batch() -> None:
    metrics, work = Metrics(), Work(failures=3)

    result = await Retry(metrics).until_available(work)

    assert (result, work.tries) == ("done", 4)
    assert held(metrics) == 1


@in_virtual_time
async def test_work_that_succeeds_at_once_is_no_held_batch() -> None:
    metrics = Metrics()

    await Retry(metrics).until_available(Work(failures=0))

    assert held(metrics) == 0


@in_virtual_time
async def test_a_batch_waits_for_a_retry_until_its_work_succeeds_fails_or_is_cancelled() -> None:
    async def broken() -> None:
        work.tries += 1
        raise Unavailable("broker", "away") if work.tries == 1 else KeyError("a mistake of ours")

    retry, work = Retry(Metrics()), Work(failures=0)
    cancelled = asyncio.ensure_future(retry.until_available(Work(failures=1_000)))
    failing = asyncio.ensure_future(retry.until_available(broken))
    await asyncio.sleep(0)
    while_held = retry.waiting

    with pytest.raises(KeyError):
        await failing
    cancelled.cancel()
    await asyncio.wait([cancelled])

    assert while_held == 2
    assert retry.waiting == 0


@in_virtual_time
async def test_retries_become_rare_and_never_stop() -> None:
    loop, work = asyncio.get_running_loop(), Work(failures=100)
    began = loop.time()

    await Retry(Metrics()).until_available(work)

    assert 100 < loop.time() - began < 100 * 5.1
