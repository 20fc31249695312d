"""A collector of spans: takes OTLP over HTTP as protobuf, as OpenTelemetry's own does, and keeps what comes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    url: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers (lower case) of each."""
    received: list[ExportTraceServiceRequest] = field(default_factory=list)
    stalls: threading.Event = field(default_factory=threading.Event)
    """Set: requests get no answer until `over`."""
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in list(self.received)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def resource(self) -> dict[str, object]:
        return attributes(self.received[0].resource_spans[0].resource)

    def wait_for(self, found: Callable[[], object], limit_s: float = 30) -> None:
        until = time.monotonic() + limit_s
        while not found():
            assert time.monotonic() < until, f"not within {limit_s} s: {[span.name for span in self.spans]}"
            time.sleep(0.02)


def attributes(of: object) -> dict[str, object]:
    """Of a span, an event or a resource, as plain values."""
    return {entry.key: _value(entry.value) for entry in of.attributes}  # type: ignore[attr-defined] # three messages


def _value(value: AnyValue) -> object:
    return getattr(value, str(value.WhichOneof("value")))


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            if collector.stalls.is_set():
                collector.over.wait(30)
                return
            assert self.headers["Content-Type"] == "application/x-protobuf"
            collector.received.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
