"""Orders about users, carried out in this gateway."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress

import structlog

from notifier.core.access import Identity
from notifier.core.backoff import Backoff
from notifier.core.control import LOOK, Act, Moments, Order, Revocations
from notifier.core.errors import CloseCode, TokenRevoked, Unavailable
from notifier.core.frames import Error
from notifier.core.hub import Hub
from notifier.core.names import GATEWAYS, personal_topic
from notifier.core.ports import Broker, Connection, Control
from notifier.core.session import Session

LOOK_EVERY = 1.0  # seconds, where no signal says that there is something
_DISCONNECT_SECONDS = 600  # longer than a backend tells of one
_FIRST_PAUSE = 0.1

_log = structlog.get_logger("notifier.gateway")


class UserOrders:
    """Ends sessions as ordered, and knows whose tokens are revoked; `run` must be running.

    A signal only says that there is something to read. So an order outlives a lost signal, and a
    gateway that was away or has just begun. Revocations are known for `lifetime` seconds.
    """

    def __init__(self, control: Control, broker: Broker, hub: Hub, lifetime: float) -> None:
        self.trouble: str | None = "orders about users are not read yet"
        self._control = control
        self._broker = broker
        self._hub = hub
        self._revoked = Revocations(lifetime)
        self._disconnected = Moments(_DISCONNECT_SECONDS)
        self._asked = asyncio.Event()
        hub.on_order(LOOK, lambda _: self._asked.set())

    def check(self, identity: Identity) -> None:
        """Raise TokenRevoked for the identity of a token that is revoked."""
        if self._revoked.refuse(identity):
            raise TokenRevoked

    async def run(self) -> None:
        """Look for orders for ever: when told to, and each second."""
        backoff = Backoff(_FIRST_PAUSE, LOOK_EVERY)
        while True:
            self._asked.clear()
            try:
                await self._broker.subscribe([GATEWAYS])
                orders = await self._control.orders()
            except Unavailable as error:
                self.trouble = f"orders about users cannot be read: {error}"
                await asyncio.sleep(backoff.next())
                continue
            self._carry_out(orders)
            self.trouble = None
            backoff.reset()
            await self._wait()

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                await self._asked.wait()

    def _carry_out(self, orders: list[Order]) -> None:
        for act, user, moment in orders:
            known = self._revoked if act is Act.REVOKE else self._disconnected
            if not known.take(user, moment):
                continue
            connections = self._hub.connections(personal_topic(user))
            ended = sum([self._end(act, session) for session in sessions_of(user, connections)])
            if ended:
                _log.info("order_carried_out", act=act, user=user, sessions=ended)

    def _end(self, act: Act, session: Session) -> bool:
        if act is Act.DISCONNECT:
            session.end(CloseCode.DISCONNECTED)
            return True
        return self.end_revoked(session)

    def end_revoked(self, session: Session) -> bool:
        """End a session whose token is revoked; return whether it is."""
        try:
            self.check(session.identity)
        except TokenRevoked as error:
            session.connection.send(Error(error.code, str(error)))
            session.end(CloseCode.UNAUTHORIZED)
            return True
        return False


def sessions_of(user: str, connections: Iterable[Connection]) -> Iterator[Session]:
    """Yield the sessions of a user among those of `connections`."""
    for connection in connections:
        session = connection.listener
        # Others may follow that topic too, where their tokens allow it.
        if isinstance(session, Session) and session.identity.user == user:
            yield session
