"""Signals: told to the followers that a topic has at this moment, and to nobody later.

A signal has no position and no history. It is never recovered, and a client that does not keep up
is the first to miss it. So a signal may only carry facts that a later one or a read makes
good: a badge, a presence, somebody typing, an order to look again.
"""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """The receivers of a signal."""

    FRAME = "frame"
    """The clients that follow the topic: they get `body` as it is."""
    ORDER = "order"
    """The gateways that have such clients: each calls the handler of `name`, if it has one."""


class Signal(NamedTuple):
    """One signal. `name` is the frame's type or the order's name, 1 to 64 of `a-z _`.

    `body` is the JSON of the frame on one line, or anything that the order's handler reads.
    """

    topic: str
    kind: Kind
    name: str
    body: bytes = b""
