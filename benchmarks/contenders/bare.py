"""The least that a server can do: load.c writes a ready frame to each socket."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.contenders.contender import Backends, Contender, Message, Server, running, upgrade
from benchmarks.contenders.http import Request, through_http
from benchmarks.contenders.tutorial import listens
from benchmarks.load import program
from tests.support.process import free_port


class Bare(Contender):
    """No protocol, no users: the floor of any server's cost, and what the clients can take."""

    name = "bare writes in C"
    follows = "everyone only"

    def missing(self) -> str | None:
        """See Contender."""
        return None

    def version(self) -> str:
        """See Contender."""
        return "benchmarks/client/load.c"

    @contextmanager
    def serve(self, backends: Backends) -> Iterator[Server]:
        """See Contender."""
        port = free_port()
        command = [str(program()), "serve", str(port)]
        with running(command, backends.home, lambda: listens(port)) as process:
            yield Server(process.pid, port, through_http(port, _request), is_fed=False)

    def handshake(self, user: str, *, alone: bool) -> str:
        """See Contender."""
        del user, alone
        return upgrade("/")


def _request(message: Message) -> Request:
    return Request("/", message.data.encode())
