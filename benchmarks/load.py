"""The clients: load.c, compiled when it is first needed, and told what to do line by line."""

import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parent / "client" / "load.c"
AT_A_TIME = 64


@functools.cache
def program() -> Path:
    """Return the compiled program; it goes away with this process' temporary directory."""
    compiler = shutil.which("cc")
    if not compiler:
        raise SystemExit("The clients are in C: apt-get install gcc libc6-dev")
    binary = Path(tempfile.gettempdir(), "load")
    subprocess.run([compiler, "-O2", "-o", binary, SOURCE], check=True)
    return binary


Report = dict[str, float]


class Load:
    """Many WebSockets, whose deliveries are counted."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def open(self, count: int, *, at_a_time: int = AT_A_TIME, seconds: float = 120) -> Report:
        """Connect `count` more, and return when all of them are ready."""
        report = self._command(f"open {count} {at_a_time} {seconds}")
        if report["gone"]:
            raise RuntimeError(f"{report['gone']:.0f} connections were refused or lost")
        return report

    def until(self, deliveries: int, seconds: float = 60) -> Report:
        """Return when so many deliveries have come in since the last reset."""
        report = self._command(f"until {deliveries} {seconds}")
        if report["deliveries"] != deliveries:  # more would be as wrong as fewer
            raise RuntimeError(
                f"{report['deliveries']:.0f} of {deliveries} deliveries in {seconds} s"
            )
        return report

    def patiently(self, deliveries: int, seconds: float = 5) -> Report:
        """Return when so many deliveries have come in, or when that took too long."""
        return self._command(f"until {deliveries} {seconds}")

    def reset(self) -> None:
        """Count from nought."""
        self._command("reset")

    def so_far(self) -> Report:
        """Return what has come in since the last reset."""
        return self._command("until 0 1")

    def stall(self, index: int) -> None:
        """Let one connection read no longer."""
        self._command(f"stall {index}")

    def _command(self, line: str) -> Report:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the clients have ended")
        report: Report = json.loads(answer)
        return report


@contextmanager
def load(port: int, handshakes: Sequence[str], marks: tuple[str, str, str]) -> Iterator[Load]:
    """Run the clients while inside; they end when this process does, for they read its pipe.

    `marks` are what makes a connection ready, and the two halves of a heartbeat.
    """
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("".join(f"{handshake}\0" for handshake in handshakes))
        file.flush()
        process = subprocess.Popen(
            [program(), "connect", str(port), file.name, *marks],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield Load(process)
            finally:
                process.kill()
