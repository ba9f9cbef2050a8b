"""A program that takes one message off a queue over AMQP 1.0; see `tests/support/amqp_1_0.py`.

Its arguments are RabbitMQ's URL, and the queue. It writes the message's id.
"""

import sys
from urllib.parse import urlsplit

from proton.utils import BlockingConnection  # type: ignore[import-not-found]

url = urlsplit(sys.argv[1])
connection = BlockingConnection(
    f"amqp://{url.hostname}:{url.port}",
    user=url.username,
    password=url.password,
    allowed_mechs="PLAIN",
    virtual_host=f"vhost:{url.path[1:]}",
)
receiver = connection.create_receiver(f"/amq/queue/{sys.argv[2]}", credit=1)
sys.stdout.write(str(receiver.receive(timeout=60).id))
receiver.accept()
connection.close()
