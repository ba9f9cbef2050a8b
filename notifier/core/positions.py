"""The place of a client in a topic's stream: positions, and cursors made of them."""

import re
from collections.abc import Mapping
from secrets import token_hex
from typing import NamedTuple, Self

from notifier.core.errors import Invalid
from notifier.core.names import checked_topic

PATTERN = r"([0-9a-z]{1,16})\.(0|[1-9][0-9]{0,15})"
_POSITION = re.compile(PATTERN)
# A hundred topics with names and positions of full length fit; anything longer is not ours.
LONGEST_CURSOR = 20_000
_UNKNOWN = "unknown"


class Position(NamedTuple):
    """The place behind the `offset`-th publication of a stream's life called `epoch`.

    Offsets count 1, 2, 3 … without holes; 0 is the place before the first. Positions of different
    epochs cannot be compared: another epoch means that this is not the stream that was known.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}"

    @classmethod
    def unknown(cls) -> Self:
        """Return the place of a topic that could not be read: no other place, nor another such."""
        return cls(_UNKNOWN + token_hex(4), 0)

    @property
    def is_unknown(self) -> bool:
        """Whether it was made by `unknown`; epochs of streams have eight characters."""
        return self.epoch.startswith(_UNKNOWN) and len(self.epoch) > len(_UNKNOWN) + 1

    @classmethod
    def parse(cls, text: str, field: str = "since") -> Self:
        """Read `epoch.offset`, or `start` for START; raises Invalid for `field`."""
        match = _POSITION.fullmatch(text)
        if match is None and text == START.epoch:
            return cls(*START)
        if match is None:
            raise Invalid(field, "a position looks like k3x9q2.17, as frames carry it")
        return cls(match[1], int(match[2]))


# Of a topic that has no stream. Epochs of streams have eight characters, so that a client that
# reconnects with it once there is a stream gets a gap: another may have come and gone meanwhile.
NOWHERE = Position("none", 0)
# The position of a client that wants all that history holds, wherever that begins.
START = Position("start", 0)


def parse_cursor(text: str) -> dict[str, Position]:
    """Read `topic@epoch.offset,topic@epoch.offset`; empty text is an empty one; raises Invalid.

    A topic may contain `@` (as in `user:ann@example.org`), so the last one of an item separates.
    No item is passed over: a client with a position must not silently begin anew.
    """
    if len(text) > LONGEST_CURSOR:
        raise Invalid("since", f"a cursor has at most {LONGEST_CURSOR} characters")
    cursor: dict[str, Position] = {}
    for item in text.split(",") if text else ():
        topic, position = _parse_item(item)
        if topic in cursor:
            raise Invalid("since", f"has two positions for topic {topic}")
        cursor[topic] = position
    return cursor


def _parse_item(text: str) -> tuple[str, Position]:
    topic, separator, position = text.rpartition("@")
    if not separator:
        raise Invalid("since", "a cursor looks like user:42@k3x9q2.17,news@c81fz0.9")
    try:
        checked_topic(topic, "since")
    except Invalid as error:
        raise Invalid("since", f"a topic's name {error.reason}") from error
    return topic, Position.parse(position)


def format_cursor(positions: Mapping[str, Position | str]) -> str:
    """Write a cursor as `parse_cursor` reads it; positions may be text already."""
    return ",".join(f"{topic}@{position}" for topic, position in positions.items())
