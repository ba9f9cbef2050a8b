"""Rows about TLS that the server itself ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import which

from benchmarks.contenders.contender import Contender, TlsFiles, running
from benchmarks.contenders.tutorial import listens
from benchmarks.delivering import WARM_UP, Bench, Stay, Values, costs
from benchmarks.load import load
from benchmarks.machine import CLIENT_CORE, cpu_seconds, resident_bytes
from tests.support.process import free_port
from tests.support.tls import made_pair


def encrypted(contender: Contender, bench: Bench) -> dict[str, Values]:
    """Connect clients over TLS, see what they take while idle, then send events to some of them.

    Each client makes a handshake of its own: none resumes an earlier one.
    """
    count, users, rounds = bench.sizes.encrypted, bench.sizes.users, bench.sizes.rounds
    with _staying(contender, bench, count) as stay:
        pid = stay.server.pid
        memory, cpu = resident_bytes(pid), cpu_seconds(pid)
        with bench.watch("tls-connects", pid):
            report = stay.clients.open(count)
        cpu = cpu_seconds(pid) - cpu
        memory = resident_bytes(pid) - memory
        stay.one_for_each(users)
        stay.clients.reset()
        before, seconds = cpu_seconds(pid), 0.0
        with bench.watch("tls", pid):
            for number in range(rounds):
                seconds += stay.one_for_each(users, number)
        delivering = cpu_seconds(pid) - before
        return {
            "tls": costs(delivering, {**stay.clients.so_far(), "seconds": seconds}),
            "tls-connects": {"value": count / cpu, "per_second": count / report["command"]},
            "tls-memory": {"value": memory / count / 1024},
        }


@contextmanager
def _staying(contender: Contender, bench: Bench, connections: int) -> Iterator[Stay]:
    home = bench.backends.home
    pair, files = made_pair(), TlsFiles(home / "tls.crt", home / "tls.key")
    files.certificate.write_text(pair.certificate)
    files.key.write_text(pair.key)
    users = (f"u{number}" for number in range(connections + WARM_UP))
    handshakes = [contender.handshake(user, alone=True) for user in users]
    marks = (contender.ready, contender.ping, contender.pong)
    with (
        contender.serve(replace(bench.backends, tls=files)) as server,
        _encrypting(server.port, home) as port,
        load(port, handshakes, marks) as clients,
    ):
        clients.open(WARM_UP)
        yield Stay(server, clients)


@contextmanager
def _encrypting(port: int, home: Path) -> Iterator[int]:
    """Give the clients TLS, by HAProxy on their core; yield the port that they connect to."""
    own, file = free_port(), home / "haproxy.cfg"
    file.write_text(
        "global\n    maxconn 8000\n    nbthread 1\n"
        "defaults\n    mode tcp\n    timeout connect 60s\n"
        "    timeout client 1h\n    timeout server 1h\n"
        f"listen clients\n    bind 127.0.0.1:{own}\n"
        f"    server measured 127.0.0.1:{port} ssl verify none no-ssl-reuse\n"
    )
    haproxy = which("haproxy") or "/usr/sbin/haproxy"
    with running([haproxy, "-f", file], home, lambda: listens(own), core=CLIENT_CORE):
        yield own
