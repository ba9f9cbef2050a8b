"""Delivery reports: sent as the users' marks move, for the events whose producers ask for them.

Between two looks at the marks RabbitMQ keeps the event, and with it the reports that were sent. So
a router remembers nothing, gateways know nothing of reports, and a mark costs what it did.
"""

from collections.abc import Sequence

from notifier.core.ports import Batch, EventSource, SharedPorts
from notifier.core.reports import Report, report_of
from notifier.core.watched import Watched
from notifier.router.retry import Retry
from notifier.router.users_fates import UsersFates
from notifier.telemetry.metrics import Metrics

_AT_ONCE = 500  # reports in one round trip

_Due = tuple[Watched, str, Report]  # the report about this event and user


class Reports:
    """Reports what becomes of events, now and each time that they have waited."""

    def __init__(
        self, source: EventSource, shared: SharedPorts, retry: Retry, metrics: Metrics
    ) -> None:
        self._source = source
        self._fates = UsersFates(shared.broker, shared.marks)
        self._retry = retry
        self._metrics = metrics

    async def settle(
        self, batch: Batch, published: Sequence[Watched], waited: Sequence[Watched]
    ) -> None:
        """Report on events that were just published, and on those that have waited.

        Returns once RabbitMQ keeps the reports, and each event with reports to come. While a
        backend is out of reach this waits, until the batch is another router's.
        """
        await self._retry.by_slices(batch, waited, self._look_again)
        await self._retry.by_slices(batch, published, self._begin)

    async def _begin(self, published: Sequence[Watched]) -> None:
        users = [(each, dict.fromkeys(each.event.users or ())) for each in published]
        await self._send([(each, user, Report.PUBLISHED) for each, of in users for user in of])
        await self._wait(published)

    async def _look_again(self, waited: Sequence[Watched]) -> None:
        due: list[_Due] = []
        left: list[Watched] = []
        for watched in waited:
            found = await self._fates.of(watched.event)
            now = self._fates.now()
            fates = watched.judged(found, now)
            due += [(watched, user, kind) for user, kind in watched.due(fates)]
            rest = watched.after(fates)
            left += [rest] if rest and not rest.is_over(now) else []
        await self._send(due)
        await self._wait(left)

    async def _wait(self, left: Sequence[Watched]) -> None:
        if left:
            now = self._fates.now()
            await self._source.wait([(each.entry(), each.delay(now)) for each in left])

    async def _send(self, due: Sequence[_Due]) -> None:
        now = self._fates.now()
        for start in range(0, len(due), _AT_ONCE):
            some = due[start:][:_AT_ONCE]
            reports = [report_of(watched.event, user, kind, now) for watched, user, kind in some]
            await self._source.report(reports)
            for each in reports:
                self._metrics.reports.labels(each.kind).inc()
