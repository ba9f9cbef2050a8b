"""The worker in `examples` that mails the events handed back, and the server that it mails by."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.process import Process
from tests.support.smtp import MailServer, mail_server

WORKER = Path(__file__).parents[2] / "examples/mail_undelivered/mail.py"


@asynccontextmanager
async def mailing(amqp_url: str, directory: Path) -> AsyncIterator[tuple[MailServer, Process]]:
    """Run both, once a router has declared the exchange."""
    async with mail_server() as mails:
        environment = {
            "AMQP_URL": amqp_url,
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(mails.port),
            "MAILED": str(directory / "mailed.sqlite"),
        }
        command = [sys.executable, "-u", str(WORKER)]
        worker = Process(command, log=directory / "worker.log", environment=environment)
        try:
            worker.start()
            yield mails, worker
        finally:
            worker.kill()
