"""Spans on their way to a collector: OTLP over HTTP, in batches, by a thread of its own.

A collector that is slow or gone costs spans, never a call: the queue is bounded, and what does not fit is let go.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from urllib.parse import unquote, urlsplit

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from bridge import __version__
from bridge.config import TracingSettings
from bridge.log import RateLimited
from bridge.spans import CallSpans

log = structlog.get_logger(__name__)

QUEUE_SPANS = 8192
"""Spans that wait for the collector: some hundred calls of ten turns each."""

BATCH_SPANS = 512
BATCH_S = 1.0
"""Spans are sent so often, or as soon as a batch is full."""

REQUEST_S = 5.0
"""For one batch, with its repetitions."""

TROUBLE_S = 300.0
"""Trouble with the collector is logged once in so long."""

STOP_S = 2.0
"""How long the last spans may take when the bridge stops."""

_LIBRARY = "opentelemetry"


class TracingError(Exception):
    """The spans can't be exported as configured; the message says what to do."""


class SpanExport:
    """The export to one collector. Made with its thread running."""

    def __init__(self, settings: TracingSettings, environ: Mapping[str, str]) -> None:
        """Raises TracingError."""
        headers = headers_of(settings.headers_env, environ)
        self.secrets = tuple(headers.values())
        """Not to be shown in the log."""
        self._complain = _Trouble(RateLimited(log, limit=1, interval_s=TROUBLE_S))
        library = logging.getLogger(_LIBRARY)
        library.addHandler(self._complain)
        # Its own lines come for every batch, and some with a traceback.
        library.propagate = False
        self._exporter = _Counted(
            OTLPSpanExporter(endpoint=traces_url(settings.otlp_endpoint), headers=headers, timeout=REQUEST_S)
        )
        self._processor = _Counting(
            self._exporter,
            max_queue_size=QUEUE_SPANS,
            schedule_delay_millis=BATCH_S * 1000,
            max_export_batch_size=BATCH_SPANS,
            export_timeout_millis=REQUEST_S * 1000,
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample)),
            resource=Resource.create({"service.name": settings.service_name, "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._processor)
        self.spans = CallSpans(self._provider.get_tracer("offhook", __version__), content=settings.content)

    def readings(self) -> Mapping[str, float]:
        """For the metrics: spans that ended, those the collector took, and those it did not."""
        return {
            "spans_ended_total": float(self._processor.ended),
            "spans_sent_total": float(self._exporter.sent),
            "spans_failed_total": float(self._exporter.failed),
        }

    async def aclose(self) -> None:
        """Send what waits, for at most STOP_S, and stop."""
        self.spans.close()
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()

        def stop() -> None:
            self._provider.shutdown()
            # The loop may be gone by now: nobody waits any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(stopped.set)

        # No worker of the loop's pool: the loop would wait for that one at its end, however long it takes.
        threading.Thread(target=stop, name="span export stop", daemon=True).start()
        try:
            async with asyncio.timeout(STOP_S):
                await stopped.wait()
        except TimeoutError:
            log.warning("spans lost at the stop", spans=self._processor.ended - self._exporter.done)
        library = logging.getLogger(_LIBRARY)
        library.removeHandler(self._complain)
        library.propagate = True


class _Counted(SpanExporter):
    """An exporter that counts what came of its spans."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.sent = 0
        self.failed = 0

    @property
    def done(self) -> int:
        return self.sent + self.failed

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.sent += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Counting(BatchSpanProcessor):
    """Counts the spans that it is given."""

    ended = 0

    def on_end(self, span: ReadableSpan) -> None:
        self.ended += 1
        super().on_end(span)


class _Trouble(logging.Handler):
    """The library's complaints, once in a while."""

    def __init__(self, limited: RateLimited) -> None:
        super().__init__(logging.WARNING)
        self._limited = limited

    def emit(self, record: logging.LogRecord) -> None:
        self._limited.warning("trouble sending spans", reason=record.getMessage())


def traces_url(endpoint: str) -> str:
    """Where spans are posted: `http://collector:4318` becomes `http://collector:4318/v1/traces`, a URL with a path
    stays."""
    return endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + "/v1/traces"


def headers_of(variable: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The headers that an environment variable holds, as OpenTelemetry writes them: `name=value,other=value`, values
    percent-encoded where needed. Raises TracingError."""
    if not variable:
        return {}
    text = environ.get(variable, "")
    if not text:
        raise TracingError(f"tracing.headers_env: the environment variable {variable} is not set")
    headers: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, found, value = entry.partition("=")
        if not found or not name.strip():
            raise TracingError(f"tracing.headers_env: {variable} is not written as name=value,name=value")
        headers[name.strip().lower()] = unquote(value.strip())
    return headers
