"""Processes that tests start: never left behind, however the test run ends."""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, Self

# Runs beside a process and kills its group when the test run is gone: its death, by whatever
# signal, closes the pipe that `cat` reads.
_LEASH = 'trap "" HUP INT TERM; cat >/dev/null; kill -s KILL -- "-$1"'

_STOPPED = "TtZXx"  # or ended; see proc_pid_stat(5)

_turns = itertools.count(random.randrange(1_000))


def free_port() -> int:
    """A loopback port that nobody listens on.

    Below the ports that the kernel hands out for outgoing connections, so that a server can come
    back on it: no client takes it meanwhile, nor connects to itself while it retries. Each of the
    suite's workers has a thousand ports of its own, and takes each in turn: one that was handed out
    is not handed out again before its server listens.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    while True:
        port = 20_000 + 1_000 * worker + next(_turns) % 1_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(ready: Callable[[], bool], *, seconds: float, otherwise: Callable[[], str]) -> None:
    """Return once `ready` is true; `AssertionError` with `otherwise()` when it takes too long."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise())
        time.sleep(0.02)


def _state(stat: Path) -> tuple[str, int]:
    """The state and the process group of a thread; of one that is gone, none."""
    try:
        state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return "X", 0
    return state, int(group)


class Spawned(Protocol):
    """A child process: these parts of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...


class Process:
    """A command in a process group of its own, with its output in `log`; signals go to the group.

    Can be started again once it has ended. All calls block: from a coroutine, use a thread.
    """

    def __init__(
        self, command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str]
    ) -> None:
        self._command = command
        self._log = log
        self._environment = environment
        self._process: Spawned | None = None
        self._leash: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the command; returns before it is ready."""
        assert not self.is_running, f"{self._command[0]} runs already"
        with self._log.open("ab") as log:
            self._process = self._spawn({**os.environ, **self._environment}, log)
        self._leash = subprocess.Popen(
            ["sh", "-c", _LEASH, "leash", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _spawn(self, environment: Mapping[str, str], log: BinaryIO) -> Spawned:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        assert self._process is not None, f"{self._command[0]} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has been started and has not ended."""
        if self._process is None:
            return False
        if self._process.poll() is not None:
            self._unleash()
            return False
        return True

    @property
    def peak_memory(self) -> int:
        """The most resident bytes since it was started; where there is no /proc, those of now."""
        status = Path(f"/proc/{self.pid}/status")
        if status.exists():
            return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
        return int(self.run(["ps", "-o", "rss=", "-p", str(self.pid)])) * 1024

    def wait(self, seconds: float = 30) -> int:
        """The exit code, once it has ended (negative: the signal that ended it)."""
        assert self._process is not None, f"{self._command[0]} was never started"
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still running after {seconds} s\n{self.log_tail()}") from error
        finally:
            if self._process.returncode is not None:
                self._unleash()

    def stop(self, seconds: float = 30) -> int:
        """End it by SIGTERM and return the exit code."""
        self._signal(signal.SIGCONT)  # a paused process would not see the next one
        self._signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """End it by SIGKILL, paused or not; nothing happens when it has ended already."""
        if self.is_running:
            self._signal(signal.SIGKILL)
            self.wait()

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): its sockets stay open, nothing answers.

        Only one thread takes the signal, and the others run on until that one has had a turn.
        """
        self._signal(signal.SIGSTOP)
        wait_until(lambda: not self._runs_on(), seconds=30, otherwise=lambda: "it is not stopped")

    def _runs_on(self) -> bool:
        """Whether a thread of the group is not stopped; never where there is no /proc."""
        states = [_state(each) for each in Path("/proc").glob("[0-9]*/task/*/stat")]
        return any(group == self.pid and state not in _STOPPED for state, group in states)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def run(self, command: Sequence[str]) -> str:
        """Run another command with this one's environment, and return what it prints."""
        environment = {**os.environ, **self._environment}
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its output, for the message of a failure."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self._command[0]} was never started"
        assert self._process.returncode is None, f"it has ended\n{self.log_tail()}"
        os.killpg(self._process.pid, number)

    def _unleash(self) -> None:
        if self._leash is not None:
            self._leash.kill()
            self._leash.communicate()
            self._leash = None
