"""Roles forked from a process that has imported them: importing costs each start a second of CPU.

A role is still a process of its own, with its own id, session, signals, environment and log, and it
runs the command from its first line. `python -m tests.support.preloaded ADDRESS` is the process
that forks: first a keeper for each role, which forks the role, waits for its end, and tells both.
"""

import atexit
import functools
import gc
import os
import runpy
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

from tests.support.process import Process, wait_until

CAN_FORK = hasattr(os, "waitid")  # Linux; elsewhere libraries of the system may not be forked


class _Start(NamedTuple):
    arguments: list[str]
    environment: dict[str, str]
    directory: str


class Forked:
    """A running `notifier` that was forked, with the parts of `subprocess.Popen` that tests need.

    Its working directory is that of the caller.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], *streams: BinaryIO
    ) -> None:
        """`streams` become its standard input, output and error output."""
        self.args = ["notifier", *arguments]
        self.returncode: int | None = None
        self._end = threading.Lock()
        self._keeper: Connection = Client(_address(), family="AF_UNIX")
        self._keeper.send(_Start(self.args, dict(environment), str(Path.cwd())))
        for stream in streams:
            send_handle(self._keeper, stream.fileno(), None)
        self.pid = self._told("pid")

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with suppress(TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended; raises TimeoutExpired."""
        while self.returncode is None:
            if not self._keeper.poll(timeout):
                raise TimeoutExpired(self.args, timeout or 0)
            with self._end:
                if self.returncode is None:
                    self.returncode = self._told("end")
                    self._keeper.send("its id may be another's")
        return self.returncode

    def _told(self, what: str) -> int:
        kind, number = self._keeper.recv()
        assert kind == what, f"{self.args} ended with {number} before it began"
        return int(number)


@functools.cache
def _address() -> str:
    """Start the process that forks, once; it ends with this one."""
    cleanup = ExitStack()
    atexit.register(cleanup.close)
    home = Path(cleanup.enter_context(TemporaryDirectory(prefix="notifier-preloaded-")))
    command = [sys.executable, "-m", "tests.support.preloaded", str(home / "socket")]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    preloaded = Process(command, log=home / "log", environment=environment)
    cleanup.enter_context(preloaded)

    def is_ready() -> bool:
        assert preloaded.is_running, preloaded.log_tail()
        return preloaded.log_tail() == "ready"

    wait_until(is_ready, seconds=90, otherwise=preloaded.log_tail)
    return command[-1]


# In the process that forks, in its keepers and in the roles.


def main() -> None:
    """Import what roles need, and fork when asked; in a role, run the command."""
    import httpcore  # noqa: F401, PLC0415  # it takes long
    import uvicorn.protocols.http.auto  # noqa: F401, PLC0415  # as above

    from notifier import cli, client, serving, wiring  # noqa: F401, PLC0415  # as above
    from notifier.telemetry import logs  # noqa: F401, PLC0415  # as above

    serving.loop_factory().close()
    gc.freeze()
    start = _asked(sys.argv[1])
    sys.argv = start.arguments
    runpy.run_module("notifier", run_name="__main__", alter_sys=True)


def _asked(address: str) -> _Start:
    """Fork a keeper for each connection; returns in roles only."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    with Listener(address, family="AF_UNIX", backlog=64) as listener:
        print("ready", flush=True)  # noqa: T201  # to the log
        while True:
            connection = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
    with connection:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        start: _Start = connection.recv()
        if pid := os.fork():
            _keep(pid, connection)
        _settle(start, [recv_handle(connection) for _ in range(3)])
        connection.send(("pid", os.getpid()))
    return start


def _keep(pid: int, connection: Connection) -> None:
    """Tell of a role's end; its id stays taken until that is known, as for any child."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    has_exited = ended.si_code == os.CLD_EXITED
    with suppress(OSError, EOFError):  # the tests are gone
        connection.send(("end", ended.si_status if has_exited else -ended.si_status))
        connection.recv()
    os._exit(0)


def _settle(start: _Start, streams: list[int]) -> None:
    """Take on what a new process is started with."""
    os.setsid()
    os.chdir(start.directory)
    os.environ.clear()
    os.environ.update(start.environment)
    for standard, given in enumerate(streams):
        os.dup2(given, standard)
        os.close(given)


if __name__ == "__main__":
    main()
