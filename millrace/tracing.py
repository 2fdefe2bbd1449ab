"""Tracing of a process, for as long as a command runs."""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec

from bus import tracing
from bus.trace_settings import TraceSettings
from millrace.problems import Problem, reason

_MISSING = (
    "MILLRACE_TRACING is set, but OpenTelemetry is not installed here. "
    "Install it with: pip install '.[master]', or '.[worker]' for a worker."
)


@contextlib.contextmanager
def traced(settings: TraceSettings, service: str, instance: str) -> Iterator[None]:
    """Record this process's spans where the settings say so. Raises `Problem`."""
    check(settings)
    try:
        share = settings.tracing_share
        tracing.turn_on(settings.tracing, service, instance=instance, share=share)
    except OSError as error:
        said = f"cannot write {error.filename}: {reason(error)}"
        raise Problem(f"MILLRACE_TRACING: {said}.") from error
    try:
        yield
    finally:
        tracing.shut_down()


def check(settings: TraceSettings) -> None:
    """Raises `Problem` where tracing is wanted and cannot be had."""
    if settings.tracing is not None and not _is_installed():
        raise Problem(_MISSING)


def _is_installed() -> bool:
    try:
        return all(map(find_spec, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")))
    except ModuleNotFoundError:
        return False
