"""The bounds of one gateway: its clients, how fast they come, and the share of each user."""

import asyncio
from collections.abc import Sized
from dataclasses import dataclass

from notifier.core.access import Identity
from notifier.core.errors import Full, TooFast, TooManyConnections, TooManyEvents
from notifier.core.ports import Seats
from notifier.core.rate_limit import RateLimit, RateLimits

_CONNECTS = RateLimit(rate=2_000, burst=5)
_FRAMES = RateLimit(rate=20, burst=10)
_FRAME_BYTES = RateLimit(rate=16 * 1024, burst=10)


@dataclass(frozen=True, slots=True)
class Capacity:
    """The bounds of one gateway: connections at once, and the rate of clients that come in.

    A request over plain HTTP comes in too. `frames` and `frame_bytes` are of each user who posts
    frames that way.
    """

    connections: int = 50_000
    connects: RateLimit = _CONNECTS
    frames: RateLimit = _FRAMES
    frame_bytes: RateLimit = _FRAME_BYTES


class Admission:
    """Lets clients in while there is room; `clients` are those of the gateway.

    Without `seats` connections of users are not counted.
    """

    def __init__(self, capacity: Capacity, seats: Seats | None, clients: Sized) -> None:
        self.capacity = capacity
        self._seats = seats
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._connects_paid = 0.0
        self._posts = RateLimits(capacity.frames)
        self._posted_bytes = RateLimits(capacity.frame_bytes)

    def admit(self, *, stays: bool) -> None:
        """Let one more client come in; raises TooFast, and Full for one that `stays`."""
        if stays:
            self._check_room()
        now = self._loop.time()
        paid = self.capacity.connects.paid(self._connects_paid, now)
        if paid is None:
            raise TooFast
        self._connects_paid = paid

    def _check_room(self) -> None:
        if len(self._clients) >= self.capacity.connections:
            raise Full

    async def seat(self, identity: Identity | None) -> None:
        """Give a client that stays its seat, once its user is known.

        Raises TooManyConnections or Full. The end of the conversation releases the seat; if none is
        opened, call `unseat`. A newcomer gets its seat once its `auth` succeeds.
        """
        if identity is not None:
            await self.take_seat(identity)
        try:
            self._check_room()  # others may have come in meanwhile
        except Full:
            self.unseat(identity)
            raise

    async def take_seat(self, identity: Identity) -> None:
        """Give a client that is in already its seat; raises TooManyConnections."""
        if self._seats is not None and not await self._seats.claim(identity.user):
            raise TooManyConnections("the user has too many connections already")

    def unseat(self, identity: Identity | None) -> None:
        """Give a user's seat back."""
        if self._seats is not None and identity is not None:
            self._seats.release(identity.user)

    def pay_post(self, user: str, size: int) -> None:
        """Let a user post one frame of so many bytes; raises TooManyEvents."""
        now = self._loop.time()
        if not (self._posts.allow(user, now) and self._posted_bytes.allow(user, now, size)):
            frames, bytes_ = self.capacity.frames, self.capacity.frame_bytes
            raise TooManyEvents(
                f"a user posts at most {frames.rate:g} frames and {bytes_.rate:g} bytes a second"
            )
