"""The fate of an event towards each of its users."""

from notifier.core.errors import unfailed
from notifier.core.events import Event
from notifier.core.fate import Fate, Place, Sought, fates
from notifier.core.marks import UNMARKED
from notifier.core.names import personal_topic
from notifier.core.ports import Broker, Marks

_AT_ONCE = 50  # users whose history is read in one round trip


class UsersFates:
    """Reads how far events came: from the users' streams and marks of this moment."""

    def __init__(self, broker: Broker, marks: Marks) -> None:
        self.now = broker.now
        self._broker = broker
        self._marks = marks

    async def of(self, event: Event) -> dict[str, Fate]:
        """Return the fate towards each user, in the order of the event's; raises Unavailable."""
        sought = Sought(str(event.id), str(event.source))
        users, found = list(dict.fromkeys(event.users or ())), dict[str, Fate]()
        for start in range(0, len(users), _AT_ONCE):
            some = users[start:][:_AT_ONCE]
            topics = [personal_topic(user) for user in some]
            marks = zip(topics, unfailed(await self._marks.of(some)), strict=True)
            places = [Place(topic, of.get(topic, UNMARKED)) for topic, of in marks]
            judged = zip(some, await fates(self._broker, sought, places), strict=True)
            found |= {user: each.fate for user, each in judged}
        return found
