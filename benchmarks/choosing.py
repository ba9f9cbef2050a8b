"""Rows about the choices of a client: compression, and a hundred topics."""

from benchmarks.contenders.contender import Message, upgrade
from benchmarks.contenders.notifier import Notifier
from benchmarks.delivering import WARM_UP, Bench, Stay, Values, staying
from benchmarks.machine import cpu_seconds, resident_bytes
from tests.support.roles import token

_DATA = 2_000  # bytes: events below 1 KiB are not compressed
_SUBPROTOCOL = "Sec-WebSocket-Protocol: notifier.v1"


class _Compressing(Notifier):
    def handshake(self, user: str, *, alone: bool) -> str:
        del alone
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        return upgrade("/v1/ws", self.authorization(user), _SUBPROTOCOL, offer)


class _Subscribing(Notifier):
    """Its clients follow a hundred topics each, of as many as there are clients."""

    topics_each = 100

    def __init__(self, topics: int) -> None:
        self._topics = topics

    def handshake(self, user: str, *, alone: bool) -> str:
        del alone
        first = int(user[1:])
        wanted = [f"room:{(first + n) % self._topics}" for n in range(self.topics_each)]
        bearer = f"Authorization: Bearer {token(user, 'room:*', seconds=7200)}"
        return upgrade(f"/v1/ws?topics={','.join(wanted)}", bearer, _SUBPROTOCOL)


def compressed(bench: Bench) -> dict[str, Values]:
    """Broadcast events of 2 KB to clients that agreed on compression, then to others."""
    costs = [_cost_of_large_broadcasts(each, bench) for each in (_Compressing(), Notifier())]
    with_it, without = (cost / bench.sizes.connections * 1e6 for cost in costs)
    return {"compressed": {"value": 1e6 / with_it, "microseconds_plain": without}}


def _cost_of_large_broadcasts(contender: Notifier, bench: Bench) -> float:
    """Return the CPU seconds of one."""
    with staying(contender, bench, bench.sizes.connections - WARM_UP) as stay:
        stay.clients.open(bench.sizes.connections - WARM_UP)
        _broadcast(stay, bench, 2)
        before = cpu_seconds(stay.server.pid)
        with bench.watch("compressed", stay.server.pid):
            _broadcast(stay, bench, bench.sizes.broadcasts)
        return (cpu_seconds(stay.server.pid) - before) / bench.sizes.broadcasts


def _broadcast(stay: Stay, bench: Bench, count: int) -> None:
    stay.clients.reset()
    for number in range(1, count + 1):
        stay.server.publish([Message(None, "~" + "0123456789" * (_DATA // 10))])
        stay.clients.until(number * bench.sizes.connections)


def topics(bench: Bench) -> dict[str, Values]:
    """Connect clients that follow a hundred topics each, and see what that takes."""
    count = bench.sizes.members
    with staying(_Subscribing(count), bench, count) as stay:
        pid = stay.server.pid
        memory, cpu = resident_bytes(pid), cpu_seconds(pid)
        with bench.watch("topics", pid):
            stay.clients.open(count)
        cpu, memory = cpu_seconds(pid) - cpu, resident_bytes(pid) - memory
    return {
        "topics": {"value": memory / count / 1024},
        "topic-connects": {"value": count / cpu},
    }
