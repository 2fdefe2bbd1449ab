"""Dead subtasks, and the messages that the broker has put aside."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from db.dead import DeadSubtask
from millrace.problems import one_line
from millrace.show.numbers import count, plural, seconds

SHORT = 8
"""Characters of an id that are shown; `show`, `retry` and `drop` take them."""
_QUESTION_LINES = 3


def dead_table(dead: Sequence[DeadSubtask], broker: Mapping[str, int | None]) -> RenderableType:
    """What `millrace dead list` shows."""
    lines = [_broker(broker)] if broker else []
    if not dead:
        return Group(Text("No dead subtask waits for a decision.", "green"), *lines)
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("Id", no_wrap=True)
    table.add_column("Died", no_wrap=True, justify="right")
    for name, widest in (("Model", 18), ("Tenant", 12)):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=widest)
    table.add_column("Why", no_wrap=True, overflow="ellipsis", ratio=1)
    now = datetime.now(UTC)
    for subtask in dead:
        age = f"{seconds((now - subtask.died_at).total_seconds())} ago"
        cells = (_short(subtask.id), age, subtask.model, subtask.tenant, _why(subtask))
        table.add_row(*(_plain(c) for c in cells), style="dim" if _settled(subtask) else "")
    return Group(table, Text(plural(len(dead), "dead subtask")), *lines)


def _broker(queues: Mapping[str, int | None]) -> Text:
    parts = [f"{name}: {'missing' if n is None else count(n)}" for name, n in queues.items()]
    return Text("Messages put aside at the broker · " + " · ".join(parts), "dim")


def _plain(text: str) -> Text:
    """Names come from clients, and may contain anything."""
    return Text(one_line(text))


def _short(id_: object) -> str:
    return str(id_)[:SHORT]


def _why(subtask: DeadSubtask) -> str:
    error = subtask.error or {}
    why = f"{error.get('code', 'unknown')}: {error.get('message', '')}"
    if subtask.redriven_as:
        why = f"done again as {_short(subtask.redriven_as)} · {why}"
    elif subtask.seen_at:
        why = f"dropped · {why}"
    return one_line(why)


def _settled(subtask: DeadSubtask) -> bool:
    return subtask.seen_at is not None or subtask.redriven_as is not None


def dead_page(subtask: DeadSubtask, ledger: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What `millrace dead show ID` shows of one subtask."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _facts(subtask):
        grid.add_row(name, Text("\n").join([_plain(line) for line in value.split("\n")]))
    return Group(grid, *_attempts(subtask, ledger))


def _facts(subtask: DeadSubtask) -> list[tuple[str, str]]:
    facts = [
        ("subtask", str(subtask.id)),
        ("request", f"{subtask.request} ({subtask.request_state}, asked {subtask.asked_model})"),
        ("step", f"{subtask.step} ({subtask.kind}) on {subtask.model}"),
        ("tenant", f"{subtask.tenant}{f' / {subtask.end_user}' if subtask.end_user else ''}"),
        ("died", subtask.died_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")),
        ("why", _why(subtask)),
        ("lost workers", str(subtask.losses)),
        ("question", _question(subtask.question)),
    ]
    if subtask.redriven_as:
        facts.append(("done again as", str(subtask.redriven_as)))
    return facts


def _question(question: Mapping[str, Any]) -> str:
    asked = [m for m in question.get("messages", ()) if m.get("role") == "user"]
    content = asked[-1].get("content") if asked else ""
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "[image]")) for part in content)
    lines = [one_line(line, 200) for line in str(content or "").splitlines() if line.strip()]
    more = ["…"] if len(lines) > _QUESTION_LINES else []
    return "\n".join([*lines[:_QUESTION_LINES], *more])


def _attempts(subtask: DeadSubtask, ledger: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    if not ledger:
        return [Text("\nNo attempt reported anything: its workers were lost.", "dim")]
    table = Table(box=SIMPLE_HEAD, expand=True, collapse_padding=True, pad_edge=False)
    table.add_column("Try", no_wrap=True, justify="right")
    for name, widest in (("Model", 18), ("Worker", 20)):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=widest)
    table.add_column("Outcome", overflow="fold", ratio=1)
    for line in ledger:
        said = (line["error"] or {}).get("message", "")
        outcome = one_line(f"{line['outcome']}: {said}" if said else str(line["outcome"]))
        cells = (str(line["attempt"]), str(line["model"]), str(line["worker"]), outcome)
        table.add_row(*(_plain(cell) for cell in cells))
    missing = subtask.attempt - len({line["attempt"] for line in ledger})
    silent = [Text(f"{plural(missing, 'attempt')} left no report.", "dim")] if missing > 0 else []
    return [table, *silent]


def messages_page(
    queue: str, waiting: int | None, messages: Sequence[Mapping[str, Any]]
) -> RenderableType:
    """What waits in `dead` or `quarantine`."""
    if waiting is None:
        return Text(f"The queue {queue} is not declared; a master does it at its start.", "yellow")
    parts: list[RenderableType] = []
    for number, message in enumerate(messages, start=1):
        came = f" from {message['queue']}" if message["queue"] else ""
        parts.append(_plain(f"{number}.{came}: {message['reason']}"))
        parts.append(Text(f"   {message['begins']}", "dim", overflow="ellipsis", no_wrap=True))
    parts.append(Text(f"{queue}: {plural(waiting, 'message')}, {len(messages)} shown, none taken."))
    return Group(*parts)
