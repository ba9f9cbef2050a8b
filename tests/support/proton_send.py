"""A program that sends one message over AMQP 1.0, described by JSON on its standard input.

It runs where Proton is, and imports nothing else; see `tests/support/amqp_1_0.py`.
"""

import base64
import json
import sys
from urllib.parse import urlsplit

from proton import Message  # type: ignore[import-not-found]
from proton.utils import BlockingConnection  # type: ignore[import-not-found]

told = json.load(sys.stdin)
url, message = urlsplit(told["url"]), Message(**told["message"])
if told["data"] is not None:
    message.body = base64.b64decode(told["data"])
connection = BlockingConnection(
    f"amqp://{url.hostname}:{url.port}",
    user=url.username,
    password=url.password,
    allowed_mechs="PLAIN",
    virtual_host=f"vhost:{url.path[1:]}",
)
connection.create_sender(told["address"]).send(message)
connection.close()
