"""Delivery reports: sent as the users' marks move, for the events whose producers ask for them.

Between two looks at the marks RabbitMQ keeps the event, and with it the reports that were sent. So
a router remembers nothing, gateways know nothing of reports, and a mark costs what it did.
"""

from collections.abc import Sequence
from functools import partial

from notifier.core.ports import Batch, EventSource
from notifier.core.reports import Report, report_of
from notifier.core.watched import Watched
from notifier.router.retry import Retry
from notifier.router.undelivered import UndeliveredPorts
from notifier.router.users_fates import UsersFates
from notifier.telemetry.metrics import Metrics

_AT_ONCE = 500  # reports in one round trip


class Reports:
    """Reports what becomes of events, now and each time that they have waited."""

    def __init__(
        self, source: EventSource, ports: UndeliveredPorts, retry: Retry, metrics: Metrics
    ) -> None:
        self._source = source
        self._fates = UsersFates(ports.broker, ports.marks)
        self._retry = retry
        self._metrics = metrics

    async def settle(
        self, batch: Batch, published: Sequence[Watched], waited: Sequence[Watched]
    ) -> None:
        """Report on events that were just published, and on those that have waited.

        Returns once RabbitMQ keeps the reports, and each event with reports to come. While a
        backend is out of reach this waits, until the batch is another router's.
        """
        for each in waited:
            await self._retry.while_ours(batch, partial(self._look_again, each))
        for each in published:
            await self._retry.while_ours(batch, partial(self._begin, each))

    async def _begin(self, watched: Watched) -> None:
        users = dict.fromkeys(watched.event.users or ())
        await self._send(watched, [(user, Report.PUBLISHED) for user in users])
        await self._wait(watched)

    async def _look_again(self, watched: Watched) -> None:
        found = await self._fates.of(watched.event)
        fates = watched.judged(found, self._fates.now())
        await self._send(watched, watched.due(fates))
        left = watched.after(fates)
        if left and not left.is_over(self._fates.now()):
            await self._wait(left)

    async def _wait(self, watched: Watched) -> None:
        await self._source.wait([(watched.entry(), watched.delay(self._fates.now()))])

    async def _send(self, watched: Watched, due: Sequence[tuple[str, Report]]) -> None:
        now = self._fates.now()
        for start in range(0, len(due), _AT_ONCE):
            some = due[start:][:_AT_ONCE]
            reports = [report_of(watched.event, user, kind, now) for user, kind in some]
            await self._source.report(reports)
            for each in reports:
                self._metrics.reports.labels(each.kind).inc()
