"""Publishing by HTTP: requests in a pipeline, as fast as the server takes them."""

import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.contenders.contender import Message, Publish, chunks


class Request(NamedTuple):
    """A POST."""

    path: str
    body: bytes
    headers: tuple[str, ...] = ()


def through_http(port: int, request_of: Callable[[Message], Request]) -> Publish:
    """Publish with a request for each message."""
    connection = Connection(port)

    def publish(messages: Sequence[Message]) -> None:
        for chunk in chunks(messages):
            connection.post([request_of(message) for message in chunk])

    return publish


class Connection:
    """A connection that stays open; `accepted` is how the status of good answers begins."""

    def __init__(self, port: int, accepted: str = "2") -> None:
        self._port = port
        self._accepted = f"HTTP/1.1 {accepted}".encode()
        self._socket: socket.socket | None = None
        self._awaited = 0

    def post(self, requests: Sequence[Request]) -> None:
        """Send requests, and return when all are answered."""
        self.send(requests)
        self.wait()

    def send(self, requests: Sequence[Request]) -> None:
        """Send requests, and leave the answers for later."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=30)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._awaited += len(requests)
        self._socket.sendall(b"".join(map(_bytes, requests)))

    def wait(self) -> None:
        """Return when all that was sent is answered; an answer that is not good raises."""
        rest = b""
        while self._awaited:
            assert self._socket is not None
            got = self._socket.recv(1 << 16)
            if not got:
                raise ConnectionError("the server closed the connection")
            *lines, rest = (rest + got).split(b"\r\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        # A body has no line end before it: the next head stands on the same line.
        _, found, status = line.partition(b"HTTP/1.1 ")
        if found:
            self._awaited -= 1
            if not (found + status).startswith(self._accepted):
                raise RuntimeError(f"the server answered {status.decode()}")


def _bytes(request: Request) -> bytes:
    head = (
        f"POST {request.path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(request.body)}",
        *request.headers,
    )
    return ("\r\n".join(head) + "\r\n\r\n").encode() + request.body
