"""Machines in bad shape: a small disk, a wrong clock, little memory, a network that drops packets.

All but the clock need root on Linux.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest


def faked_clock(ahead: int) -> dict[str, str]:
    """The environment of a process whose wall clock is so many seconds ahead."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.fail("A wrong clock needs libfaketime: apt-get install faketime.", pytrace=False)
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": f"+{ahead}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",  # as it was called before
    }


@contextmanager
def small_disk(at: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at an empty folder."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "notifier-test", str(at))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(at))


@contextmanager
def little_memory(pid: int, size: int) -> Iterator[None]:
    """A control group in which a process has so many bytes, and is killed where it takes more."""
    group, limit = _memory_group()
    group = group / f"notifier-test-{pid}"
    group.mkdir()
    try:
        (group / limit).write_text(str(size))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for survivor in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(survivor)
        group.rmdir()


def _memory_group() -> tuple[Path, str]:
    """Where groups that bound memory are made, and the name of the bound: version 1, else 2."""
    first = Path("/sys/fs/cgroup/memory")
    if first.is_dir():
        return first, "memory.limit_in_bytes"
    return Path("/sys/fs/cgroup"), "memory.max"


_FORMER_NETWORK = "TEST_FORMER_NETWORK"  # the id of the network namespace that was left


def has_own_network() -> bool:
    """Whether this process was begun anew in a network of its own."""
    return os.environ.get(_FORMER_NETWORK, _network()) != _network()


def begin_anew_in_own_network(*command: str) -> NoReturn:
    """Become a command in a network namespace with nothing but loopback; needs root on Linux."""
    os.environ[_FORMER_NETWORK] = _network()
    shell = ["sh", "-c", 'ip link set lo up && exec "$@"', "chaos", *command]
    os.execvp("unshare", ["unshare", "--net", *shell])  # noqa: S606  # tests' own command


def _network() -> str:
    return str(Path("/proc/self/ns/net").readlink())


@contextmanager
def narrow_network(rate: str) -> Iterator[None]:
    """Let loopback drop what comes faster than a rate; only in a network namespace of one's own."""
    if not has_own_network():
        pytest.fail("Dropping packets needs a network of one's own: run `make chaos` as root.")
    _run("ip", "link", "set", "lo", "mtu", "1500")  # as between machines
    _run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", *_SMALL_BUFFERS, "rate", rate)
    try:
        yield
    finally:
        _run("tc", "qdisc", "del", "dev", "lo", "root")
        _run("ip", "link", "set", "lo", "mtu", "65536")


_SMALL_BUFFERS = ("burst", "4kb", "limit", "8kb")


def packets_dropped() -> int:
    """How many packets loopback has dropped since it became narrow."""
    found = re.search(r"dropped (\d+)", _run("tc", "-s", "qdisc", "show", "dev", "lo"))
    return int(found[1]) if found else 0


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
