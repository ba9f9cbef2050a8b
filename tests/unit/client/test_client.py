"""The package: importing it costs little."""

import subprocess
import sys


def test_importing_the_client_loads_no_part_of_the_server() -> None:
    heavy = {"fastapi", "starlette", "pydantic", "uvicorn", "redis", "aio_pika", "aiormq", "jwt"}
    heavy |= {"structlog", "prometheus_client", "opentelemetry", "notifier.adapters"}
    script = "import sys, notifier.client; print(*sys.modules)"

    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()

    assert "notifier.client.producer" in loaded
    assert not heavy.intersection(loaded)
