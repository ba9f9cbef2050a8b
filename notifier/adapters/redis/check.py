"""Asks Redis whether it is reachable and fit. See `notifier.core.findings`."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from redis import exceptions as redis_errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from notifier.adapters.redis import sentinel
from notifier.core.findings import (
    PATIENCE,
    TOO_LATE,
    Finding,
    password_in_clear,
    place_of,
    unreadable_address,
    version_numbers,
)

_REDIS_URL = "NOTIFIER_REDIS_URL"
_MEND_SENTINELS = f"correct {_REDIS_URL}: redis+sentinel://host:26379,host:26379/master"
_CONFIG = ("stream-node-max-bytes", "client-output-buffer-limit", "min-replicas-to-write")
_RIGHTS = "resetchannels ~notifier:* &notifier:* +@all -@dangerous +info +config|get"
_SMALL_NODE = 1024
_TOLERATED_CLOCK = 5.0  # seconds
_MIB = 1024 * 1024
# No topic is named by an asterisk, so nobody follows this one.
_NO_TOPIC = "notifier:{*}"
# A full Redis refuses the first write only. The expiry is for a user without the right to delete.
_REHEARSAL = """
redis.call('PUBLISH', ARGV[1], '')
redis.call('XADD', KEYS[1], '*', 'r', '')
redis.call('EXPIRE', KEYS[1], 1)
redis.call('DEL', KEYS[1])
"""


async def check_redis(url: str) -> list[Finding]:
    """Return findings about the Redis or Valkey at `url`, or about the master that Sentinels name.

    `url` is as for RedisBroker.
    """
    if not sentinel.is_named(url):
        return await _check_server(url)
    try:
        master = await sentinel.master_url(url)
    except ValueError:  # its text may quote a part of the password
        return [Finding("error", "redis", "the address cannot be read", _MEND_SENTINELS)]
    except RedisError as error:
        return [Finding("error", "redis", str(error), _MEND_SENTINELS)]
    return await _check_server(master)


async def _check_server(url: str) -> list[Finding]:
    try:
        place, client = place_of(url), _client(url)
    except ValueError:
        return [unreadable_address("redis", _REDIS_URL)]
    findings = password_in_clear("redis", url, _REDIS_URL) if urlsplit(url).password else []
    try:
        async with client:
            for step in (_ping, _inspect, _rehearse_publication, _rehearse_subscription):
                async with asyncio.timeout(PATIENCE):
                    findings += await step(client, place)
    # RuntimeError: uvloop raises it for a connection that the other side has just closed.
    except (TimeoutError, OSError, UnicodeError, RuntimeError, RedisError) as error:
        findings.append(_failure(place, error))
    return findings


def _client(url: str) -> Redis:
    return Redis.from_url(
        url,
        decode_responses=True,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=PATIENCE,
        socket_timeout=PATIENCE,
    )


def _failure(place: str, error: Exception) -> Finding:
    text, mend = f"{place} is out of reach: {error}", f"start Redis, or correct {_REDIS_URL}"
    if isinstance(error, redis_errors.AuthenticationError):
        text = f"{place} refuses the user or the password: {error}"
        mend = f"correct the user and the password in {_REDIS_URL}"
    elif isinstance(error, TimeoutError | redis_errors.TimeoutError):
        text = f"{place} gave {TOO_LATE}"
    elif isinstance(error, ResponseError):
        text = f"{place} refuses a client like this one: {error}"
        mend = f"correct {_REDIS_URL}, or give the user the rights {_RIGHTS}"
    return Finding("error", "redis", text, mend)


async def _ping(client: Redis, place: str) -> list[Finding]:
    await client.ping()
    return [Finding("ok", "redis", f"{place} answers")]


async def _inspect(client: Redis, _: str) -> list[Finding]:
    try:
        info = await client.info("everything")
    except ResponseError as error:
        return [_not_checked("version, role, memory and persistence", error)]
    try:
        answer = await client.config_get(*_CONFIG)
    except ResponseError as error:
        return [*judge_redis(info, {}), _not_checked(", ".join(_CONFIG), error)]
    return judge_redis(info, {str(name): str(value) for name, value in answer.items()})


def _not_checked(subjects: str, error: Exception) -> Finding:
    mend = f"look at them yourself, or give the user the rights {_RIGHTS}"
    return Finding("warning", "redis", f"not checked: {subjects} ({error})", mend)


async def _rehearse_publication(client: Redis, _: str) -> list[Finding]:
    try:
        await client.eval(_REHEARSAL, 1, f"{_NO_TOPIC}:check", _NO_TOPIC)
    except ResponseError as error:
        text = f"refuses the script of a publication: {error}"
        return [Finding("error", "redis scripts", text, _mend_refusal(error))]
    return [Finding("ok", "redis scripts", "takes the script of a publication")]


def _mend_refusal(error: ResponseError) -> str:
    match error:
        case redis_errors.OutOfMemoryError():
            return "raise maxmemory, or lower NOTIFIER_INBOX_SIZE or NOTIFIER_HISTORY_SIZE"
        case redis_errors.ReadOnlyError():
            return f"name the master in {_REDIS_URL}"
        case _ if "permission" in str(error) or "can't" in str(error):
            return f"give the user the rights {_RIGHTS}"
        case _:
            return "follow these words; Redis' own log says more"


async def _rehearse_subscription(client: Redis, _: str) -> list[Finding]:
    async with client.pubsub() as subscriber:
        try:
            await subscriber.subscribe(_NO_TOPIC)
            await subscriber.get_message(timeout=PATIENCE)
        except redis_errors.NoPermissionError as error:
            mend = f"give the user the rights {_RIGHTS}"
            return [Finding("error", "redis pub/sub", f"refuses to subscribe: {error}", mend)]
    return [Finding("ok", "redis pub/sub", "takes a subscription")]


def judge_redis(info: Mapping[str, Any], config: Mapping[str, str]) -> list[Finding]:
    """Judge the answers to INFO and CONFIG GET; a setting that `config` lacks is not judged."""
    return [
        *_judge_server(info),
        *_judge_clock(info, time.time()),
        *_judge_memory(info),
        *_judge_config(config, info),
    ]


def _judge_clock(info: Mapping[str, Any], now: float) -> Iterator[Finding]:
    if (told := info.get("server_time_usec")) is None:
        return
    ahead = now - int(told) / 1_000_000
    if abs(ahead) <= _TOLERATED_CLOCK:
        yield Finding("ok", "redis clock", "agrees with this machine's")
    else:
        side = "ahead of" if ahead > 0 else "behind"
        text = f"this machine's clock is {abs(ahead):.0f} s {side} Redis'"
        mend = "set both by NTP: tokens expire by this clock, events by Redis'"
        yield Finding("warning", "redis clock", text, mend)


def _judge_server(info: Mapping[str, Any]) -> Iterator[Finding]:
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version", info.get("redis_version")))
    if version_numbers(version) < (7,):
        text = f"{product} {version} is too old"
        yield Finding("error", "redis version", text, "use Redis 7, Valkey 7.2 or newer")
    else:
        yield Finding("ok", "redis version", f"{product} {version}")
    if info.get("cluster_enabled"):
        mend = "use a single Redis with replicas"
        yield Finding("error", "redis cluster", "cluster mode is not supported yet", mend)
    if info.get("role", "master") != "master":
        mend = f"name the master in {_REDIS_URL}"
        yield Finding("error", "redis role", "is a replica: it takes no publications", mend)


def _judge_memory(info: Mapping[str, Any]) -> Iterator[Finding]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding("ok", "redis memory", "maxmemory-policy is noeviction")
    else:
        text = f"maxmemory-policy is {policy}: a full Redis evicts streams silently"
        yield Finding("error", "redis memory", text, "set maxmemory-policy noeviction")
    used, most = info.get("used_memory", 0), info.get("maxmemory", 0)
    if used > 0.8 * most > 0:
        text = f"{100 * used // most} % of maxmemory is used; when full, it takes no publications"
        yield Finding("warning", "redis memory", text, "raise maxmemory")
    if not info.get("aof_enabled"):
        text = "appendonly is no: a restart loses history, and clients get gaps"
        mend = "set appendonly yes and appendfsync everysec"
        yield Finding("warning", "redis persistence", text, mend)


def _judge_config(config: Mapping[str, str], info: Mapping[str, Any]) -> Iterator[Finding]:
    node, buffer, replicas = (config.get(name) for name in _CONFIG)
    if node is not None and not 0 < int(node) <= _SMALL_NODE:
        text = f"stream-node-max-bytes is {node}: a topic with one event takes 4.3 KB, not 1.3 KB"
        yield Finding("warning", "redis memory", text, "set stream-node-max-bytes 1024")
    if buffer is not None and not _buffers_enough(buffer):
        text = "client-output-buffer-limit cuts off gateways in a burst of events"
        mend = "set client-output-buffer-limit pubsub 64mb 16mb 30"
        yield Finding("warning", "redis pub/sub", text, mend)
    if replicas == "0" and info.get("connected_slaves"):
        text = "min-replicas-to-write is 0: a failover loses events that the old master still takes"
        yield Finding("warning", "redis replicas", text, "set min-replicas-to-write 1")


def _buffers_enough(limits: str) -> bool:
    """Judge `normal 0 0 0 slave … pubsub <hard> <soft> <seconds>`, in bytes; 0 is no limit."""
    hard, soft, seconds = map(int, limits.partition("pubsub")[2].split()[:3])
    lasts = soft == 0 or seconds == 0 or (soft >= 16 * _MIB and seconds >= 30)  # noqa: PLR2004  # as recommended
    return lasts and (hard == 0 or hard >= 64 * _MIB)
