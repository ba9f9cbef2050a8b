"""A server that speaks as much of Redis' protocol as tests of connections need."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import hiredis

Words = list[bytes]
NOTHING_YET = object()


class Answering:
    """A server that speaks Redis' protocol: it answers PING, INFO, SENTINEL MASTERS and LOADING."""

    def __init__(self) -> None:
        self.place = ""
        self.run_id = "abc012"
        self.masters: list[str] = []
        self.reads: list[list[Words]] = []
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"redis://{self.place}/0"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        commands = hiredis.Reader(notEnoughData=NOTHING_YET)
        with suppress(ConnectionResetError):  # a client that leaves may have left an answer unread
            while data := await reader.read(65536):
                commands.feed(data)
                read = list(iter(commands.gets, NOTHING_YET))
                self.reads.append(read)
                for words in read:
                    writer.write(self.answer(words))

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
            with suppress(ConnectionResetError):
                await writer.wait_closed()

    def answer(self, words: Words) -> bytes:
        match words:
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"INFO", _]:
                return bulk(f"redis_version:8.0.0\r\nrun_id:{self.run_id}\r\n")
            case [b"SENTINEL", _]:
                host, port = self.masters.pop(0).split(":")
                others = b"$19\r\nnum-other-sentinels\r\n$1\r\n0\r\n"
                fields = ["name", "main", "ip", host, "port", port, "flags", "master"]
                return b"*1\r\n*10\r\n" + others + b"".join(map(bulk, fields))
            case [b"LOADING"]:
                return b"-LOADING Redis is loading the dataset in memory\r\n"
            case [b"CLIENT", *_]:
                return b"+OK\r\n"
            case _:
                return b"-ERR unknown command\r\n"


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


@asynccontextmanager
async def answering() -> AsyncIterator[Answering]:
    """Serve while inside."""
    server = Answering()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.place = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
        await server.close()
