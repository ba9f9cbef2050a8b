"""Judges types, arguments and policies of notifier's queues: which of them lose events."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from notifier.adapters.rabbitmq.topology import ANY_NUMBER, DEAD
from notifier.core.findings import Finding, Level, version_numbers

_MAKE_ANEW = "once it is empty, delete it: a router makes it anew"
_DEFAULT_LIMIT = 20
_FEW_DELIVERIES = 1_000_000
_NO_LIMIT = f"set delivery-limit to {ANY_NUMBER} in the policy, as `notifier topology` prints it"
_NOT_OURS = (
    "leave notifier's queues out of that policy's pattern, or give `notifier-events` and "
    "`notifier-dead`, as `notifier topology` prints them, the higher priority"
)
_IMPORT = "import the policies that `notifier topology` prints"


class Queue(msgspec.Struct, frozen=True):
    """A queue as the management API shows it; without a policy when that is not known yet."""

    name: str
    type: str = "classic"
    arguments: dict[str, Any] | list[Any] = msgspec.field(default_factory=dict)
    effective_policy_definition: dict[str, Any] | list[Any] | None = None
    policy: str | None = None
    operator_policy: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Its options, by the policies' names: its argument, else its policy."""
        arguments = {name.removeprefix("x-"): value for name, value in dict(self.arguments).items()}
        # Of this one, unlike of others, RabbitMQ takes the policy's.
        overflow = {k: v for k, v in self.set_by_policy.items() if k == "overflow"}
        return self.set_by_policy | arguments | overflow

    @property
    def set_by_policy(self) -> dict[str, Any]:
        """The values that its policies set."""
        # An empty table of Erlang's may arrive as an empty list.
        return dict(self.effective_policy_definition or {})

    @property
    def label(self) -> str:
        """Its name, with the policies that hold for it where they are not ours."""
        named = (self.policy, self.operator_policy)
        foreign = [name for name in named if name and not name.startswith("notifier-")]
        return f"{self.name} (policy {' and '.join(foreign)})" if foreign else self.name

    def limit_over(self, default: int) -> int:
        """How often an entry may be delivered: the lower of argument and policy, else `default`."""
        given = [dict(self.arguments).get("x-delivery-limit")]
        given.append(self.set_by_policy.get("delivery-limit"))
        limits = [limit for limit in given if isinstance(limit, int)]
        # A negative one is none, since RabbitMQ 4; with two, the larger then counts.
        if any(limit < 0 for limit in limits):
            return max(limits) if max(limits) >= 0 else _FEW_DELIVERIES
        return min(limits, default=default)

    @property
    def is_limited(self) -> bool:
        """Whether it has a length that it cannot grow over."""
        return bool(self.options.keys() & {"max-length", "max-length-bytes"})

    @property
    def refuses_when_full(self) -> bool:
        """Whether it then takes no more, rather than drop the oldest."""
        return str(self.options.get("overflow")).startswith("reject-publish")


# Level, the queues that break it, the fault, the remedy.
_Rule = tuple[Level, list[Queue], str, str]


def judge_queues(queues: Sequence[Queue], version: str) -> list[Finding]:
    """Judge the types, arguments and policies of notifier's queues in a RabbitMQ of `version`."""
    rules = (*_rules_of_types(queues), *_rules_of_policies(queues, version))
    findings = [
        Finding(level, "rabbitmq queues", f"{_names(broken)}: {text}", mend)
        for level, broken, text, mend in rules
        if broken
    ]
    if queues and not findings:
        findings.append(
            Finding("ok", "rabbitmq queues", "types and policies are as they should be")
        )
    return findings


def _rules_of_types(queues: Sequence[Queue]) -> Iterator[_Rule]:
    shared = [q for q in _events(queues) if not q.options.get("single-active-consumer")]
    yield "error", [q for q in queues if q.type != "quorum"], "not of type quorum", _MAKE_ANEW
    yield (
        "error",
        shared,
        "not with a single active consumer, without which order is lost",
        _MAKE_ANEW,
    )


def _rules_of_policies(queues: Sequence[Queue], version: str) -> Iterator[_Rule]:
    measured = [q for q in queues if q.effective_policy_definition is not None]
    unknown = [q for q in queues if q.effective_policy_definition is None]
    yield "warning", unknown, "RabbitMQ does not know the policy yet", "check again in 10 seconds"
    events = _events(measured)
    dropping = [q for q in events if q.is_limited and not q.refuses_when_full]
    yield "error", dropping, "drops the oldest events when full", "set overflow to reject-publish"
    endless = [q for q in events if not q.is_limited]
    yield "warning", endless, "no max-length: without routers it fills RabbitMQ's disk", _IMPORT
    # RabbitMQ 4 has a limit without being told.
    default = _DEFAULT_LIMIT if version_numbers(version) >= (4,) else _FEW_DELIVERIES
    limited = [q for q in measured if q.limit_over(default) < _FEW_DELIVERIES]
    text = "a delivery-limit puts good entries aside, as each outage is a delivery"
    yield "error", limited, text, _NO_LIMIT
    yield from _rules_of_loss(measured)
    kept = [q for q in measured if q.name == DEAD and "message-ttl" not in q.options]
    yield "warning", kept, "no message-ttl: dead letters stay for ever", _IMPORT


def _rules_of_loss(queues: Sequence[Queue]) -> Iterator[_Rule]:
    events = _events(queues)
    expiring = [q for q in events if "message-ttl" in q.options]
    text = "a message-ttl takes events out of the queue that wait longer, as in an outage"
    yield "error", expiring, text, _NOT_OURS
    deleted = [q for q in queues if "expires" in q.options]
    text = "expires deletes the queue with all that is in it when no router is there"
    yield "error", deleted, text, _NOT_OURS
    elsewhere = [q for q in queues if any(k.startswith("dead-letter") for k in q.set_by_policy)]
    text = "a policy sends dead letters elsewhere; the queue's arguments win where it has any"
    yield "warning", elsewhere, text, _NOT_OURS


def _events(queues: Sequence[Queue]) -> list[Queue]:
    return [queue for queue in queues if queue.name != DEAD]


def _names(queues: Sequence[Queue]) -> str:
    rest = f" and {len(queues) - 1} more" if len(queues) > 1 else ""
    return queues[0].label + rest
