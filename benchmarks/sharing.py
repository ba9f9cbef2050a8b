"""The row about several gateways behind one port of one machine."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.contenders.contender import Backends, Server
from benchmarks.contenders.notifier import Notifier, publishing
from benchmarks.delivering import WARM_UP, Bench, Values, staying
from benchmarks.machine import SERVER_CORES, cpu_seconds, on_core
from tests.support.process import free_port
from tests.support.roles import service_of

_PROCESSES = (1, 2, 4)


class _Together(Notifier):
    """Gateways that share a port (SO_REUSEPORT), on every core but that of the clients."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self.pids: list[int] = []

    @contextmanager
    def serve(self, backends: Backends) -> Iterator[Server]:
        port = free_port()
        shared = {
            "NOTIFIER_GATEWAY_PORT": str(port),
            "NOTIFIER_GATEWAY_PORT_SHARED": "true" if self._processes > 1 else "false",
        }
        first = service_of(backends.home, backends.amqp_url, backends.redis_url, **shared).gateway
        logs = (backends.home / f"gateway{number}.log" for number in range(1, self._processes))
        gateways = [first, *(first.another(log) for log in logs)]
        with ExitStack() as stack:
            for gateway in gateways:
                stack.callback(gateway.kill)
                with on_core(*SERVER_CORES):
                    gateway.start()
            for gateway in gateways:
                gateway.wait_until_ready()
            self.pids = [gateway.pid for gateway in gateways]
            publish = stack.enter_context(publishing(backends.redis_url))
            yield Server(first.pid, port, publish)

    def cpu_seconds(self) -> float:
        """Return what all of them have used."""
        return sum(map(cpu_seconds, self.pids))


def processes(bench: Bench) -> dict[str, Values]:
    """Broadcast to clients of one, two and four gateways; compare the rates by the clock."""
    found: Values = {}
    for count in _PROCESSES:
        rate, microseconds = _broadcast(_Together(count), bench)
        found |= {f"per_second_{count}": rate, f"microseconds_{count}": microseconds}
    one, most = (found[f"per_second_{count}"] or 0.0 for count in (1, _PROCESSES[-1]))
    return {"processes": {"value": most / one, **found}}


def _broadcast(gateways: _Together, bench: Bench) -> tuple[float, float]:
    """Return deliveries a second, and the CPU time of one in microseconds."""
    connections, count = bench.sizes.connections, bench.sizes.broadcasts
    with staying(gateways, bench, connections - WARM_UP) as stay:
        stay.clients.open(connections - WARM_UP)
        stay.clients.reset()
        stay.broadcast(2, connections)
        stay.clients.reset()
        before = gateways.cpu_seconds()
        stay.broadcast(count, connections)
        cpu, report = gateways.cpu_seconds() - before, stay.clients.so_far()
        return report["deliveries"] / report["seconds"], cpu / report["deliveries"] * 1e6
