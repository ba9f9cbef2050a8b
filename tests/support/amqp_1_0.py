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
_PROGRAM = Path(__file__).parent / "proton_client.py"
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
    await _run(url=url, address=address, message=message, data=data)


async def take(url: str, queue: str) -> str:
    """Take a message off a queue of RabbitMQ 3, and return its id."""
    return await _run(url=url, queue=f"/amq/queue/{queue}")


async def _run(**told: object) -> str:
    ran = await asyncio.to_thread(
        subprocess.run,
        [_python(), str(_PROGRAM)],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )
    return str(ran.stdout)
