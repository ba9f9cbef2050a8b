import time
from typing import Any

import pytest

from notifier.adapters.redis.check import check_redis, judge_redis
from notifier.core.findings import Finding

HEALTHY: dict[str, Any] = {
    "redis_version": "7.0.15",
    "cluster_enabled": 0,
    "role": "master",
    "connected_slaves": 1,
    "used_memory": 80,
    "maxmemory": 100,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
}
RECOMMENDED = {
    "stream-node-max-bytes": "1024",
    "client-output-buffer-limit": "normal 0 0 0 slave 1 1 1 pubsub 67108864 16777216 30",
    "min-replicas-to-write": "1",
}


def not_ok(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in findings if finding.level != "ok"]


def with_buffers(limit: str) -> dict[str, str]:
    return RECOMMENDED | {"client-output-buffer-limit": f"normal 0 0 0 pubsub {limit}"}


@pytest.mark.parametrize("address", ["redis://:pa/ss@host/", "redis://:12/ss@host/"])
async def test_a_redis_password_that_breaks_the_address_is_not_printed(address: str) -> None:
    findings = await check_redis(address)

    assert not_ok(findings) == [("error", "the address cannot be read")]


def test_redis_as_recommended_has_no_findings_but_good_ones() -> None:
    assert not_ok(judge_redis(HEALTHY, RECOMMENDED)) == []


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"redis_version": "6.2.14"}, ("error", "Redis 6.2.14 is too old")),
        ({"cluster_enabled": 1}, ("error", "cluster mode is not supported yet")),
        ({"role": "slave"}, ("error", "is a replica: it takes no publications")),
        (
            {"maxmemory_policy": "volatile-ttl"},
            ("error", "maxmemory-policy is volatile-ttl: a full Redis evicts streams silently"),
        ),
        (
            {"used_memory": 81},
            ("warning", "81 % of maxmemory is used; when full, it takes no publications"),
        ),
        (
            {"aof_enabled": 0},
            (
                "warning",
                "appendonly is no: a restart loses history, and clients get gaps",
            ),
        ),
    ],
)
def test_the_answers_of_info_are_judged(changed: dict[str, Any], finding: tuple[str, str]) -> None:
    assert not_ok(judge_redis(HEALTHY | changed, RECOMMENDED)) == [finding]


@pytest.mark.parametrize(("seconds", "side"), [(-3600, "3600 s ahead of"), (3600, "3600 s behind")])
def test_a_clock_that_differs_is_told(seconds: int, side: str) -> None:
    info = HEALTHY | {"server_time_usec": int((time.time() + seconds) * 1_000_000)}

    text = f"this machine's clock is {side} Redis'"
    assert not_ok(judge_redis(info, RECOMMENDED)) == [("warning", text)]


def test_clocks_that_agree_are_told_so() -> None:
    info = HEALTHY | {"server_time_usec": int(time.time() * 1_000_000)}

    finding = Finding("ok", "redis clock", "agrees with this machine's")
    assert finding in judge_redis(info, RECOMMENDED)


def test_the_version_of_valkey_counts_and_not_the_one_it_claims() -> None:
    info = HEALTHY | {"valkey_version": "8.1.0", "redis_version": "6.2.4"}

    assert Finding("ok", "redis version", "Valkey 8.1.0") in judge_redis(info, RECOMMENDED)


def test_memory_without_a_maximum_is_never_full() -> None:
    assert not_ok(judge_redis(HEALTHY | {"maxmemory": 0}, RECOMMENDED)) == []


@pytest.mark.parametrize("size", ["0", "1025", "4096"])
def test_stream_nodes_that_waste_memory_are_named(size: str) -> None:
    findings = judge_redis(HEALTHY, RECOMMENDED | {"stream-node-max-bytes": size})

    assert not_ok(findings) == [
        (
            "warning",
            f"stream-node-max-bytes is {size}: a topic with one event takes 4.3 KB, not 1.3 KB",
        )
    ]


@pytest.mark.parametrize(
    "limit", ["33554432 16777216 30", "67108864 8388608 60", "67108864 16777216 29"]
)
def test_output_buffers_below_the_recommended_are_named(limit: str) -> None:
    findings = judge_redis(HEALTHY, with_buffers(limit))

    assert not_ok(findings) == [
        ("warning", "client-output-buffer-limit cuts off gateways in a burst of events")
    ]


@pytest.mark.parametrize("limit", ["0 0 0", "67108864 16777216 30", "99999999 0 0"])
def test_output_buffers_without_a_limit_or_above_the_recommended_are_good(limit: str) -> None:
    assert not_ok(judge_redis(HEALTHY, with_buffers(limit))) == []


def test_a_master_with_replicas_should_wait_for_one() -> None:
    findings = judge_redis(HEALTHY, RECOMMENDED | {"min-replicas-to-write": "0"})

    assert not_ok(findings) == [
        (
            "warning",
            "min-replicas-to-write is 0: a failover loses events that the old master still takes",
        )
    ]


def test_a_master_without_replicas_need_not_wait() -> None:
    findings = judge_redis(
        HEALTHY | {"connected_slaves": 0}, RECOMMENDED | {"min-replicas-to-write": "0"}
    )

    assert not_ok(findings) == []


def test_settings_missing_from_config_get_are_not_judged() -> None:
    assert not_ok(judge_redis(HEALTHY, {})) == []
