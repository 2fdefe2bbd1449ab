"""Spans in a file: a line of OTLP/JSON for each batch, which any number of processes may append."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, format_span_id, format_trace_id

_KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
_STATUS = {"UNSET": 0, "OK": 1, "ERROR": 2}


class TraceFile(SpanExporter):
    """Appends to a file. Raises OSError if it cannot be opened."""

    def __init__(self, path: str) -> None:
        # A write to a file in this mode lands behind everybody else's, in one piece.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write one line."""
        line = json.dumps(as_otlp(spans), separators=(",", ":"), ensure_ascii=False) + "\n"
        os.write(self._file, line.encode())
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        os.close(self._file)


def as_otlp(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Spans of one process, as an OTLP/JSON request for `/v1/traces`."""
    if not spans:
        return {"resourceSpans": []}
    resource, scope = spans[0].resource, spans[0].instrumentation_scope
    scoped = {
        "scope": {"name": scope.name, "version": scope.version} if scope else {},
        "spans": [_span(span) for span in spans],
    }
    attributes = _attributes(resource.attributes)
    return {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [scoped]}]}


def _span(span: ReadableSpan) -> dict[str, Any]:
    parent = {"parentSpanId": format_span_id(span.parent.span_id)} if span.parent else {}
    status = {"code": _STATUS[span.status.status_code.name]}
    return {
        **_ids(span.get_span_context()),
        **parent,
        "name": span.name,
        "kind": _KINDS[span.kind.name],
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}),
        "events": [_event(event) for event in span.events],
        "status": status,
    }


def _ids(context: SpanContext | None) -> dict[str, str]:
    if context is None:
        return {}
    return {
        "traceId": format_trace_id(context.trace_id),
        "spanId": format_span_id(context.span_id),
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "timeUnixNano": str(event.timestamp),
        "name": event.name,
        "attributes": _attributes(event.attributes or {}),
    }


def _attributes(attributes: Mapping[str, object]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: object) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list() | tuple():
            return {"arrayValue": {"values": [_value(each) for each in value]}}
        case _:
            return {"stringValue": str(value)}
