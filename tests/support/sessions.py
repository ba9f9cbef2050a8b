"""Sessions and newcomers without a gateway around them, on a clock that a test moves."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from notifier.adapters.memory.marks import MemoryMarks
from notifier.adapters.memory.members import MemoryMembers
from notifier.core.access import Identity
from notifier.core.attendance import Attendance
from notifier.core.badges import Badges
from notifier.core.conversation import Conversation, Terms
from notifier.core.deadlines import Deadlines
from notifier.core.errors import (
    CloseCode,
    NotifierError,
)
from notifier.core.frames import RequestId
from notifier.core.hub import Hub
from notifier.core.newcomer import Newcomer
from notifier.core.ports import Listener
from notifier.core.positions import Position
from notifier.core.publishing import Publishing
from notifier.core.session import Session
from tests.support.brokers import SteeredBroker
from tests.support.clock import quiet
from tests.support.connections import RecordingConnection
from tests.support.observers import RecordingObserver

START = 1_767_225_600.0  # 2026-01-01T00:00:00Z
ANN = Identity("42", START + 3600, ("news", "team:*"))


class House:
    """Fulfils Host; tokens are verified when the test says so."""

    def __init__(self) -> None:
        self.broker = SteeredBroker()
        observer = RecordingObserver()
        self.hub = Hub(self.broker, observer)
        self.badges = Badges(self.hub, self.broker, MemoryMarks(self.broker), observer)
        self.attendance = Attendance(self.hub, MemoryMembers(self.broker), observer)
        self.publishing = Publishing(self.broker, observer)
        self.deadlines = Deadlines(START)
        self.terms = Terms(heartbeat=20.0, auth_timeout=10.0, most_topics=4)
        self.over: list[str] = []
        self.refused: list[str] = []
        self._time = START
        self._asked: list[tuple[Newcomer | Session, str, RequestId | None]] = []

    def now(self) -> float:
        return self._time

    def identify(self, newcomer: Newcomer, token: str, request_id: RequestId | None) -> None:
        self._asked.append((newcomer, token, request_id))

    def identified(self, newcomer: Newcomer, session: Session) -> None:
        assert newcomer.id == session.id
        session.connection.hand_over(session)

    def renew(self, session: Session, token: str, request_id: RequestId | None) -> None:
        self._asked.append((session, token, request_id))

    def refused_frame(self, reason: str) -> None:
        self.refused.append(reason)

    def ended(self, client: Conversation, reason: str) -> None:
        del client
        self.over.append(reason)

    # The tests' verbs.

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self._time += 1
            self.deadlines.tick(self._time)
        await quiet()

    async def verify(self, found: Identity | NotifierError) -> None:
        client, token, request_id = self._asked.pop(0)
        assert token == "t"
        if isinstance(found, Identity):
            client.authenticated(found, request_id)
        else:
            client.refused(found, request_id)
        await quiet()

    @property
    def verifying(self) -> int:
        return len(self._asked)


class Client(RecordingConnection):
    """The other end of a conversation."""

    session: Conversation

    def hand_over(self, listener: Listener) -> None:
        assert isinstance(listener, Conversation)
        self.session = listener

    async def say(self, **frame: object) -> None:
        await self.say_text(json.dumps(frame).encode())

    async def say_text(self, text: bytes) -> None:
        self.session.received(text)
        await quiet()

    async def disconnect(self, code: CloseCode | None = None) -> None:
        self.session.closed(code)
        await quiet()


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    made = House()
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(made.hub.run(), name="hub")
        yield made
        work.cancel()


async def connected(
    host: House,
    who: Identity | None = ANN,
    topics: tuple[str, ...] = (),
    cursor: dict[str, Position] | None = None,
) -> Client:
    client = Client()
    client.hand_over(
        Newcomer(host, client, topics, cursor or {})
        if who is None
        else Session(host, client, who, topics, cursor or {})
    )
    await quiet()
    return client


async def welcomed(host: House, who: Identity = ANN, *topics: str) -> Client:
    """Return a client whose hello is behind it."""
    client = await connected(host, who, topics)
    assert client.types == ["hello"]
    client.forget()
    return client
