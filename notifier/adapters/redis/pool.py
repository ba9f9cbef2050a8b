"""A bounded pool of connections to Redis, which makes a new one in place of each that was lost.

redis-py's own pool keeps an object for each connection, with the password and the certificates
that it had when it was made.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostConnectionError

from notifier.adapters.redis.connection import connection_options, new_connection
from notifier.core.addresses import Address

_Introduce = Callable[[AbstractConnection], Coroutine[Any, Any, str]]


class Pool:
    """Lends at most `most` connections at a time; a caller waits while all of them are lent.

    `introduce` authenticates a new one, and returns the run id of the Redis process behind it.
    Raises ValueError when the address is not a URL of Redis.
    """

    def __init__(self, address: Address, most: int, introduce: _Introduce) -> None:
        connection_options(address.url)
        self._address = address
        self._room = asyncio.Semaphore(most)
        self._introduce = introduce
        self._open: set[AbstractConnection] = set()
        self._idle: list[tuple[AbstractConnection, str]] = []
        self.run_id: str | None = None  # of the current process: the one that we connected to last

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[tuple[AbstractConnection, str]]:
        """Lend a connection to the current process, with that one's run id.

        It is closed if its borrower raises or is cancelled, as replies may be on their way. Raises
        redis-py's errors.
        """
        async with self._room:
            connection, run_id = await self._idle_one() or await self._new_one()
            try:
                yield connection, run_id
            except BaseException:  # cancellation too: replies may be on their way
                await self._drop(connection)
                raise
            if connection.is_connected:
                self._idle.append((connection, run_id))
            else:
                self._open.discard(connection)

    async def _idle_one(self) -> tuple[AbstractConnection, str] | None:
        while self._idle:
            connection, run_id = self._idle.pop()
            if run_id == self.run_id and await _is_quiet(connection):
                return connection, run_id
            await self._drop(connection)  # it was closed, or leads to a former process
        return None

    async def _new_one(self) -> tuple[AbstractConnection, str]:
        found: list[str] = []

        async def introduce(connection: AbstractConnection) -> None:
            found.append(await self._introduce(connection))

        connection = new_connection(self._address, introduce)
        self._open.add(connection)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:  # cancellation too: it would stay open for nobody
            await self._drop(connection)
            raise
        self.run_id = found[-1]
        return connection, self.run_id

    async def _drop(self, connection: AbstractConnection) -> None:
        self._open.discard(connection)
        await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Disconnect, those that are lent too."""
        while self._open:
            await self._drop(next(iter(self._open)))
        self._idle.clear()


async def _is_quiet(connection: AbstractConnection) -> bool:
    """Whether it is open, with nothing left to be read."""
    try:
        return connection.is_connected and not await connection.can_read()
    except (LostConnectionError, OSError):
        return False
