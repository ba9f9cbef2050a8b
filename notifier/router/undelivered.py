"""Handing events back whose users have not received them in time.

The waiting is RabbitMQ's, and the fate of an event is read when it comes back from there. So a
router remembers nothing, and whichever router it comes to goes on.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from notifier.core.events import Event
from notifier.core.fate import Fate, Place, Sought, fates
from notifier.core.marks import UNMARKED
from notifier.core.names import personal_topic
from notifier.core.ports import Batch, Broker, EventSource, Marks, PresenceQueries
from notifier.core.undelivered import DELAYS, Reason, Waiting, handed_back
from notifier.router.retry import Retry
from notifier.telemetry.metrics import Metrics

_log = structlog.get_logger("notifier.router")
_AT_ONCE = 50  # users whose history is read in one round trip
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
        self._broker = ports.broker
        self._marks = ports.marks
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
            await self._while_ours(batch, partial(self._judge, each))
        if published:
            await self._while_ours(batch, partial(self._wait, published))

    async def _while_ours(self, batch: Batch, work: Callable[[], Awaitable[None]]) -> None:
        async def work_if_ours() -> None:
            if await batch.is_ours():
                await work()

        await self._retry.until_available(work_if_ours)

    async def _wait(self, events: Sequence[Waiting]) -> None:
        now = self._broker.now()
        await self._source.wait([(e.entry(), e.delay(now) or DELAYS[-1]) for e in events])

    async def _judge(self, waiting: Waiting) -> None:
        """Hand an event back when its time is over; else let it wait for the rest of its users."""
        missing = await self._missing(waiting)
        if missing and waiting.delay(self._broker.now()):
            await self._wait([waiting.of(list(missing))])
        elif missing:
            await self._hand_back(waiting.event, missing)

    async def _missing(self, waiting: Waiting) -> dict[str, Fate]:
        """Return the users whom the event has not reached, with its fate."""
        event, missing = waiting.event, dict[str, Fate]()
        users = list(dict.fromkeys(event.users or ()))
        for start in range(0, len(users), _AT_ONCE):
            some = users[start:][:_AT_ONCE]
            topics = [personal_topic(user) for user in some]
            marks = zip(topics, await self._marks.of(some), strict=True)
            places = [Place(topic, of.get(topic, UNMARKED)) for topic, of in marks]
            found = await fates(self._broker, Sought(str(event.id), str(event.source)), places)
            judged = zip(some, found, strict=True)
            missing |= {user: each.fate for user, each in judged if not each.fate.reached}
        return missing

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
