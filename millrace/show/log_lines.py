"""Log lines for a terminal: time, level, who, what, and the rest."""

from collections.abc import Iterator

from rich.text import Text

from millrace.log_lines import LogLine
from millrace.problems import one_line

_LEVELS = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "red"}
_SAID = frozenset(
    {"timestamp", "level", "event", "process", "worker", "exception", "request", "request_id"}
)
_IDS = frozenset({"request", "subtask", "execution", "trace", "redriven_from"})
_FIRST = ("subtask", "attempt", "execution", "step", "model")
_SHORT = 8
_WHO = 24


def pretty(line: LogLine) -> Iterator[Text]:
    """A line, and below it the traceback if it has one."""
    fields = line.fields
    level = str(fields.get("level", ""))
    style = _LEVELS.get(level, "")
    shown = Text.assemble((line.at[11:23].ljust(13), "dim"), (level.ljust(8), style))
    shown.append(_fitting(_who(line)), "dim")
    shown.append(" ").append(one_line(str(fields["event"]), 200), f"bold {style}".strip())
    for name, value in sorted(fields.items(), key=lambda field: _place(field[0])):
        if name not in _SAID and value is not None:
            text = str(value)[:_SHORT] if name in _IDS else one_line(str(value), 300)
            shown.append(f" {name}=", "dim").append(text)
    yield shown
    if isinstance(trace := fields.get("exception"), str):
        for each in trace.splitlines():
            yield Text("    " + "".join(c if c.isprintable() else " " for c in each), "dim")


def _place(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _who(line: LogLine) -> str:
    """The most that is known of who logged it."""
    fields = line.fields
    return one_line(str(fields.get("worker") or line.source or fields.get("process") or ""), 80)


def _fitting(name: str) -> str:
    return name.ljust(_WHO) if len(name) <= _WHO else f"…{name[1 - _WHO :]}"
