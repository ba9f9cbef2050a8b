"""The delivery reports that have to come, and those that must not."""

import asyncio
from collections.abc import Iterator

from tests.chaos.marks import People
from tests.chaos.producers import COLLAPSING, EXPIRING, REPORTED, SHORT_LIFE
from tests.support.invariants import Complaint, Kind, Ledger

# RabbitMQ retries after three minutes to return a copy that a full queue rejected: 177.4 s after
# there was room again, on 3.10.8 and on 4.0.5.
_PATIENCE = 200.0
_SOON = 20.0  # seconds that a round waits for a report which is not due yet
_FINAL = {EXPIRING: "expired", COLLAPSING: "superseded"}  # by the lane of an event

Step = tuple[str, str, str]  # event, user, report


class Reports:
    """Holds each report against the ledger, and against the marks that users have made.

    A report is due when its event is as old again as it was at the step. Where Redis loses data,
    an event may end as `beyond_history`, and marks say nothing.
    """

    def __init__(self, ledger: Ledger, people: People, *, keeps: bool) -> None:
        self.complaints: list[Complaint] = []
        self.ids: dict[Step, str | None] = {}
        self._ledger = ledger
        self._people = people
        self._keeps = keeps
        self._clock = asyncio.get_running_loop().time
        self._since = 0.0

    def forget(self) -> None:
        """Expect nothing more of the events so far: queues with their copies are deleted."""
        self._since = self._clock()

    def take(self, event: str, user: str, kind: str, message_id: str) -> None:
        """Take a report that has come."""
        if self.ids.setdefault((event, user, kind), message_id) != message_id:
            self._complain("reports doubled", f"{kind} of {event} for {user}, under another id")
        if why := self._fault(event, user, kind):
            self._complain("reports wrong", f"{kind} of {event} for {user}, {why}")

    async def settle(self) -> None:
        """Wait for the reports that are due now or soon; complain of those that do not come."""
        deadline = self._clock() + _SOON
        awaited = {step for step, due in self._due() if due < deadline and not self._has(step)}
        while awaited and self._clock() < deadline + _PATIENCE:
            await asyncio.sleep(0.05)
            awaited = {step for step in awaited if not self._has(step)}
        for event, user, kind in awaited:
            self._complain("reports missing", f"{kind} of {event} for {user}")
            self.ids[event, user, kind] = None

    def _has(self, step: Step) -> bool:
        event, user, kind = step
        if step in self.ids or self._keeps:
            return step in self.ids
        if kind == "superseded" and all(self._is_lost(each, user) for each in self._behind(step)):
            return True
        return kind in _FINAL.values() and self._is_lost(event, user)

    def _is_lost(self, event: str, user: str) -> bool:
        """Whether Redis has lost an event of a ground that does not keep them."""
        return (event, user, "beyond_history") in self.ids

    def _behind(self, step: Step) -> list[str]:
        """The later events of the same lane: one that Redis has lost supersedes none."""
        event, user, _ = step
        lane, number = self._ledger.places[f"user:{user}", event]
        return self._ledger.lanes[f"user:{user}"][lane].events[number + 1 :]

    def _due(self) -> Iterator[tuple[Step, float]]:
        """The steps that have to be reported, and when."""
        for event, user in self._reported():
            posted = self._ledger.posted[event]
            moments = {"published": posted, **self._steps(event, user)}
            for kind, at in moments.items():
                yield (event, user, kind), at + max(1.0, at - posted)

    def _reported(self) -> Iterator[tuple[str, str]]:
        """The confirmed events with reports, and their users."""
        for topic, lanes in self._ledger.lanes.items():
            for lane in lanes.keys() & {REPORTED, EXPIRING, COLLAPSING}:
                for event in lanes[lane].events[: lanes[lane].confirmed]:
                    if self._ledger.posted[event] > self._since:
                        yield event, topic.removeprefix("user:")

    def _steps(self, event: str, user: str) -> dict[str, float]:
        lane, later = self._place(event, user)
        if lane == REPORTED:
            return self._people.steps_of(user, event)
        if lane == EXPIRING:
            return {"expired": self._ledger.posted[event] + SHORT_LIFE}
        return {"superseded": self._ledger.posted[later]} if later else {}

    def _place(self, event: str, user: str) -> tuple[object, str | None]:
        """The lane of an event, and the next one there."""
        lane, number = self._ledger.places[f"user:{user}", event]
        after = self._ledger.lanes[f"user:{user}"][lane].events[number + 1 :][:1]
        return lane, after[0] if after else None

    def _fault(self, event: str, user: str, kind: str) -> str | None:
        """The reason why a report must not be, if there is one."""
        if (f"user:{user}", event) not in self._ledger.places:
            return "which is not for this user"
        lane, later = self._place(event, user)
        if kind == "published" or (kind == "beyond_history" and not self._keeps):
            return None
        if lane == REPORTED:
            is_step = kind in ("received", "read")
            return None if is_step and self._people.may_have(user, event, kind) else "no mark says"
        if kind != _FINAL.get(str(lane)) or (kind == "superseded" and not later):
            return "which cannot be"
        early = self._ledger.posted[event] + SHORT_LIFE > self._clock()
        return "before its time was over" if kind == "expired" and early else None

    def _complain(self, kind: Kind, evidence: str) -> None:
        self.complaints.append(Complaint(kind, evidence))
