"""The ports between the roles and the world. Each docstring is the promise adapters keep.

An adapter is one module in `notifier.adapters`; to add one, write it, add a line to
`notifier.wiring.parts` and a parameter to the port's suite in `tests/contract`.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from notifier.core.access import Identity
from notifier.core.control import Act, Order
from notifier.core.entries import Entry
from notifier.core.errors import CloseCode, Failed, NotifierError, Unavailable
from notifier.core.frames import ServerFrame
from notifier.core.history import History, Published, Question
from notifier.core.marks import Mark, Move
from notifier.core.presence import Answer, Exchanged, Presence
from notifier.core.publications import NewPublication, Publication
from notifier.core.reports import DeliveryReport
from notifier.core.signals import Signal
from notifier.core.undelivered import HandedBack


class Dependency(Protocol):
    """Anything that readiness asks."""

    @property
    def trouble(self) -> str | None:
        """The reason why it cannot work now, in words an operator can act on; None if it can."""


# The event queue: each event is taken once, as a delivery, then acked or dead-lettered.


class EventQueue(Dependency, Protocol):
    """The producers' end of the event queue."""

    async def put(self, entry: Entry) -> None:
        """Return once the entry is persisted and routed; may be called many times at once.

        Raises Unavailable within ten seconds when that cannot be known. The entry may then arrive
        all the same, so a caller that retries keeps the event's id.
        """

    async def put_each(self, entries: Sequence[Entry]) -> list[Unavailable | None]:
        """Put many at once, in order; return for each the error that `put` raises, or None."""


class Delivery(Protocol):
    """One entry taken from the event queue, unsettled until it is acked or dead-lettered."""

    @property
    def entry(self) -> Entry:
        """The entry; raises Invalid where a foreign producer's properties cannot be read."""


class Bad(NamedTuple):
    """A delivery that becomes a dead letter: the short name of the error, and its sentence."""

    delivery: Delivery
    code: str
    reason: str


class Batch(Protocol):
    """Deliveries in the order of the queue, to be settled together."""

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """At least one."""

    async def dead_letter(self, bad: Sequence[Bad]) -> list[Unavailable | None]:
        """Keep copies of deliveries that cannot be understood, with the reason; `ack` settles them.

        Returns for each None, or Unavailable when the copy is not known to be kept.
        """

    def allow_next(self) -> None:
        """Allow the next batch to come before this one is settled; the caller keeps their order."""

    async def is_ours(self) -> bool:
        """Whether the deliveries are still to be settled here, and come to nobody else.

        To be asked before each try to publish them. Returns at once, but where this process stood
        still or has heard nothing for some seconds: then it waits for the queue to say so.
        """

    async def ack(self) -> None:
        """Settle all deliveries, and no others. Raises Unavailable when they will come again."""


class EventSource(Dependency, Protocol):
    """The routers' end of the event queue."""

    def batches(self) -> AsyncIterator[Batch]:
        """Yield batches for ever, reconnecting by itself.

        The next batch of a partition comes after this one is settled, or has called `allow_next`.
        Every entry that is not settled comes again, in order. Batches of several partitions may be
        open at once.
        """

    def stop(self) -> None:
        """Begin no further batch; `batches` then ends.

        Each partition passes to another router as soon as its batch is settled.
        """

    async def wait(self, entries: Sequence[tuple[Entry, int]]) -> None:
        """Have each entry delivered once more after its delay, one of `undelivered.DELAYS`.

        Returns once they are kept. Raises Unavailable when that is not known; repeated, some may
        come twice.
        """

    async def hand_back(self, events: Sequence[HandedBack]) -> None:
        """Return once each is kept for the producers' consumers.

        Raises Unavailable when that is not known; repeated, some may come twice.
        """

    async def report(self, reports: Sequence[DeliveryReport]) -> None:
        """Do the same with delivery reports."""

    @property
    def partitions(self) -> Sequence[str]:
        """The partitions that this router takes from now, in their order; not as a standby."""


class Roster(Protocol):
    """The routers at work, which share the partitions out between them.

    It is advice: routers that disagree do the work unevenly, never twice or in disorder.
    """

    async def announce(self, router: str) -> frozenset[str]:
        """Say that `router` is at work; return all that are, itself among them.

        To be repeated every second: a router that was silent for five seconds is gone. Raises
        Unavailable when that is not known; the last answer is then the best guess.
        """

    async def withdraw(self, router: str) -> None:
        """Say that `router` is gone; raises Unavailable, and it then goes by itself."""


# The broker: live fan-out between processes, and history, behind one atomic publish.


class BrokerListener(Protocol):
    """Hears of publications in followed topics. Its methods return at once and never raise."""

    def on_publication(self, publication: Publication) -> None:
        """Hear of one publication. Usually in order; never rely on it: the position tells."""

    def on_signal(self, signal: Signal) -> None:
        """Hear of one signal, in no order with publications; it may also be lost."""

    def on_interruption(self, topics: Iterable[str]) -> None:
        """Hear that publications of these topics may have been lost since just now."""


class Broker(Dependency, Protocol):
    """Streams of publications, one a topic."""

    def now(self) -> float:
        """Return Unix seconds by the clock that publications expire by, one for all processes."""

    def listen(self, listener: BrokerListener) -> None:
        """Set the listener that hears of publications; once, before the first `subscribe`."""

    async def publish(self, batch: Sequence[NewPublication]) -> list[Published | NotifierError]:
        """Publish each to its topic, in the order given, each atomically.

        Atomically: drop it if the topic has seen its key within the deduplication window, else
        take the next offset, append to history and send to all followers. An item's answer is
        Refused where repeating is pointless, and Failed where it may help; then those behind it in
        its topic are Failed too, and not published. It is Unavailable where its outcome is not
        known: repeat that item, duplicates are recognised. Raises Unavailable if none is known.
        """

    async def signal(self, signals: Sequence[Signal]) -> list[NotifierError | None]:
        """Tell each signal to those who follow its topic now, in the order given.

        The answer of one that was not sent is the error that it failed by. Raises Unavailable when
        it is not known whether they were sent. Nobody can tell whether a signal arrived.
        """

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Return when it is certain that the listener hears of each publication from now on.

        Raises Unavailable; the topics are then followed as soon as possible, or unfollowed again.
        """

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """Stop hearing of these topics, at the latest some time after returning."""

    async def read(self, questions: Sequence[Question]) -> list[History]:
        """Answer each question, hundreds of them in one round trip; raises Unavailable.

        A question that fails by itself is answered by a history with its `failure`.
        Reading begins the stream of a topic that has none, and keeps a stream's head from
        expiring. Where it must not begin one (`Since.begins`), the head is NOWHERE. An epoch lasts
        no longer than the life of the broker's process, as a new process may have older data; the
        next one continues it, up to the last offset that is still there.
        """

    async def published_at(self, topics: Sequence[str], key: str) -> list[float | None]:
        """Return when each topic took a publication of this deduplication key, in Unix seconds.

        None where that is not remembered; it is for the deduplication window at least. Raises
        Unavailable, also where only some of them failed.
        """


class Marks(Protocol):
    """The marks of each user, in all topics."""

    async def move(self, moves: Sequence[Move]) -> list[Mark | NotifierError]:
        """Make each move, in the order given, and return the marks that come of them.

        Each is made as `Mark.moved` says, atomically, and refused with the errors named there; with
        TooMany also where the user has marks in 256 topics. Where something was read, the followers
        of the user's personal topic get an order `marks`, whose body is the topic. Raises
        Unavailable when their outcome is not known: repeating a move changes nothing.
        """

    async def of(self, users: Sequence[str]) -> list[dict[str, Mark] | Failed]:
        """Return each user's marks by their topic, hundreds of users in one round trip.

        They stay as long as the longest history they speak of. Raises Unavailable.
        """


# Connections and tokens.


class Listener(Protocol):
    """The client's end of a conversation, as a connection calls it."""

    def received(self, text: bytes) -> None:
        """Answer a text message."""

    def heard(self) -> None:
        """Note any other sign of life."""

    def ready(self) -> None:
        """Hear that the connection has room again."""

    def flooded(self, what: str, most: float) -> None:
        """Close, as more `frames` or `bytes` came in than the `most` a second."""

    def closed(self, code: CloseCode | None = None) -> None:
        """Hear that the connection is gone; the last call. A code: the connection gave up."""


class Connection(Protocol):
    """The way of bytes to a session's client. No method blocks, raises, or calls the session back.

    `encode` makes of a publication the bytes that `write` sends. Connections with the same
    `encode` share those bytes, so it is a function of the kind of connection, not of this one.
    """

    @property
    def transport(self) -> str:
        """The name of this kind of connection in metrics and logs: `websocket`, `sse`, `poll`."""

    @property
    def encode(self) -> Callable[[Publication], bytes]:
        """The encoding of publications on this kind of connection."""

    @property
    def listener(self) -> Listener | None:
        """The listener that is called back; None before `hand_over`, and once it is gone."""

    @property
    def has_room(self) -> bool:
        """Whether its client keeps up; when it does again, `Listener.ready` is called."""

    def write(self, data: bytes, publication: Publication) -> None:
        """Send the bytes that `encode` made. A client that reads too slowly is closed with 4002."""

    def write_all(self, publications: Sequence[Publication]) -> None:
        """Encode and send publications, by one system call where the transport can."""

    def send(self, frame: ServerFrame) -> None:
        """Send a frame."""

    def ping(self) -> bool:
        """Provoke a sign of life; False where the client has no way to give one."""

    def hand_over(self, listener: Listener) -> None:
        """Call `listener` back from now on."""

    def close(self, code: CloseCode) -> None:
        """Flush, then close; a client that does not read has some seconds to take the rest."""


class TokenVerifier(Dependency, Protocol):
    """Turns a token into an identity."""

    async def verify(self, token: str) -> Identity:
        """Return the identity of a token; raises Unauthorized, or Unavailable (`issuer`)."""


class Seats(Protocol):
    """Counts each user's connections over all gateways, and bounds them.

    It keeps misuse out and is no lock: while the count is unavailable, every user is let in.
    """

    async def claim(self, user: str) -> bool:
        """Count one more connection of the user; False, and not counted, if the bound is reached.

        Never raises Unavailable. If the count does not answer within 2 s, the user is let in; later
        calls return at once until it answers again.
        """

    def release(self, user: str) -> None:
        """Count one less, soon; once for each `claim` that returned True.

        Ten seconds after a gateway died its connections count no more.
        """


class Control(Protocol):
    """Orders about users: an api gives them, and every gateway carries them out."""

    async def give(self, act: Act, user: str) -> Order:
        """Return once the order is kept for every gateway, and a signal has asked them to look.

        Raises Unavailable when that is not known: give it again.
        """

    async def orders(self) -> list[Order]:
        """Return the orders given since the last call, at the first call all that still hold.

        Some may come again. Raises Unavailable.
        """


class PresenceQueries(Protocol):
    """Questions to all gateways about connected users, and their answers."""

    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        """Ask all gateways which of these users, at least one, are connected.

        `detailed` asks for the connections too, at most 20 a gateway. A gateway that does not
        answer within a second is left out, and the answer is then not complete. Raises Unavailable.
        """

    async def answer(self, question: str, answer: Answer) -> None:
        """Answer the question of this id for one gateway; raises Unavailable."""


class Members(Protocol):
    """The members of topics: each gateway tells its own, and reads those of all."""

    async def exchange(self, own: Mapping[str, Collection[str]]) -> Exchanged:
        """Tell this gateway's members of each topic, and return those of all gateways.

        They replace those that it told before, as a whole; where they differ, the followers of the
        topic get an order `members`. To be called each second, also without topics: a gateway
        that was not heard of for five seconds counts no more. A topic that fails by itself is
        left out. Raises Unavailable when the outcome is not known: repeating it changes nothing.
        """


@dataclass(frozen=True, slots=True)
class SharedPorts:
    """The ports that all processes meet at: on Redis, or in the memory of one process."""

    broker: Broker
    marks: Marks
    members: Members
    control: Control
    presence_queries: PresenceQueries


class Observer(Protocol):
    """Counts the hub's work. Called on the hot path, once a publication, not once a client."""

    def fanned_out(self, followers: int, delay: float) -> None:
        """`followers` were written to, `delay` seconds after the event was accepted.

        It is negative where the clock that told the acceptance is ahead.
        """

    def recovered(self, publications: int) -> None:
        """One client that reconnected was sent so many missed publications."""

    def expired(self, publications: int) -> None:
        """So many publications were not delivered because their time was over."""

    def gap(self, reason: str, sessions: int) -> None:
        """`sessions` got a gap."""

    def hole(self) -> None:
        """A live publication did not follow the one before it; history is asked."""
