"""Redis behind Sentinel: connections that ask anew who is master, each time they are made.

redis-py's own classes for this bring a pool of theirs, and clients of each Sentinel that somebody
has to close. The question is one command, asked only when a connection is made.
"""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import RedisError

_SUFFIX = "+sentinel"
_PORT = 26379
_ASKING = 0.5  # seconds for one Sentinel: three of them have their turn before a connect is late
# Without socket_timeout, as redis-py then sends by `wait_for`, which before Python 3.12 can swallow
# a cancellation; `find_master` limits the time.
_PLAINLY = {"protocol": 2, "retry": Retry(NoBackoff(), 0), "socket_timeout": None}
_OWN = {"sentinel_username": "username", "sentinel_password": "password"}


class Sentinels(NamedTuple):
    """Where Sentinels are, what they call the master, and how they are connected to."""

    addresses: tuple[tuple[str, int], ...]
    master: str
    kind: type[Connection]
    options: dict[str, Any]

    async def find_master(self) -> tuple[str, int]:
        """Return the master's host and port; raises redis-py's ConnectionError."""
        for host, port in self.addresses:
            with suppress(RedisError, OSError):  # the next one may know
                async with asyncio.timeout(_ASKING):
                    if found := await self._ask(host, port):
                        return found
        raise LostConnectionError(f"no Sentinel knows of a master called {self.master}")

    async def _ask(self, host: str, port: int) -> tuple[str, int] | None:
        connection = self.kind(host=host, port=port, **self.options)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master)
            answer: Any = await connection.read_response(disable_decoding=True)
        finally:
            await connection.disconnect(nowait=True)
        return (answer[0].decode(), int(answer[1])) if answer else None


class _ToMaster:
    """A connection of redis-py's to whoever is master when it connects."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:  # noqa: ANN401 - redis-py's
        self._sentinels = sentinels
        super().__init__(**options)

    async def connect(self) -> None:
        """Find the master, and connect to it."""
        if not self.is_connected:  # type: ignore[attr-defined] # of the other class
            self.host, self.port = await self._sentinels.find_master()
        await super().connect()  # type: ignore[misc] # of the other class


class MasterConnection(_ToMaster, Connection):
    """Without TLS."""


class SecureMasterConnection(_ToMaster, SSLConnection):
    """With TLS, to Sentinels too."""


def is_named(url: str) -> bool:
    """Whether a URL is one of Sentinels."""
    return url.partition("://")[0].endswith(_SUFFIX)


async def master_url(url: str) -> str:
    """Return the URL of the present master; raises redis-py's ConnectionError, or ValueError."""
    sentinels: Sentinels = options_of(url)["sentinels"]
    host, port = await sentinels.find_master()
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    query = urlencode([each for each in parse_qsl(parts.query) if each[0] not in _OWN])
    database = parts.path.strip("/").partition("/")[2]
    scheme = parts.scheme.removesuffix(_SUFFIX)
    return urlunsplit((scheme, f"{credentials}{at}{place}", f"/{database}", query, ""))


def options_of(url: str) -> dict[str, Any]:
    """Return what redis-py's pools take, of redis+sentinel://user:password@host:port,…/master/db.

    User and password are those of Redis; `sentinel_username` and `sentinel_password` in the query
    are those of Sentinel. Raises ValueError.
    """
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    master, _, database = parts.path.strip("/").partition("/")
    if not master:
        raise ValueError("names no master")
    query = dict(parse_qsl(parts.query))
    own = {option: query.pop(name) for name, option in _OWN.items() if name in query}
    scheme = parts.scheme.removesuffix(_SUFFIX)
    plain = f"{scheme}://{credentials}{at}master/{database}?{urlencode(query)}"
    options: dict[str, Any] = {**parse_url(plain)}
    encryption = {name: value for name, value in options.items() if name.startswith("ssl_")}
    sentinels = Sentinels(
        tuple(_address(each) for each in hosts.split(",")),
        master,
        SSLConnection if scheme == "rediss" else Connection,
        {**encryption, **own, **_PLAINLY},
    )
    kind = SecureMasterConnection if scheme == "rediss" else MasterConnection
    return {**options, "connection_class": kind, "sentinels": sentinels}


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("names no host")
    return parts.hostname, parts.port or _PORT
