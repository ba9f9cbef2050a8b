"""Presence on Redis: a question is a signal to the gateways, their answers are a list.

    notifier:answers:ID    list: what each gateway answered to the question of this id

Redis says how many gateways it told, so the asker knows when it has heard all of them. Nothing is
kept about who is connected, so connections cost nothing, and a dead gateway's are gone with it.
"""

import asyncio
import secrets
from collections.abc import Sequence

from notifier.adapters.redis.commands import ScriptAdapter
from notifier.adapters.redis.keys import channel_of
from notifier.adapters.redis.scripts import Script
from notifier.adapters.redis.signals import payload_of
from notifier.core.names import GATEWAYS, personal_topic
from notifier.core.presence import (
    WHO,
    Answer,
    Presence,
    Question,
    answer_of,
    encode,
    presence_of,
)
from notifier.core.signals import Kind, Signal

_PATIENCE = 1.0  # seconds for all gateways to answer
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05  # seconds between looks at the answers
_ANSWERS_SECONDS = 10

# Scripts, though the first two have one command: a master that has become a replica refuses them.
# It would take a plain PUBLISH, deliver it to nobody, and everyone would seem to be away.
_ASK = Script(
    "presence_ask",
    """#!lua flags=allow-oom
-- KEYS: answers
-- ARGV: run, channel, question
-- Returns the number of gateways that got the question.
return redis.call("PUBLISH", ARGV[2], ARGV[3])
""",
    keys=1,
)
_HEAR = Script(
    "presence_hear",
    """#!lua flags=allow-oom
-- KEYS: answers
-- ARGV: run
-- Returns the answers.
return redis.call("LRANGE", KEYS[1], 0, -1)
""",
    keys=1,
)
_ANSWER = Script(
    "presence_answer",
    """#!lua
-- KEYS: answers
-- ARGV: run, answer, seconds to keep it
redis.call("RPUSH", KEYS[1], ARGV[2])
redis.call("EXPIRE", KEYS[1], ARGV[3])
return 1
""",
    keys=1,
)


class RedisPresenceQueries(ScriptAdapter):
    """Fulfils `notifier.core.ports.PresenceQueries` while it is entered.

    `url` is as for RedisBroker.
    """

    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        """See PresenceQueries."""
        question = Question(secrets.token_hex(8), list(users), detailed)
        # Only gateways where somebody follows a user's topic can have that user.
        topic = personal_topic(users[0]) if len(users) == 1 else GATEWAYS
        signal = Signal(topic, Kind.ORDER, WHO, encode(question))
        call = (_key_of(question.id), channel_of(topic), payload_of(signal))
        told = int(await self._commands.run_one(_ASK, *call))
        answers = await self._hear(question.id, told)
        return presence_of(users, answers, complete=len(answers) >= told)

    async def _hear(self, question: str, told: int) -> list[Answer]:
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + _PATIENCE, _SHORTEST_PAUSE
        answers: list[bytes] = []
        while len(answers) < told and loop.time() < until:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            answers = await self._commands.run_one(_HEAR, _key_of(question))
        return [answer_of(each) for each in answers]

    async def answer(self, question: str, answer: Answer) -> None:
        """See PresenceQueries."""
        call = (_key_of(question), encode(answer), _ANSWERS_SECONDS)
        await self._commands.run_one(_ANSWER, *call)


def _key_of(question: str) -> str:
    return f"notifier:answers:{question}"
