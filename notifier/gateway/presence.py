"""The answers of this gateway to questions about connected users."""

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from notifier.core.dates import iso
from notifier.core.errors import Unavailable
from notifier.core.hub import Hub
from notifier.core.names import personal_topic
from notifier.core.ports import PresenceQueries
from notifier.core.presence import MOST_SHOWN, WHO, Answer, Question, Seen, question_of
from notifier.core.session import Session
from notifier.core.signals import Signal
from notifier.gateway.orders import sessions_of

Start = Callable[[Coroutine[Any, Any, None], str], object]

_MOST_AT_ONCE = 100  # answers under way; a client without one asks again

_log = structlog.get_logger("notifier.gateway")


class PresenceResponder:
    """Answers questions about users by the sessions of this gateway.

    `start` runs work in a task of that name; `name` is the gateway's.
    """

    def __init__(
        self, presence_queries: PresenceQueries, hub: Hub, name: str, start: Start
    ) -> None:
        self._presence_queries = presence_queries
        self._hub = hub
        self._name = name
        self._start = start
        self._under_way = 0
        hub.on_order(WHO, self._asked)

    def _asked(self, signal: Signal) -> None:
        question = question_of(signal.body)
        if question is not None and self._under_way < _MOST_AT_ONCE:
            self._under_way += 1
            self._start(self._answer(question), f"presence {question.id}")

    async def _answer(self, question: Question) -> None:
        try:
            await self._presence_queries.answer(question.id, self._seen(question))
        except Unavailable as error:
            _log.info("presence_not_answered", reason=str(error))
        finally:
            self._under_way -= 1

    def _seen(self, question: Question) -> Answer:
        counts = Counter[str]()
        shown: list[Seen] = []
        for user in question.users:
            for session in sessions_of(user, self._hub.followers(personal_topic(user))):
                counts[user] += 1
                if question.detailed and len(shown) < MOST_SHOWN:
                    shown.append(self._detail(session))
        return Answer(counts, shown)

    def _detail(self, session: Session) -> Seen:
        positions = {topic: self._hub.position(topic) for topic in session.topics}
        return Seen(
            self._name,
            session.id,
            session.connection.transport,
            iso(session.since),
            {topic: str(position or "") for topic, position in positions.items()},
        )
