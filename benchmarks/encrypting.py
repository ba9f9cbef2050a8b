"""Rows about TLS that the server itself ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import which

from benchmarks.contenders.contender import Contender, TlsFiles, running
from benchmarks.contenders.tutorial import listens
from benchmarks.delivering import Bench, Values, staying
from benchmarks.machine import CLIENT_CORE
from tests.support.process import free_port
from tests.support.tls import made_pair


def encrypted(contender: Contender, bench: Bench) -> dict[str, Values]:
    """Connect clients over TLS, see what they take while idle, then send events to some of them.

    Each client makes a handshake of its own: none resumes an earlier one.
    """
    home, sizes = bench.backends.home, bench.sizes
    bench = replace(bench, backends=replace(bench.backends, tls=_written(home)))
    door = partial(_encrypting, home=home)
    with staying(contender, bench, sizes.encrypted, alone=True, door=door) as stay:
        pid = stay.server.pid
        with (
            bench.watch("tls-memory", pid),
            bench.watch("tls-connects", pid),
        ):
            connects, memory = stay.cost_of_connects(sizes.encrypted)
        stay.one_for_each(sizes.users)
        with bench.watch("tls", pid):
            deliveries = stay.cost_of_unicast(sizes.users, sizes.rounds)
        return {"tls": deliveries, "tls-connects": connects, "tls-memory": memory}


def _written(home: Path) -> TlsFiles:
    pair, files = made_pair(), TlsFiles(home / "tls.crt", home / "tls.key")
    files.certificate.write_text(pair.certificate)
    files.key.write_text(pair.key)
    return files


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
