"""Handing events back whose users have not received them in time.

The waiting is RabbitMQ's, and the fate of an event is read when it comes back from there. So a
router remembers nothing, and whichever router it comes to goes on.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import structlog

from notifier.core.events import Event
from notifier.core.fate import Fate
from notifier.core.ports import Batch, EventSource, SharedPorts
from notifier.core.presence import MOST_USERS
from notifier.core.undelivered import DELAYS, HandedBack, Reason, Waiting, handed_back
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


class _Missing(NamedTuple):
    """An event that a user lacks when its time is over."""

    event: Event
    user: str
    fate: Fate

    def reason(self, present: Collection[str]) -> Reason:
        if self.fate is Fate.PUBLISHED and self.user not in present:
            return Reason.OFFLINE
        return _REASONS[self.fate]


class Undelivered:
    """Has events wait, and judges those that have waited."""

    def __init__(
        self, source: EventSource, shared: SharedPorts, retry: Retry, metrics: Metrics
    ) -> None:
        self._source = source
        self._fates = UsersFates(shared.broker, shared.marks)
        self._presence_queries = shared.presence_queries
        self._retry = retry
        self._metrics = metrics

    async def settle(
        self, batch: Batch, published: Sequence[Waiting], waited: Sequence[Waiting]
    ) -> None:
        """Have events wait that were just published, and settle those that have waited.

        Returns once RabbitMQ keeps each that is not done with. While a backend is out of reach this
        waits, until the batch is another router's.
        """
        await self._retry.by_slices(batch, waited, self._judge)
        await self._retry.by_slices(batch, published, self._wait)

    async def _wait(self, events: Sequence[Waiting]) -> None:
        now = self._fates.now()
        await self._source.wait([(e.entry(), e.delay(now) or DELAYS[-1]) for e in events])

    async def _judge(self, waited: Sequence[Waiting]) -> None:
        """Hand events back whose time is over; let others wait for the rest of their users."""
        left: list[Waiting] = []
        over: list[_Missing] = []
        for waiting in waited:
            fates = await self._fates.of(waiting.event)
            missing = {user: fate for user, fate in fates.items() if not fate.reached}
            if missing and waiting.delay(self._fates.now()):
                left.append(waiting.of(list(missing)))
            else:
                over += [_Missing(waiting.event, user, fate) for user, fate in missing.items()]
        # Before copies wait: after a failure all of this is done again. A second hand-back has the
        # id of the first, by which its reader drops it; a second copy that waits has none.
        if over:
            await self._hand_back(over)
        if left:
            await self._wait(left)

    async def _hand_back(self, over: Sequence[_Missing]) -> None:
        present = await self._connected({m.user for m in over if m.fate is Fate.PUBLISHED})
        some: list[tuple[Event, HandedBack]] = []
        size = 0
        for missing in over:
            back = handed_back(missing.event, missing.user, missing.reason(present))
            if some and size + len(back.event) > _LARGEST_ROUND:
                await self._send(some)
                some, size = [], 0
            some.append((missing.event, back))
            size += len(back.event)
        await self._send(some)

    async def _send(self, some: Sequence[tuple[Event, HandedBack]]) -> None:
        await self._source.hand_back([back for _, back in some])
        for event, back in some:
            self._metrics.undelivered.labels(back.reason).inc()
            _log.debug(
                "handed_back",
                event_id=event.id,
                source=event.source,
                user=back.user,
                reason=back.reason,
            )

    async def _connected(self, users: Collection[str]) -> set[str]:
        """Return those of the users who are connected."""
        asked, found = list(users), set[str]()
        for start in range(0, len(asked), MOST_USERS):
            told = await self._presence_queries.ask(asked[start:][:MOST_USERS])
            found |= {user for user, connections in told.counts.items() if connections}
        return found
