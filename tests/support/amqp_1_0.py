"""A producer over AMQP 1.0 by a foreign client, Apache Qpid Proton in an interpreter of its own.

Proton has no wheels, but packages of Debian: it is there for the system's Python.
"""

import asyncio
import base64
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_PYTHON = "/usr/bin/python3"
_SEND, _TAKE = (Path(__file__).parent / f"proton_{each}.py" for each in ("send", "take"))
_ADDRESSES = {3: "/exchange/notifier.events/{}", 4: "/exchanges/notifier.events/{}"}


@functools.cache
def _python() -> str:
    """An interpreter that has Proton."""
    for python in (_PYTHON, sys.executable):
        if subprocess.run([python, "-c", "import proton"], check=False).returncode == 0:
            return python
    pytest.fail(
        "Proton is missing: install the package python3-qpid-proton (Debian, Ubuntu: apt-get "
        "install python3-qpid-proton).",
        pytrace=False,
    )


async def send(url: str, version: tuple[int, ...], key: str, body: object, **message: Any) -> None:  # noqa: ANN401  # as Proton takes them
    """Return once RabbitMQ has accepted it.

    `body` is JSON for a value, or bytes for a data section. `message` has what else
    `proton.Message` takes.
    """
    data = base64.b64encode(body).decode() if isinstance(body, bytes) else None
    message |= {} if isinstance(body, bytes) else {"body": body}
    address = _ADDRESSES[min(version[0], 4)].format(key)
    told = {"url": url, "address": address, "data": data, "message": message}
    await asyncio.to_thread(
        subprocess.run,
        [_python(), str(_SEND)],
        input=json.dumps(told).encode(),
        check=True,
        timeout=30,
    )


async def take(url: str, queue: str) -> str:
    """Take a message off a queue of RabbitMQ 3, and return its id."""
    command = [_python(), str(_TAKE), url, queue]
    taken = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True, timeout=90
    )
    return taken.stdout
