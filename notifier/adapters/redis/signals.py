"""Signals on a topic's channel: `signal::KIND:NAME:BODY`.

A publication there is `epoch:offset:record`. No number stands where its offset would be, so a
gateway that knows no signals passes them over as foreign messages.
"""

import re

from notifier.core.signals import Kind, Signal

_PAYLOAD = re.compile(rb"signal::(frame|order):([a-z_]{1,64}):(.*)", re.DOTALL)


def payload_of(signal: Signal) -> bytes:
    """Write a signal as `signal_of` reads it."""
    return b"signal::%s:%s:%s" % (signal.kind.encode(), signal.name.encode(), signal.body)


def signal_of(topic: str, payload: bytes) -> Signal | None:
    """Read a signal; None for any other message."""
    if (match := _PAYLOAD.fullmatch(payload)) is None:
        return None
    kind, name, body = match.groups()
    return Signal(topic, Kind(kind.decode()), name.decode(), body)
