"""Traces: one for each request, from HTTP through the queue to the last word of its stream.

Off, every function here returns at once, and OpenTelemetry is not even imported. On, spans go
where the setting says. Words are given as keywords and become attributes by `ATTRIBUTES`; none of
them is ever a prompt or an answer.
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bus.protocol import Delivery

if TYPE_CHECKING:
    from bus.open_telemetry import Recorder

TRACEPARENT = "traceparent"
"""The header, of HTTP and of messages, that says which trace something belongs to (W3C)."""

ATTRIBUTES: Mapping[str, str] = {
    "model": "gen_ai.request.model",
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "queue": "messaging.destination.name",
    "messaging": "messaging.system",
    "sending": "messaging.operation.type",
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "error": "error.type",
}
"""Names that OpenTelemetry has for what is said here; everything else is `millrace.<word>`."""


class Kind(StrEnum):
    """Which side of a call a span is."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span:
    """A span that records nothing; what everybody gets while tracing is off."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def note(self, **words: object) -> None:
        """Say more about it."""

    def rename(self, name: str) -> None:
        """What it is, once that is known."""

    def event(self, name: str, **words: object) -> None:
        """Something happened now."""

    def fail(self, code: str) -> None:
        """It ended badly, without an exception."""


_NOTHING = Span()
_recorder: "Recorder | None" = None


def turn_on(setting: str | None, service: str, *, instance: str, share: float = 1.0) -> None:
    """Record this process's spans; `setting` is one that `TraceSettings` let pass.

    Raises ModuleNotFoundError without OpenTelemetry's packages, OSError for a file that cannot be
    written.
    """
    global _recorder  # noqa: PLW0603 - one for the process, as its span in force is
    shut_down()
    if setting is not None:
        make = import_module("bus.open_telemetry").make_recorder  # heavy, and rarely wanted
        _recorder = make(setting, service, instance, share)


def shut_down() -> None:
    """Send what is still here, within two seconds, and record nothing any more."""
    global _recorder
    recorder, _recorder = _recorder, None
    if recorder is not None:
        recorder.shut_down()


def is_on() -> bool:
    """Whether anything is recorded."""
    return _recorder is not None


def span(
    name: str, kind: Kind = Kind.INTERNAL, *, parent: str | None = None, **words: object
) -> AbstractContextManager[Span]:
    """A span around a block, below `parent` (a traceparent) or else below the one in force."""
    if _recorder is None:
        return _NOTHING
    return _recorder.span(name, kind, parent, words)


def record(name: str, kind: Kind, *, parent: str | None, began: int, **words: object) -> None:
    """A span that ends now and began then (`now()`), and that nothing is below of."""
    if _recorder is not None:
        _recorder.record(name, kind, parent, began, words)


def now() -> int:
    """Nanoseconds for `record`; 0 while nothing is recorded."""
    return 0 if _recorder is None else time.time_ns()


def sent_with(delivery: Delivery) -> str | None:
    """The traceparent of whoever sent this; an empty one begins a trace."""
    if _recorder is None:
        return None
    value = delivery.headers.get(TRACEPARENT)
    return value if isinstance(value, str) else ""


def inject(headers: dict[str, str]) -> dict[str, str]:
    """The same headers, which now name the span in force."""
    if _recorder is not None and (parent := _recorder.traceparent()):
        headers[TRACEPARENT] = parent
    return headers


def traceparent() -> str | None:
    """The span in force, to be stored with work that is done later."""
    return None if _recorder is None else _recorder.traceparent()


def current_trace_id() -> str | None:
    """The id of the trace in force, as 32 hexadecimal digits; None where nothing is recorded."""
    return None if _recorder is None else _recorder.trace_id()


def trace_id_of(delivery: Delivery) -> str | None:
    """The id of the trace that a delivery belongs to; None where nothing is recorded."""
    return trace_id_in(sent_with(delivery))


def trace_id_in(parent: str | None) -> str | None:
    """The id of the trace that a traceparent names; None where nothing is recorded."""
    return None if _recorder is None else _recorder.trace_id_of(parent)
