"""Errors of RabbitMQ and its clients, in the adapter's own types and words."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity, DeliveryError, PublishError
from aiormq.exceptions import ChannelAccessRefused

REMEDY = (
    "give the user this right (rabbitmqctl set_permissions, or set_topic_permissions where the "
    "words name a topic); docs/operating.md#topology lists those that each role needs"
)


class TopologyError(Exception):
    """RabbitMQ lacks something that this user cannot make; the text names the remedy."""


class Lost(Exception):
    """The connection cannot be used, or no longer; the text says why."""


class Vanished(Lost):
    """A queue or an exchange is gone; `queue` is its name where it is known."""

    def __init__(self, reason: str, queue: str = "") -> None:
        super().__init__(reason)
        self.queue = queue


@contextmanager
def losses() -> Iterator[None]:
    """Raise Lost in place of each error that aio-pika passes on from aiormq.

    When a connection ends, aiormq raises the reason in all that wait for it: the server's words, a
    bare Exception, or, after missed heartbeats, a CancelledError that nobody asked for. Such an
    error may also hide a CancelledError that a task's owner did ask for.
    """
    try:
        yield
    except asyncio.CancelledError:
        honour_cancellation()
        raise Lost("it fell silent") from None
    except Exception as error:
        honour_cancellation()
        if type(error) is not Exception and not isinstance(error, _EXPECTED):
            raise
        kind = Vanished if isinstance(error, _GONE) else Lost
        raise kind(_in_words(error)) from error


_GONE = (ChannelNotFoundEntity, PublishError)
_EXPECTED = (AMQPError, OSError, RuntimeError, TopologyError)


def _in_words(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "it does not answer in time"
        case PublishError():
            return f"it has no queue for the publication: {error}"
        case DeliveryError():
            return "it refuses the publication: is the queue full?"
        case ChannelAccessRefused():
            return f"{error}; {REMEDY}"
        case RuntimeError():  # about a channel that is closed
            return "the connection was lost"
        case _:
            return str(error) or "it closed the connection"


def honour_cancellation() -> None:
    """Raise the CancelledError of this task's owner, in case aiormq has swallowed it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
