"""A collector of traces: it takes OTLP over HTTP, as any does, and keeps the spans."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """The spans that came in, and where to send more."""

    def __init__(self, port: int) -> None:
        self.settings = {
            "NOTIFIER_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",  # milliseconds
        }
        self.requests = 0
        self.spans: list[tuple[str, Span]] = []

    def take(self, body: bytes) -> None:
        """Keep the spans of one request."""
        self.requests += 1
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {each.key: each.value.string_value for each in of_process.resource.attributes}
            for scope in of_process.scope_spans:
                self.spans += [(named["service.name"], span) for span in scope.spans]

    def trace(self, trace_id: str) -> dict[str, tuple[str, Span]]:
        """The spans of one trace by their names, each with its service."""
        mine = [each for each in self.spans if each[1].trace_id.hex() == trace_id]
        assert len(mine) == len({span.name for _, span in mine}), mine
        return {span.name: (service, span) for service, span in mine}


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # as http.server wants it
            body = self.rfile.read(int(self.headers["content-length"]))
            compressed = self.headers.get("content-encoding") == "gzip"
            collecting.take(gzip.decompress(body) if compressed else body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collecting = Collector(server.server_port)
        serving = Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield collecting
        finally:
            server.shutdown()
            serving.join()
