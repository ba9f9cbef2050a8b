"""A mail server of a few lines (RFC 5321) that keeps what it takes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage


class MailServer:
    """Takes every mail. `refusals` counts down mails that it refuses for now."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refusals = 0
        self.port = 0

    @property
    def receivers(self) -> list[str]:
        """The addresses that have mail, in the order of the mails."""
        return [str(mail["to"]) for mail in self.mails]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 tests\r\n")
        while line := await reader.readline():
            match line[:4].upper().strip():
                case b"DATA":
                    writer.write(b"354 go on\r\n")
                    writer.write(self._taken(await reader.readuntil(b"\r\n.\r\n")))
                case b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                case _:
                    writer.write(b"250 yes\r\n")
        writer.close()

    def _taken(self, text: bytes) -> bytes:
        if self.refusals:
            self.refusals -= 1
            return b"451 later\r\n"
        self.mails.append(message_from_bytes(text[:-3], policy=policy.default))
        return b"250 taken\r\n"


@asynccontextmanager
async def mail_server() -> AsyncIterator[MailServer]:
    """Serve on a port of the system's choice."""
    mails = MailServer()
    server = await asyncio.start_server(mails._serve, "127.0.0.1", 0)  # noqa: SLF001 - its own
    mails.port = server.sockets[0].getsockname()[1]
    try:
        yield mails
    finally:
        server.close()
