"""A worker that takes the events that are handed back, and the delivery reports."""

import asyncio
import json
from collections.abc import Coroutine, Iterable
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue

from tests.chaos.crew import Crew
from tests.chaos.marks import People
from tests.chaos.producers import AWAY, UNDELIVERED_AFTER
from tests.chaos.reports import Reports
from tests.support.invariants import Complaint, Ledger

_PATIENCE = 60.0
_EARLY = 0.5  # seconds by which an event may come back before its time
_ANSWERING = 5.0

Returned = tuple[str, str]  # event and user


class Returns(Crew):
    """Holds each event that comes back against the ledger, while it is entered.

    An event of a user who is away has to come back. One that a user has marked received in time
    must not; one marked later may.
    """

    def __init__(self, ledger: Ledger, people: People, reports: Reports, amqp: str) -> None:
        super().__init__()
        self.complaints: list[Complaint] = []
        self.ids: dict[Returned, str | None] = {}
        self._ledger = ledger
        self._people = people
        self._reports = reports
        self._amqp = amqp

    def work(self) -> Iterable[Coroutine[Any, Any, None]]:
        """See Crew."""
        return [self._take_all()]

    @property
    def missing(self) -> set[Returned]:
        """The events that have to come back, and have not yet."""
        lanes = self._ledger.lanes.get(f"user:{AWAY}", {}).values()
        wanted = {(name, AWAY) for lane in lanes for name in lane.events[: lane.confirmed]}
        return wanted - self.ids.keys()

    async def settle(self) -> None:
        """Wait until all has come back and is reported; complain of what does not in time."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _PATIENCE
        while self.missing and clock() < deadline:
            self.see_that_all_live()
            await asyncio.sleep(0.05)
        for each in self.missing:
            self._complain(f"{each} did not come back")
            self.ids[each] = None
        await self._reports.settle()

    async def _take_all(self) -> None:
        while True:
            try:
                await self._take_some()
            except AssertionError:
                raise
            except Exception:  # noqa: BLE001  # aio_pika raises anything when RabbitMQ goes
                await asyncio.sleep(0.3)

    async def _take_some(self) -> None:
        """Take until RabbitMQ is away; no queue is bound, so events come to this one."""
        connection = await aio_pika.connect(self._amqp, timeout=_ANSWERING)
        try:
            channel = await connection.channel()
            queue = await channel.get_queue("notifier.unclaimed", ensure=False)
            while True:
                async with asyncio.timeout(_ANSWERING):
                    await self._take_one(queue)
        finally:
            async with asyncio.timeout(_ANSWERING):
                await connection.close()

    async def _take_one(self, queue: AbstractQueue) -> None:
        message = await queue.get(fail=False)
        if message is None:
            await asyncio.sleep(0.1)
            return
        if "notifier-report" in message.headers:
            self._report(message)
        else:
            self._check(message)
        await message.ack()

    def _report(self, message: AbstractIncomingMessage) -> None:
        told = json.loads(message.body)
        assert message.message_id == told["id"], "a report with two ids"
        kind = told["type"].removeprefix("notifier.")
        self._reports.take(told["data"]["id"], told["data"]["user"], kind, told["id"])

    def _check(self, message: AbstractIncomingMessage) -> None:
        user, event = str(message.headers["notifier-user"]), json.loads(message.body)["id"]
        reason = str(message.headers["notifier-reason"])
        if self.ids.setdefault((event, user), message.message_id) != message.message_id:
            self._complain(f"{event} of {user} came back under another id, as {reason}")
        due = self._ledger.posted[event] + UNDELIVERED_AFTER
        if self._people.received_at(user, event) < due - _EARLY:
            self._complain(f"{event}, which {user} had received in time, came back as {reason}")

    def _complain(self, evidence: str) -> None:
        self.complaints.append(Complaint("handed back wrongly", evidence))
