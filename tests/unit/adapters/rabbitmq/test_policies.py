from typing import Any

import pytest
from msgspec.structs import replace

from notifier.adapters.rabbitmq.policies import Queue, judge_queues
from notifier.core.findings import Finding

EVENTS = Queue(
    "notifier.events.0",
    "quorum",
    {"x-queue-type": "quorum", "x-single-active-consumer": True, "x-overflow": "reject-publish"},
    {"max-length": 1000, "delivery-limit": 2**31 - 1},
)
DEAD = Queue("notifier.dead", "quorum", {"x-queue-type": "quorum"}, {"message-ttl": 1000})


def not_ok(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in findings if finding.level != "ok"]


def test_queues_and_policies_as_recommended_are_good() -> None:
    assert judge_queues([EVENTS, DEAD], "3.10.8") == [
        Finding("ok", "rabbitmq queues", "types and policies are as they should be")
    ]


def test_of_queues_that_are_not_there_nothing_is_said() -> None:
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
            "a delivery-limit puts good entries aside, as each outage is a delivery",
        ),
        (
            {"effective_policy_definition": None},
            "warning",
            "RabbitMQ does not know the policy yet",
        ),
    ],
)
def test_each_fault_of_an_event_queue_is_named(
    changed: dict[str, Any], level: str, text: str
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
    version: str, argument: int | None, policy: int | None, *, is_good: bool
) -> None:
    given = {} if argument is None else {"x-delivery-limit": argument}
    set_by_policy = {} if policy is None else {"delivery-limit": policy}
    queue = replace(
        EVENTS,
        arguments={**dict(EVENTS.arguments), **given},
        effective_policy_definition={"max-length": 1000, **set_by_policy},
    )

    assert (not_ok(judge_queues([queue], version)) == []) == is_good


def test_a_policy_decides_on_a_full_queue_where_no_argument_does() -> None:
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
        ({"delivery-limit": 5}, "error", "a delivery-limit puts good entries aside"),
    ],
)
def test_a_foreign_policy_that_loses_events_is_named(
    definition: dict[str, Any], level: str, text: str
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


def test_dead_letters_should_not_stay_for_ever() -> None:
    # An empty table of Erlang's may arrive as a list.
    queue = Queue("notifier.dead", "quorum", [], [])

    assert not_ok(judge_queues([queue], "3.10.8")) == [
        ("warning", "notifier.dead: no message-ttl: dead letters stay for ever")
    ]


def test_one_fault_of_many_queues_is_one_line() -> None:
    partitions = [replace(EVENTS, name=f"notifier.events.{n}", type="classic") for n in range(3)]

    findings = judge_queues(partitions, "3.10.8")

    assert not_ok(findings) == [("error", "notifier.events.0 and 2 more: not of type quorum")]
