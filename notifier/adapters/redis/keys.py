"""The names that topics and their parts have in Redis. `scripts.py` tells of their contents."""

from base64 import b32encode
from functools import lru_cache
from hashlib import blake2b
from secrets import token_bytes

_PREFIX = "notifier:"


def channel_of(topic: str) -> str:
    """Return the pub/sub channel of a topic."""
    return f"{_PREFIX}{{{topic}}}"


TOPIC = slice(len(_PREFIX) + 1, -1)
"""The topic's part of a pub/sub channel."""


def stream_keys(topic: str) -> tuple[str, ...]:
    """Return the keys of a topic's stream, in the order that the scripts take them."""
    stream = channel_of(topic)
    return f"{stream}:head", f"{stream}:log", f"{stream}:ids", f"{stream}:newest"


@lru_cache(1_000)  # those of one event for many topics
def digest_of(key: str) -> bytes:
    """Return ten bytes that stand for an event's deduplication key."""
    return blake2b(key.encode(), digest_size=10).digest()


def new_epoch() -> str:
    """Return a name for an epoch that nobody has used."""
    return b32encode(token_bytes(5)).decode().lower()
