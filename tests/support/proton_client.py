"""A program that sends or takes one message over AMQP 1.0, as JSON on its standard input tells it.

It runs where Proton is, and imports nothing else; see `tests/support/amqp_1_0.py`.
"""

import base64
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from proton import Message  # type: ignore[import-not-found]
from proton.utils import BlockingConnection  # type: ignore[import-not-found]

LONGEST_WAIT = 60


def send(
    connection: BlockingConnection, address: str, message: dict[str, Any], data: str | None
) -> None:
    """Send one message of these members; `data` is a data section in Base64."""
    sent = Message(**message)
    if data is not None:
        sent.body = base64.b64decode(data)
    connection.create_sender(address).send(sent)


def take(connection: BlockingConnection, queue: str) -> None:
    """Take one message off, and write its id."""
    receiver = connection.create_receiver(queue, credit=1)
    sys.stdout.write(str(receiver.receive(timeout=LONGEST_WAIT).id))
    receiver.accept()


def connect(address: str) -> BlockingConnection:
    """Connect to a virtual host of RabbitMQ, whose URL names it."""
    url = urlsplit(address)
    return BlockingConnection(
        f"amqp://{url.hostname}:{url.port}",
        user=url.username,
        password=url.password,
        allowed_mechs="PLAIN",
        virtual_host=f"vhost:{url.path[1:]}",
    )


told = json.load(sys.stdin)
connection = connect(told.pop("url"))
if "queue" in told:
    take(connection, **told)
else:
    send(connection, **told)
connection.close()
