"""Spans that were written to a file, for tests to ask about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Seen:
    """A span as it was written."""

    trace: str
    id: str
    parent: str | None
    name: str
    service: str
    begin: int
    end: int
    is_error: bool
    attributes: Mapping[str, Any]
    events: Sequence[str]

    def says(self, word: str) -> Any:
        """One of our own attributes."""
        return self.attributes.get(f"millrace.{word}")


def read(file: Path) -> list[Seen]:
    """Every span of a file, by beginning."""
    spans = [
        _seen(span, _plain(resource["resource"])["service.name"])
        for line in file.read_text("utf-8").splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    return sorted(spans, key=lambda span: span.begin)


def _seen(span: Mapping[str, Any], service: str) -> Seen:
    return Seen(
        trace=span["traceId"],
        id=span["spanId"],
        parent=span.get("parentSpanId"),
        name=span["name"],
        service=service,
        begin=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        is_error=span["status"]["code"] == 2,
        attributes=_plain(span),
        events=[event["name"] for event in span["events"]],
    )


def _plain(of: Mapping[str, Any]) -> dict[str, Any]:
    return {
        each["key"]: int(value) if kind == "intValue" else value
        for each in of["attributes"]
        for kind, value in each["value"].items()
    }
