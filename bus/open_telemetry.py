"""What `bus.tracing` does while it is on. Nobody else imports this: OpenTelemetry is heavy."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import structlog
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bus.trace_file import TraceFile
from bus.trace_settings import FILE, OTLP
from bus.tracing import ATTRIBUTES, TRACEPARENT, Kind, Span

log = structlog.get_logger(__name__)

_TRACES_PATH = "/v1/traces"
_BATCH_MILLISECONDS = 1000
_WAITING = 8192
"""Spans that may wait for their exporter; beyond, the oldest are dropped."""
_SHUT_DOWN_SECONDS = 2.0
_QUIET_SECONDS = 60.0
"""Between two complaints of an exporter."""

_KINDS: Mapping[Kind, SpanKind] = {kind: SpanKind[kind.name] for kind in Kind}
_PROPAGATOR = TraceContextTextMapPropagator()
_ENDS_WELL = (asyncio.CancelledError, GeneratorExit)


def make_recorder(setting: str, service: str, instance: str, share: float) -> "Recorder":
    """A recorder of this process. Raises OSError for a file that cannot be written."""
    resource = Resource.create(
        {
            "service.name": service,
            "service.instance.id": instance,
            "service.version": version("millrace"),
        }
    )
    sampler = ParentBased(TraceIdRatioBased(share))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(
            _exporter(setting),
            max_queue_size=_WAITING,
            schedule_delay_millis=_BATCH_MILLISECONDS,
        )
    )
    return Recorder(provider)


def _exporter(setting: str) -> SpanExporter:
    if setting == OTLP:
        return OTLPSpanExporter()
    if setting.startswith(FILE):
        return TraceFile(setting.removeprefix(FILE))
    parts = urlsplit(setting)
    path = parts.path if parts.path.strip("/") else _TRACES_PATH
    return OTLPSpanExporter(endpoint=parts._replace(path=path).geturl())


class Recorder:
    """Makes spans and sends them."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("millrace", version("millrace"))
        self._complaints = _Complaints()
        library = logging.getLogger("opentelemetry")
        library.handlers[:] = [self._complaints]
        library.propagate = False

    def span(
        self, name: str, kind: Kind, parent: str | None, words: Mapping[str, object]
    ) -> "Recorded":
        """A span that is in force within a block."""
        return Recorded(self._start(name, kind, parent, words))

    def record(
        self, name: str, kind: Kind, parent: str | None, began: int, words: Mapping[str, object]
    ) -> None:
        """A span that is over."""
        self._start(name, kind, parent, words, began).end()

    def traceparent(self) -> str | None:
        """The span in force, for a header."""
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers)
        return headers.get(TRACEPARENT)

    def trace_id(self) -> str | None:
        """The trace in force, if it is recorded."""
        return _id_of(trace.get_current_span().get_span_context())

    def trace_id_of(self, parent: str | None) -> str | None:
        """The trace that a header names, if it is recorded."""
        return _id_of(trace.get_current_span(_below(parent)).get_span_context())

    def shut_down(self) -> None:
        """Send what waits. An endpoint that does not answer is not waited for."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_SHUT_DOWN_SECONDS)
        self._complaints.silence()

    def _start(
        self,
        name: str,
        kind: Kind,
        parent: str | None,
        words: Mapping[str, object],
        began: int | None = None,
    ) -> trace.Span:
        context = None if parent is None else _below(parent)
        above = trace.get_current_span(context).get_span_context()
        if above.is_valid and not above.trace_flags.sampled:
            # Whoever began the trace does not record it; another id would be of no use.
            return trace.NonRecordingSpan(above)
        return self._tracer.start_span(
            name,
            context=context,
            kind=_KINDS[kind],
            attributes=_attributes(words),
            start_time=began,
            record_exception=False,
        )


class Recorded(Span):
    """A span that is in force from its beginning to its end."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> Self:
        self._token = contexts.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        contexts.detach(self._token)
        if isinstance(error, _ENDS_WELL):
            self.note(cancelled=True)
        elif error is not None:
            self.fail(type(error).__name__)  # its message may quote what was asked
        self._span.end()

    def note(self, **words: object) -> None:
        """Say more about it."""
        if self._span.is_recording():
            self._span.set_attributes(_attributes(words))

    def rename(self, name: str) -> None:
        """What it is, once that is known."""
        self._span.update_name(name)

    def event(self, name: str, **words: object) -> None:
        """Something happened now."""
        if self._span.is_recording():
            self._span.add_event(name, _attributes(words))

    def fail(self, code: str) -> None:
        """It ended badly."""
        self.note(error=code)
        self._span.set_status(StatusCode.ERROR)


def _below(parent: str | None) -> Context:
    """The context of a traceparent; an empty one, in which traces begin, if it is none."""
    headers = {} if parent is None else {TRACEPARENT: parent}
    return _PROPAGATOR.extract(headers, context=Context())


def _id_of(found: SpanContext) -> str | None:
    if not (found.is_valid and found.trace_flags.sampled):
        return None
    return trace.format_trace_id(found.trace_id)


def _attributes(words: Mapping[str, object]) -> dict[str, str | int | float | bool]:
    return {
        ATTRIBUTES.get(name) or f"millrace.{name}": _value(value)
        for name, value in words.items()
        if value is not None
    }


def _value(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)


class _Complaints(logging.Handler):
    """What OpenTelemetry logs of its exporter's troubles, in one line a minute."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._quiet_until = 0.0

    def silence(self) -> None:
        """Say nothing any more: who is still trying is not waited for."""
        self._quiet_until = math.inf

    def emit(self, record: logging.LogRecord) -> None:
        """Log one of them."""
        if time.monotonic() < self._quiet_until:
            return
        self._quiet_until = time.monotonic() + _QUIET_SECONDS
        error = record.exc_info[1] if record.exc_info else None
        why = f" {error}" if error else ""
        log.warning("tracing.not_sent", reason=(record.getMessage() + why)[:300])
