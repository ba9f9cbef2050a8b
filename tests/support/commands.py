"""The command `notifier` in a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.process import Process, wait_until


def notifier(*arguments: str) -> list[str]:
    """The command line of `notifier`, without relying on PATH."""
    return [sys.executable, "-m", "notifier", *arguments]


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `notifier` with these arguments to its end, whatever its exit code."""
    return subprocess.run(
        notifier(*arguments),
        input=stdin,
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


class Listener(Process):
    """A `notifier listen` that runs until it is stopped."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        super().__init__(notifier("listen", *arguments), log=log, environment=environment)
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
