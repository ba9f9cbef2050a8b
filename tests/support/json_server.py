"""A server of JSON documents on loopback."""

import json
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self


class JsonServer(ABC):
    """Answers within the `with` block, under `origin`."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    @abstractmethod
    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the document of the answer to a GET."""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # so http.server calls it
                status, document = answer(self.path)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Answering

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
