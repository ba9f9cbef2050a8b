"""Redis behind Sentinel: which server is the current master.

redis-py asks a Sentinel and judges its answer. It is asked anew each time a connection is made, so
a failover ends like any lost connection.
"""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import RedisError

_SUFFIX = "+sentinel"
_PORT = 26379
_ASKING = 0.5  # seconds for one Sentinel: three of them have their turn before a connect is late
_OWN = {"sentinel_username": "username", "sentinel_password": "password"}


def is_named(url: str) -> bool:
    """Whether a URL is one of Sentinels."""
    return url.partition("://")[0].endswith(_SUFFIX)


async def master_url(url: str) -> str:
    """Return the URL of the current master; raises redis-py's ConnectionError, or ValueError."""
    sentinels = Sentinels.of(url)
    return sentinels.url_of(*await sentinels.find_master())


class Sentinels(NamedTuple):
    """The Sentinels that a URL names: their addresses, the master's name, and how to connect."""

    addresses: tuple[tuple[str, int], ...]
    master: str
    options: dict[str, Any]
    parts: tuple[str, str, str, str]  # of the master's URL: scheme, credentials, path, query

    @classmethod
    def of(cls, url: str) -> Self:
        """Read redis+sentinel://user:password@host:port,…/master/db; raises ValueError.

        User and password are those of Redis. Those of Sentinel stand in the query, as
        `sentinel_username` and `sentinel_password`. With rediss+sentinel:// both speak TLS.
        """
        parts = urlsplit(url)
        credentials, at, hosts = parts.netloc.rpartition("@")
        master, _, database = parts.path.strip("/").partition("/")
        if not master:
            raise ValueError("names no master")
        query = dict(parse_qsl(parts.query))
        own = {option: query.pop(name) for name, option in _OWN.items() if name in query}
        scheme = parts.scheme.removesuffix(_SUFFIX)
        if scheme not in ("redis", "rediss"):
            raise ValueError("names no protocol of Redis")
        of_master = (scheme, credentials + at, f"/{database}", urlencode(query))
        addresses = tuple(_address(each) for each in hosts.split(","))
        return cls(addresses, master, {**own, **_encryption(scheme, query)}, of_master)

    @property
    def are_secure(self) -> bool:
        """Whether they speak TLS."""
        return self.parts[0] == "rediss"

    def url_of(self, host: str, port: int) -> str:
        """Return the URL of a server that they watch."""
        scheme, credentials, path, query = self.parts
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return urlunsplit((scheme, credentials + place, path, query, ""))

    async def find_master(self) -> tuple[str, int]:
        """Return the host and port of the current master; raises redis-py's ConnectionError.

        The Sentinels are asked one after another, until one knows of a master that is up.
        """
        for address in self.addresses:
            with suppress(RedisError, OSError):  # the next one may know
                return await self._ask(address)
        raise LostConnectionError(f"no Sentinel knows of a master called {self.master} that is up")

    async def _ask(self, address: tuple[str, int]) -> tuple[str, int]:
        # `socket_timeout` would not bound the whole, and before Python 3.12 redis-py can swallow a
        # cancellation with it.
        options = {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "socket_connect_timeout": _ASKING,  # bounds closing, too
            **self.options,
        }
        client = Sentinel([address], sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        async with client, asyncio.timeout(_ASKING):
            host, port = await client.discover_master(self.master)
        return str(host), int(port)


def _encryption(scheme: str, query: dict[str, str]) -> dict[str, Any]:
    """Return the options of TLS, which are those of the master's URL."""
    options = parse_url(f"{scheme}://master?{urlencode(query)}")
    chosen = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return {"ssl": scheme == "rediss", **chosen}


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("names no host")
    return parts.hostname, parts.port or _PORT
