import json
import re
from typing import Any

import pytest

from notifier.adapters.rabbitmq.topology import (
    ENTRANCE,
    ENTRANCE_BINDING,
    Binding,
    definitions,
    returns,
    topology,
)
from notifier.core.undelivered import DELAYS


def queue_names(partitions: int) -> list[str]:
    return [queue.name for queue in topology(partitions).queues]


def exchange_names(partitions: int) -> list[str]:
    return [exchange.name for exchange in topology(partitions).exchanges]


def bindings_from(source: str, partitions: int) -> list[Binding]:
    return [binding for binding in topology(partitions).bindings if binding.source == source]


def policies_for(queue: str) -> list[dict[str, Any]]:
    policies: Any = definitions(1)["policies"]
    return [policy for policy in policies if re.search(policy["pattern"], queue)]


def test_all_that_producers_publish_goes_on_to_an_exchange_of_our_own() -> None:
    assert Binding("notifier.events", "notifier.entries", "#", to_exchange=True) == ENTRANCE_BINDING


def test_one_partition_is_bound_directly_and_needs_no_plugin() -> None:
    assert exchange_names(1) == [
        "notifier.unroutable",
        "notifier.dead",
        "notifier.entries",
    ]
    assert bindings_from("notifier.entries", 1) == [
        Binding("notifier.entries", "notifier.events.0", "")
    ]


def test_several_partitions_are_bound_to_an_exchange_that_hashes() -> None:
    assert "notifier.partitions" in exchange_names(3)
    assert bindings_from("notifier.entries", 3) == [
        Binding("notifier.entries", "notifier.partitions", "", to_exchange=True)
    ]
    assert [binding.destination for binding in bindings_from("notifier.partitions", 3)] == [
        "notifier.events.0",
        "notifier.events.1",
        "notifier.events.2",
    ]


@pytest.mark.parametrize(("partitions", "other"), [(1, 3), (3, 1)])
def test_the_way_of_another_number_of_partitions_is_taken_away(partitions: int, other: int) -> None:
    assert topology(partitions).stale[0] in bindings_from("notifier.entries", other)


def test_there_is_a_queue_for_each_partition_for_dead_letters_and_for_the_unroutable() -> None:
    assert queue_names(2) == [
        "notifier.dead",
        "notifier.aside",
        "notifier.unroutable",
        "notifier.events.0",
        "notifier.events.1",
    ]


@pytest.mark.parametrize("delay", DELAYS)
def test_an_entry_that_has_waited_becomes_an_entry_again_and_none_is_lost(delay: int) -> None:
    name = f"notifier.waiting.{delay}"
    [arguments] = [queue.arguments for queue in returns().queues if queue.name == name]

    assert arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 2**31 - 1,
        "x-message-ttl": delay * 1000,
        "x-dead-letter-exchange": "notifier.entries",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    assert Binding("notifier.waiting", name, f"{delay}.#") in returns().bindings


def test_an_event_that_no_queue_takes_back_is_kept() -> None:
    ways = {e.name: e.arguments.get("alternate-exchange") for e in returns().exchanges}

    assert ways == {
        "notifier.waiting": "notifier.unroutable",
        "notifier.unclaimed": None,
        "notifier.undelivered": "notifier.unclaimed",
        "notifier.reports": "notifier.unclaimed",
    }


@pytest.mark.parametrize("partitions", [1, 3])
def test_entries_that_an_exchange_of_producers_cannot_route_go_to_the_unroutable(
    partitions: int,
) -> None:
    wanted = topology(partitions)
    exchanges = (*wanted.exchanges, ENTRANCE)
    ways = {e.name: e.arguments.get("alternate-exchange") for e in exchanges}

    assert ways.pop("notifier.events") == "notifier.unroutable"
    assert ways.pop("notifier.entries") == "notifier.unroutable"
    assert ways.pop("notifier.partitions", "notifier.unroutable") == "notifier.unroutable"
    assert set(ways.values()) == {None}


@pytest.mark.parametrize("name", ["notifier.events.0", "notifier.unroutable"])
def test_a_consumed_queue_loses_nothing_and_has_one_consumer_at_a_time(name: str) -> None:
    [arguments] = [queue.arguments for queue in topology(1).queues if queue.name == name]

    assert arguments == {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-delivery-limit": 2**31 - 1,  # else RabbitMQ 4 puts aside what outages gave back
        "x-dead-letter-exchange": "notifier.dead",
        "x-dead-letter-routing-key": "notifier.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_every_queue_has_one_policy_for_its_tunable_limits() -> None:
    names = [*queue_names(2), *(queue.name for queue in returns().queues)]

    assert [policies_for(name)[0]["name"] for name in names] == [
        "notifier-dead",
        *["notifier-events"] * 8,
        "notifier-dead",
    ]
    assert {len(policies_for(name)) for name in names} == {1}


def test_dead_letters_are_kept_for_seven_days() -> None:
    [policy] = policies_for("notifier.dead")

    assert policy["definition"]["message-ttl"] == 7 * 24 * 60 * 60 * 1000


def test_definitions_are_json_for_the_virtual_host_named() -> None:
    file: Any = json.loads(json.dumps(definitions(3, "events")))

    assert set(file) == {"exchanges", "queues", "bindings", "policies"}
    assert {thing["vhost"] for things in file.values() for thing in things} == {"events"}


def test_definitions_hold_the_whole_topology() -> None:
    file: Any = definitions(3)

    back = returns()
    assert [queue["name"] for queue in file["queues"]] == [
        *queue_names(3),
        *(queue.name for queue in back.queues),
    ]
    assert [exchange["name"] for exchange in file["exchanges"]] == [
        *exchange_names(3),
        *(exchange.name for exchange in back.exchanges),
        "notifier.events",
    ]
    assert len(file["bindings"]) == len(topology(3).bindings) + 1 + len(back.bindings)
