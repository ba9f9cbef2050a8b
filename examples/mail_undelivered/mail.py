"""Mails the people who were away: takes the events that notifier hands back, and mails each once.

    AMQP_URL=amqp://localhost/ SMTP_HOST=mail.example.org python mail.py

Without more, user 42 has the address 42@MAIL_DOMAIN: put your own look-up into `address_of`.
"""

import asyncio
import json
import os
import smtplib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

QUEUE = "mail.undelivered"
DOMAIN = os.environ.get("MAIL_DOMAIN", "example.org")
SMTP = (os.environ.get("SMTP_HOST", "localhost"), int(os.environ.get("SMTP_PORT", "25")))
PAUSE = 1.0  # seconds until the next try, while the mail server is away


def address_of(user: str) -> str:
    """Return a user's mail address."""
    return f"{user}@{DOMAIN}"


def mail_of(message: AbstractIncomingMessage) -> EmailMessage:
    """Write the mail for one event; its id is the same each time that the event comes."""
    event = json.loads(message.body)
    mail = EmailMessage()
    mail["From"] = f"notifier@{DOMAIN}"
    mail["To"] = address_of(str(message.headers["notifier-user"]))
    mail["Subject"] = f"You missed: {event['type']}"
    mail["Message-ID"] = f"<{message.message_id}@{DOMAIN}>"
    mail.set_content(json.dumps(event.get("data"), indent=2))
    return mail


@contextmanager
def mailed() -> Iterator[sqlite3.Connection]:
    """Open the list of the events that are mailed, which outlives this process."""
    path = os.environ.get("MAILED", "mailed.sqlite")
    with sqlite3.connect(path, isolation_level=None) as known:  # each statement is kept at once
        known.execute("CREATE TABLE IF NOT EXISTS mailed (id TEXT PRIMARY KEY)")
        yield known


async def send(mail: EmailMessage) -> None:
    """Return once the mail server has taken it, or has refused it for good."""
    while error := await asyncio.to_thread(failure_of, mail):
        print(f"not sent: {error}")
        if is_final(error):
            return
        await asyncio.sleep(PAUSE)


def failure_of(mail: EmailMessage) -> Exception | None:
    """Send a mail once; return why it was not sent, or None."""
    try:
        with smtplib.SMTP(*SMTP, timeout=30) as server:
            server.send_message(mail)
    except (OSError, smtplib.SMTPException) as error:
        return error
    return None


def is_final(error: Exception) -> bool:
    """Whether each receiver is refused for good (RFC 5321, section 4.2.1)."""
    if not isinstance(error, smtplib.SMTPRecipientsRefused):
        return False
    return all(code >= 500 for code, _ in error.recipients.values())


async def main() -> None:
    """Mail for ever; each event is acked once its mail is out of our hands."""
    with mailed() as known:
        connection = await aio_pika.connect_robust(os.environ["AMQP_URL"])
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            lasting = {"x-queue-type": "quorum"}
            queue = await channel.declare_queue(QUEUE, durable=True, arguments=lasting)
            await queue.bind("notifier.undelivered", "#")  # a router has made the exchange
            async with queue.iterator() as messages:
                async for message in messages:
                    await handle(message, known)


async def handle(message: AbstractIncomingMessage, known: sqlite3.Connection) -> None:
    """Mail one event, unless that is done."""
    seen = known.execute("SELECT 1 FROM mailed WHERE id = ?", (message.message_id,)).fetchone()
    if not seen:
        await send(mail_of(message))
        known.execute("INSERT INTO mailed VALUES (?)", (message.message_id,))
    await message.ack()


if __name__ == "__main__":
    asyncio.run(main())
