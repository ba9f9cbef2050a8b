"""The command `notifier` in a terminal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from tests.support.preloaded import CAN_FORK, Forked
from tests.support.process import Process, Spawned, wait_until

forks = CAN_FORK
"""Whether commands are forked from a process that has imported them, rather than started anew."""


def notifier(*arguments: str) -> list[str]:
    """The command line of `notifier`, without relying on PATH."""
    return [sys.executable, "-m", "notifier", *arguments]


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `notifier` with these arguments to its end, whatever its exit code."""
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
        given.write(stdin.encode())
        given.seek(0)
        process = _spawn(arguments, {**os.environ, **environment}, given, output, errors)
        try:
            code = process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(60)
        output.seek(0)
        errors.seek(0)
        said, complained = output.read().decode(), errors.read().decode()
    return subprocess.CompletedProcess(notifier(*arguments), code, said, complained)


def _spawn(arguments: Sequence[str], environment: Mapping[str, str], *streams: BinaryIO) -> Spawned:
    # Only a new process minds other variables, such as one that names a library to load first.
    own = environment.items() - os.environ.items()
    if forks and all(name.startswith("NOTIFIER_") for name, _ in own):
        return Forked(arguments, environment, *streams)
    given, output, errors = streams
    return subprocess.Popen(
        notifier(*arguments),
        stdin=given,
        stdout=output,
        stderr=errors,
        env=environment,
        start_new_session=True,
    )


class Command(Process):
    """A `notifier` that runs until it is stopped, as a process of its own."""

    def __init__(self, *arguments: str, log: Path, **environment: str) -> None:
        super().__init__(notifier(*arguments), log=log, environment=environment)
        self._arguments = arguments

    def _spawn(self, environment: Mapping[str, str], log: BinaryIO) -> Spawned:
        with Path(os.devnull).open("rb") as nothing:
            return _spawn(self._arguments, environment, nothing, log, log)


class Listener(Command):
    """A `notifier listen`, or another command that prints lines of JSON until it is stopped."""

    def __init__(
        self, log: Path, *arguments: str, command: str = "listen", **environment: str
    ) -> None:
        super().__init__(command, *arguments, log=log, **environment)
        self._printed = log

    def wait_for(self, text: str, times: int = 1) -> None:
        """Return when it has printed `text` so many times."""
        wait_until(
            lambda: self._printed.read_text().count(text) >= times,
            seconds=30,
            otherwise=lambda: f"{text!r} was not printed, but:\n{self.log_tail()}",
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that it has printed."""
        lines = self._printed.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]
