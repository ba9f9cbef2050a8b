"""Handing events back whose users have not received them in time.

The waiting is RabbitMQ's, and the fate of an event is read when it comes back from there. So a
router remembers nothing, and whichever router it comes to goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from notifier.core.events import Event
from notifier.core.fate import Fate
from notifier.core.ports import Batch, Broker, EventSource, Marks, PresenceQueries
from notifier.core.undelivered import DELAYS, Reason, Waiting, handed_back
from notifier.router.retry import Retry
from notifier.router.users_fates import UsersFates
from notifier.telemetry.metrics import Metrics

_log = structlog.get_logger("notifier.router")
_LARGEST_ROUND = 4 * 1024 * 1024  # bytes of events that go back in one
_REASONS = {
    Fate.PUBLISHED: Reason.UNCONFIRMED,
    Fate.EXPIRED: Reason.EXPIRED,
    Fate.SUPERSEDED: Reason.SUPERSEDED,
    Fate.BEYOND_HISTORY: Reason.BEYOND_HISTORY,
    Fate.NOT_PUBLISHED: Reason.LOST,
}


@dataclass(frozen=True, slots=True)
class UndeliveredPorts:
    """The ports that tell whether users received an event."""

    broker: Broker
    marks: Marks
    presence_queries: PresenceQueries


class Undelivered:
    """Has events wait, and judges those that have waited."""

    def __init__(
        self, source: EventSource, ports: UndeliveredPorts, retry: Retry, metrics: Metrics
    ) -> None:
        self._source = source
        self._fates = UsersFates(ports.broker, ports.marks)
        self._presence_queries = ports.presence_queries
        self._retry = retry
        self._metrics = metrics

    async def settle(
        self, batch: Batch, published: Sequence[Waiting], waited: Sequence[Waiting]
    ) -> None:
        """Have events wait that were just published, and settle those that have waited.

        Returns once RabbitMQ keeps each that is not done with. While a backend is out of reach this
        waits, until the batch is another router's.
        """
        for each in waited:
            await self._retry.while_ours(batch, partial(self._judge, each))
        if published:
            await self._retry.while_ours(batch, partial(self._wait, published))

    async def _wait(self, events: Sequence[Waiting]) -> None:
        now = self._fates.now()
        await self._source.wait([(e.entry(), e.delay(now) or DELAYS[-1]) for e in events])

    async def _judge(self, waiting: Waiting) -> None:
        """Hand an event back when its time is over; else let it wait for the rest of its users."""
        fates = await self._fates.of(waiting.event)
        missing = {user: fate for user, fate in fates.items() if not fate.reached}
        if missing and waiting.delay(self._fates.now()):
            await self._wait([waiting.of(list(missing))])
        elif missing:
            await self._hand_back(waiting.event, missing)

    async def _hand_back(self, event: Event, missing: Mapping[str, Fate]) -> None:
        present = await self._connected([u for u, f in missing.items() if f is Fate.PUBLISHED])
        back = [
            handed_back(event, user, _reason(fate, is_connected=user in present))
            for user, fate in missing.items()
        ]
        step = max(1, _LARGEST_ROUND // len(back[0].event))
        for start in range(0, len(back), step):
            await self._source.hand_back(back[start:][:step])
        for each in back:
            self._metrics.undelivered.labels(each.reason).inc()
            _log.debug(
                "handed_back",
                event_id=event.id,
                source=event.source,
                user=each.user,
                reason=each.reason,
            )

    async def _connected(self, users: Sequence[str]) -> set[str]:
        if not users:
            return set()
        found = await self._presence_queries.ask(users)
        return {user for user, connections in found.counts.items() if connections}


def _reason(fate: Fate, *, is_connected: bool) -> Reason:
    if fate is Fate.PUBLISHED and not is_connected:
        return Reason.OFFLINE
    return _REASONS[fate]
