"""The audience of an event, as topics. Pure: the router does the rest."""

from msgspec import UNSET

from notifier.core.events import Event
from notifier.core.names import EVERYONE, personal_topic


def topics_of(event: Event) -> list[str]:
    """Return the topics of an event, each once; raises ValueError without an audience."""
    if event.topic is not UNSET:
        return [event.topic]
    if event.users is not UNSET:
        return list(dict.fromkeys(map(personal_topic, event.users)))
    if event.everyone is not UNSET:
        return [EVERYONE]
    raise ValueError("an event without an audience: it is for nobody, and not for everyone")
