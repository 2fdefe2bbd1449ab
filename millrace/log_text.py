"""Events as text. What cannot be written is written otherwise: no log call fails by it."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from pydantic_core import to_json
from structlog.typing import EventDict, Processor, WrappedLogger

_SEVERAL_LINES = frozenset({"exception", "stack"})
_NUMBERS = (bool, int, float, type(None))
_INDENT = "    "


def as_json(event: Mapping[str, Any]) -> bytes:
    """One line of JSON."""
    try:
        return _json(event)
    except Exception:  # half a character, bytes, itself within itself: who logs it goes on
        return _json({name: _writable(value) for name, value in event.items()})


def _json(value: object) -> bytes:
    return to_json(value, fallback=repr, inf_nan_mode="strings")


def _writable(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    try:
        _json(value)
    except Exception:
        return _shown(value)
    return value


def _shown(value: object) -> str:
    try:
        return repr(value).encode(errors="backslashreplace").decode()
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"


def for_people(render: Processor) -> Processor:
    """A processor before which nothing that was logged can break a line or steer a terminal."""

    def rendered(logger: WrappedLogger, name: str, event: EventDict) -> Any:
        safe: MutableMapping[str, Any] = {key: _safe(key, value) for key, value in event.items()}
        return render(logger, name, safe)

    return rendered


def _safe(name: str, value: object) -> object:
    if isinstance(value, _NUMBERS):
        return value
    if not isinstance(value, str):
        return _one_line(_shown(value))
    if name in _SEVERAL_LINES:  # below its line, where it cannot be taken for one
        return "\n".join(_INDENT + _printable(line) for line in value.splitlines())
    return _one_line(value)


def _one_line(text: str) -> str:
    return " ".join(_printable(text).split())


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
