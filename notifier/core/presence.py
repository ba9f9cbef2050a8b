"""Presence: the users that are connected, and the members of topics, as gateways tell them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

WHO = "who"
"""The order (`notifier.core.signals`) to answer a `Question`, sent to `GATEWAYS`."""
MOST_USERS = 1_000  # of one question
MOST_SHOWN = 20  # connections of a user that one gateway tells in detail


class Question(Struct, frozen=True):
    """Which of `users` are connected? `detailed` asks for their connections too."""

    id: str
    users: list[str]
    detailed: bool = False


class Seen(Struct, frozen=True):
    """One connection of a user. `since` is RFC 3339; `topics` has how far each has been served."""

    gateway: str
    session: str
    transport: str
    since: str
    topics: dict[str, str]


class Answer(Struct, frozen=True):
    """One gateway's answer: how many connections each user has there, none left out."""

    counts: dict[str, int]
    connections: list[Seen] = []


class Presence(Struct, frozen=True):
    """All gateways' answers. Without `complete` one of them did not answer in time."""

    counts: dict[str, int]
    connections: list[Seen]
    complete: bool


class Exchanged(NamedTuple):
    """The members of topics, as a gateway reads them.

    `gateways` are those heard of lately. `backend` names the backend's life: another one may have
    forgotten all that gateways told before.
    """

    members: dict[str, frozenset[str]]
    gateways: frozenset[str]
    backend: str


_questions = msgspec.json.Decoder(Question)
_answers = msgspec.json.Decoder(Answer)


def encode(message: Question | Answer) -> bytes:
    """Write the bytes that `question_of` and `answer_of` read."""
    return msgspec.json.encode(message)


def question_of(text: bytes) -> Question | None:
    """Read a question; None for one of another version."""
    try:
        return _questions.decode(text)
    except msgspec.DecodeError:
        return None


def answer_of(text: bytes) -> Answer:
    """Read an answer; one of another version says nothing."""
    try:
        return _answers.decode(text)
    except msgspec.DecodeError:
        return Answer({})


def presence_of(users: Sequence[str], answers: Iterable[Answer], *, complete: bool) -> Presence:
    """Put the answers of gateways together."""
    counts = dict.fromkeys(users, 0)
    connections: list[Seen] = []
    for answer in answers:
        connections += answer.connections
        for user, count in answer.counts.items():
            counts[user] = counts.get(user, 0) + count
    return Presence(counts, connections, complete)
