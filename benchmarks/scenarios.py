"""Which measurement gives which rows, and of whom."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from benchmarks import (
    choosing,
    delivering,
    encrypting,
    gathering,
    marking,
    routing,
    rows,
    sharing,
    stalling,
)
from benchmarks.contenders import ALL
from benchmarks.contenders.bare import Bare
from benchmarks.contenders.centrifugo import Centrifugo
from benchmarks.contenders.contender import Contender
from benchmarks.contenders.notifier import Notifier
from benchmarks.contenders.socketio import NodeSocketIo
from benchmarks.delivering import Bench, Values
from benchmarks.rows import IN_BATCHES, NOTIFIER, ONE_BY_ONE, ROUND_TRIPS, Row

Measure = Callable[[Bench], dict[str, Values]]


class Scenario(NamedTuple):
    """The work of each contender, and the rows that come of it."""

    rows: tuple[Row, ...]
    measures: Mapping[str, Measure]
    needs_rabbitmq: bool = False


def _bare_broadcast(bench: Bench) -> dict[str, Values]:
    # It knows neither users nor tokens: its memory and its connects compare with nothing.
    return {"broadcast": delivering.crowd(Bare(), bench)["broadcast"]}


def _of_all(measure: Callable[[Contender, Bench], dict[str, Values]]) -> dict[str, Measure]:
    return {each.name: partial(measure, each) for each in ALL if each.name != Bare.name}


def _routing(row: Row, measure: Measure, peers: Mapping[str, Measure] = {}) -> Scenario:
    return Scenario((row,), {NOTIFIER: measure, **peers}, needs_rabbitmq=True)


_latency = routing.Latency()
SCENARIOS = (
    Scenario(
        (rows.BROADCAST, rows.MEMORY, rows.CONNECTS),
        {**_of_all(delivering.crowd), Bare.name: _bare_broadcast},
    ),
    Scenario((rows.UNICAST,), _of_all(delivering.unicast)),
    _routing(
        rows.ROUTER,
        routing.router,
        {
            ONE_BY_ONE: routing.consumer,
            IN_BATCHES: partial(routing.consumer, module="batch_consumer"),
        },
    ),
    _routing(rows.AUDIENCE, routing.audience),
    _routing(rows.API, routing.api, {IN_BATCHES: routing.publisher}),
    _routing(rows.LATENCY, _latency.notifier, {ROUND_TRIPS: _latency.bare}),
    Scenario(
        (rows.GROWTH,),
        {**_of_all(delivering.growth), Bare.name: partial(delivering.growth, Bare())},
    ),
    Scenario((rows.SLOW,), _of_all(delivering.slow)),
    Scenario((rows.RETURNING, rows.LEAVING), {NOTIFIER: stalling.returning}),
    _routing(rows.HOLD_UP, stalling.hold_up),
    Scenario((rows.EVERYONE,), {NOTIFIER: stalling.everyone}),
    Scenario((rows.COMPRESSED,), {NOTIFIER: choosing.compressed}),
    Scenario(
        (rows.TLS, rows.TLS_CONNECTS, rows.TLS_MEMORY),
        {
            each.name: partial(encrypting.encrypted, each)
            for each in ALL
            if isinstance(each, Notifier | Centrifugo | NodeSocketIo)
        },
    ),
    Scenario((rows.TOPICS, rows.TOPIC_CONNECTS), {NOTIFIER: choosing.topics}),
    Scenario((rows.MARKS,), {NOTIFIER: marking.marks}),
    Scenario((rows.RECOUNT,), {NOTIFIER: marking.recount}),
    Scenario((rows.PRESENCE,), {NOTIFIER: gathering.presence}),
    Scenario((rows.CHAT,), {NOTIFIER: gathering.chat}),
    Scenario((rows.PROCESSES,), {NOTIFIER: sharing.processes}),
)
