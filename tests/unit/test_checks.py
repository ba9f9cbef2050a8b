import time
from typing import Any

import pytest
from msgspec.structs import replace

from notifier.checks import (
    Finding,
    Queue,
    check_rabbitmq,
    check_redis,
    judge_queues,
    judge_redis,
    render,
)

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
EVENTS = Queue(
    "notifier.events.0",
    "quorum",
    {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-overflow": "reject-publish"},
    {"max-length": 1000, "delivery-limit": 2**31 - 1},
)
DEAD = Queue("notifier.dead", "quorum", {"x-queue-type": "quorum"}, {"message-ttl": 1000})


def not_ok(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in findings if finding.level != "ok"]


def with_buffers(limit: str) -> dict[str, str]:
    return RECOMMENDED | {"client-output-buffer-limit": f"normal 0 0 0 pubsub {limit}"}


class TestRender:
    def test_columns_are_aligned_and_what_mends_stands_below(self) -> None:
        findings = [
            Finding("ok", "redis version", "Redis 7"),
            Finding("warning", "redis", "is old", "renew it"),
        ]

        assert render(findings) == (
            "ok       redis version  Redis 7\n"
            "warning  redis          is old\n"
            "                        mend: renew it"
        )

    def test_no_findings_are_no_lines(self) -> None:
        assert render([]) == ""

    def test_the_words_of_a_server_cannot_break_lines_or_steer_the_terminal(self) -> None:
        findings = [Finding("error", "redis", "no\r\n such \x1b[2J thing")]

        assert render(findings) == "error    redis  no such ?[2J thing"


class TestAddresses:
    @pytest.mark.parametrize(
        "address", ["amqp://user:pa/ss@host/", "amqp://user:12/ss@host/", "amqp://user:pa#ss@host/"]
    )
    async def test_an_amqp_password_that_breaks_the_address_is_not_printed(
        self, address: str
    ) -> None:
        findings = await check_rabbitmq(address, partitions=1, management_url=None)

        assert not_ok(findings) == [("error", "the address cannot be read")]

    @pytest.mark.parametrize("address", ["redis://:pa/ss@host/", "redis://:12/ss@host/"])
    async def test_a_redis_password_that_breaks_the_address_is_not_printed(
        self, address: str
    ) -> None:
        findings = await check_redis(address)

        assert not_ok(findings) == [("error", "the address cannot be read")]


class TestRedis:
    def test_redis_as_recommended_has_no_findings_but_good_ones(self) -> None:
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
                    "appendonly is no: a restart loses history, and clients are told of gaps",
                ),
            ),
        ],
    )
    def test_what_info_tells_is_judged(
        self, changed: dict[str, Any], finding: tuple[str, str]
    ) -> None:
        assert not_ok(judge_redis(HEALTHY | changed, RECOMMENDED)) == [finding]

    @pytest.mark.parametrize(
        ("seconds", "side"), [(-3600, "3600 s ahead of"), (3600, "3600 s behind")]
    )
    def test_a_clock_that_differs_is_told(self, seconds: int, side: str) -> None:
        info = HEALTHY | {"server_time_usec": int((time.time() + seconds) * 1_000_000)}

        text = f"this machine's clock is {side} Redis'"
        assert not_ok(judge_redis(info, RECOMMENDED)) == [("warning", text)]

    def test_clocks_that_agree_are_told_so(self) -> None:
        info = HEALTHY | {"server_time_usec": int(time.time() * 1_000_000)}

        finding = Finding("ok", "redis clock", "agrees with this machine's")
        assert finding in judge_redis(info, RECOMMENDED)

    def test_the_version_of_valkey_counts_and_not_the_one_it_claims(self) -> None:
        info = HEALTHY | {"valkey_version": "8.1.0", "redis_version": "6.2.4"}

        assert Finding("ok", "redis version", "Valkey 8.1.0") in judge_redis(info, RECOMMENDED)

    def test_memory_without_a_maximum_is_never_full(self) -> None:
        assert not_ok(judge_redis(HEALTHY | {"maxmemory": 0}, RECOMMENDED)) == []

    @pytest.mark.parametrize("size", ["0", "1025", "4096"])
    def test_stream_nodes_that_waste_memory_are_named(self, size: str) -> None:
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
    def test_output_buffers_below_the_recommended_are_named(self, limit: str) -> None:
        findings = judge_redis(HEALTHY, with_buffers(limit))

        assert not_ok(findings) == [
            ("warning", "client-output-buffer-limit cuts off gateways in a burst of events")
        ]

    @pytest.mark.parametrize("limit", ["0 0 0", "67108864 16777216 30", "99999999 0 0"])
    def test_output_buffers_without_a_limit_or_above_the_recommended_are_good(
        self, limit: str
    ) -> None:
        assert not_ok(judge_redis(HEALTHY, with_buffers(limit))) == []

    def test_a_master_with_replicas_should_wait_for_one(self) -> None:
        findings = judge_redis(HEALTHY, RECOMMENDED | {"min-replicas-to-write": "0"})

        assert not_ok(findings) == [
            (
                "warning",
                "min-replicas-to-write is 0: a failover loses what the old master still takes",
            )
        ]

    def test_a_master_without_replicas_need_not_wait(self) -> None:
        findings = judge_redis(
            HEALTHY | {"connected_slaves": 0}, RECOMMENDED | {"min-replicas-to-write": "0"}
        )

        assert not_ok(findings) == []

    def test_what_config_get_does_not_tell_is_not_judged(self) -> None:
        assert not_ok(judge_redis(HEALTHY, {})) == []


class TestQueues:
    def test_queues_and_policies_as_recommended_are_good(self) -> None:
        assert judge_queues([EVENTS, DEAD], "3.10.8") == [
            Finding("ok", "rabbitmq queues", "types and policies are as they should be")
        ]

    def test_of_queues_that_are_not_there_nothing_is_said(self) -> None:
        assert judge_queues([], "4.2.0") == []

    @pytest.mark.parametrize(
        ("changed", "level", "text"),
        [
            ({"type": "classic"}, "error", "not of type quorum"),
            (
                {"arguments": {"x-overflow": "reject-publish"}},
                "error",
                "not with a single active consumer, without which order is lost",
            ),
            (
                {"arguments": {"x-single-active-consumer": True}},
                "error",
                "drops the oldest events when full",
            ),
            (
                {"effective_policy_definition": {}},
                "warning",
                "no max-length: without routers it fills RabbitMQ's disk",
            ),
            (
                {"effective_policy_definition": {"max-length": 1000, "delivery-limit": 100}},
                "error",
                "a delivery-limit puts aside what an outage gave back, though it is good",
            ),
            (
                {"effective_policy_definition": None},
                "warning",
                "RabbitMQ does not know the policy yet",
            ),
        ],
    )
    def test_each_fault_of_an_event_queue_is_named(
        self, changed: dict[str, Any], level: str, text: str
    ) -> None:
        findings = judge_queues([replace(EVENTS, **changed)], "3.10.8")

        assert not_ok(findings) == [(level, f"notifier.events.0: {text}")]

    @pytest.mark.parametrize(
        ("version", "argument", "policy", "is_good"),
        [
            ("3.10.8", None, None, True),
            ("4.0.5", None, None, False),
            ("4.0.5", 2**31 - 1, None, True),
            ("4.0.5", 2**31 - 1, 5, False),
            ("4.0.5", None, 2**31 - 1, True),
            ("4.0.5", None, -1, True),
            ("4.0.5", -1, 5, False),
            ("4.0.5", 5, 2**31 - 1, False),
        ],
    )
    def test_the_delivery_limit_that_holds_is_judged(
        self, version: str, argument: int | None, policy: int | None, *, is_good: bool
    ) -> None:
        given = {} if argument is None else {"x-delivery-limit": argument}
        set_by_policy = {} if policy is None else {"delivery-limit": policy}
        queue = replace(
            EVENTS,
            arguments={**dict(EVENTS.arguments), **given},
            effective_policy_definition={"max-length": 1000, **set_by_policy},
        )

        assert (not_ok(judge_queues([queue], version)) == []) == is_good

    def test_a_policy_says_what_happens_when_full_where_no_argument_does(self) -> None:
        queue = replace(
            EVENTS,
            arguments={"x-single-active-consumer": True},
            effective_policy_definition={
                "max-length": 1000,
                "overflow": "reject-publish",
            },
        )

        assert not_ok(judge_queues([queue], "3.10.8")) == []

    @pytest.mark.parametrize(
        ("definition", "level", "text"),
        [
            ({"message-ttl": 60000}, "error", "a message-ttl takes events out of the queue"),
            ({"expires": 60000}, "error", "expires deletes the queue with all that is in it"),
            ({"overflow": "drop-head"}, "error", "drops the oldest events when full"),
            ({"dead-letter-exchange": "x"}, "warning", "a policy sends dead letters elsewhere"),
            ({"consumer-timeout": 10000}, "warning", "a low consumer-timeout cuts off a router"),
            ({"delivery-limit": 5}, "error", "a delivery-limit puts aside"),
        ],
    )
    def test_a_foreign_policy_that_loses_events_is_named(
        self, definition: dict[str, Any], level: str, text: str
    ) -> None:
        queue = replace(
            EVENTS,
            effective_policy_definition={"max-length": 1000, **definition},
            policy="everything",
            operator_policy="house rules",
        )

        [found] = not_ok(judge_queues([queue], "3.10.8"))

        assert found[0] == level
        assert found[1].startswith(f"notifier.events.0 (policy everything and house rules): {text}")

    def test_dead_letters_should_not_stay_for_ever(self) -> None:
        # An empty table of Erlang's may arrive as a list.
        queue = Queue("notifier.dead", "quorum", [], [])

        assert not_ok(judge_queues([queue], "3.10.8")) == [
            ("warning", "notifier.dead: no message-ttl: dead letters stay for ever")
        ]

    def test_one_fault_of_many_queues_is_one_line(self) -> None:
        partitions = [
            replace(EVENTS, name=f"notifier.events.{n}", type="classic") for n in range(3)
        ]

        findings = judge_queues(partitions, "3.10.8")

        assert not_ok(findings) == [("error", "notifier.events.0 and 2 more: not of type quorum")]
